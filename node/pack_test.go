package node

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"vecino/catalog"
)

// fillIn sets all fields of v to something, whatever it is: a field that is added to
// the record some day must not get lost.
func fillIn(t *testing.T, rng *rand.Rand, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[netip.Addr]() {
		var a [16]byte
		for i := range a {
			a[i] = byte(rng.Uint32())
		}
		v.Set(reflect.ValueOf(netip.AddrFrom16(a)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fillIn(t, rng, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+rng.IntN(3), 3))
		for i := range v.Len() {
			fillIn(t, rng, v.Index(i))
		}
	case reflect.String:
		v.SetString(fmt.Sprint("word ", rng.IntN(1000)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(int64(rng.Uint64()))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(rng.Uint64() >> (64 - v.Type().Bits()))
	default:
		t.Fatalf("a record has a field of kind %v", v.Kind())
	}
}

func TestPackedRecordsComeOutAsTheyWere(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := newPacker()
	records := []catalog.Database{
		{ID: 1},
		{ID: 2, Password: strings.Repeat("0f", 32), Address: netip.MustParseAddr("fdaa::3")},
		{ID: 3, Password: strings.Repeat("0F", 32), Address: netip.MustParseAddr("10.0.0.1"), Revision: -1},
	}
	for id := range catalog.ID(100) {
		d := catalog.Database{}
		fillIn(t, rng, reflect.ValueOf(&d).Elem())
		d.ID = id + 4
		records = append(records, d)
	}
	var packs []packed
	for i := range records {
		packs = append(packs, p.pack(&records[i]))
	}
	for i, want := range records {
		if got := p.unpack(want.ID, packs[i]); !reflect.DeepEqual(*got, want) {
			t.Errorf("packed was\n%+v\nand out came\n%+v", want, *got)
		}
		if got := packs[i].revision(); got != want.Revision {
			t.Errorf("revision %d, want %d", got, want.Revision)
		}
	}
}

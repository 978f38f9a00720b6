package link

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"vecino/region"
)

func threeRegions() *Distance {
	return NewDistance([]region.Code{"mad", "ams", "scl"}, func(from, to region.Code) time.Duration {
		switch {
		case from == "scl" || to == "scl":
			return 100 * time.Millisecond
		default:
			return 12500 * time.Microsecond
		}
	})
}

func TestDistanceChangesInOneDirection(t *testing.T) {
	d := threeRegions()
	changed := d.Changed()
	d.SetDelay("mad", "ams", time.Second)
	d.SetCut("ams", "mad", true)
	d.SetLag("scl", 900*time.Millisecond)
	select {
	case <-changed:
	default:
		t.Error("nobody is told of the change")
	}
	for _, tc := range []struct {
		from, to region.Code
		delay    time.Duration
		cut      bool
	}{
		{"mad", "ams", time.Second, false},
		{"ams", "mad", 12500 * time.Microsecond, true},
		{"scl", "mad", 100 * time.Millisecond, false},
		{"mad", "mad", 0, false},
		{"mad", "xxx", 0, false},
	} {
		if delay, cut := d.Delay(tc.from, tc.to), d.Cut(tc.from, tc.to); delay != tc.delay || cut != tc.cut {
			t.Errorf("%s to %s: %v, cut %v; want %v, %v", tc.from, tc.to, delay, cut, tc.delay, tc.cut)
		}
	}
	if lag := d.Lag("scl"); lag != 900*time.Millisecond || d.Lag("mad") != 0 {
		t.Errorf("scl lags by %v, mad by %v", lag, d.Lag("mad"))
	}
	d.SetCut("ams", "mad", false)
	d.SetLag("scl", 0)
	if d.Cut("ams", "mad") || d.Lag("scl") != 0 {
		t.Error("it doesn't heal")
	}
}

func TestDistanceTravelsAsJSON(t *testing.T) {
	d := threeRegions()
	d.SetCut("scl", "ams", true)
	d.SetLag("scl", 900*time.Millisecond)
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var got Distance
	got.SetCut("mad", "ams", true) // the new table replaces all of the old one
	changed := got.Changed()
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told of the change")
	}
	again, err := json.Marshal(&got)
	if err != nil || string(again) != string(b) {
		t.Errorf("%v; became\n%s, was\n%s", err, again, b)
	}
	if got.Delay("mad", "ams") != 12500*time.Microsecond || !got.Cut("scl", "ams") || got.Cut("ams", "scl") || got.Cut("mad", "ams") || got.Lag("scl") != 900*time.Millisecond {
		t.Errorf("became %s", again)
	}
	for _, bad := range []string{
		`{`,
		`{"pairs":[{"from":"mad","to":"","delay_ms":1}]}`,
		`{"pairs":[{"from":"mad","to":"ams","delay_ms":-1}]}`,
		`{"pairs":[{"from":"mad","to":"ams","delay_ms":1e9}]}`,
		`{"lag":[{"region":"","ms":1}]}`,
	} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if after, _ := json.Marshal(&got); string(after) != string(b) {
		t.Error("a bad table changed the good one")
	}
}

func TestNoDistanceIsNoDistance(t *testing.T) {
	for name, d := range map[string]*Distance{"nil": nil, "zero": new(Distance)} {
		if d.Delay("mad", "ams") != 0 || d.Cut("mad", "ams") || d.Lag("mad") != 0 || d.Changed() == nil {
			t.Errorf("the %s table has regions apart", name)
		}
		if err := d.Connect(t.Context(), "mad", "ams"); err != nil {
			t.Errorf("the %s table doesn't connect: %v", name, err)
		}
	}
}

func TestConnectTakesARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := threeRegions()
		start := time.Now()
		if err := d.Connect(t.Context(), "mad", "scl"); err != nil || time.Since(start) != 200*time.Millisecond {
			t.Errorf("connected after %v, %v", time.Since(start), err)
		}

		// Cut on the way back it waits, and after the healing it is through.
		d.SetCut("scl", "mad", true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if err := d.Connect(ctx, "mad", "scl"); err == nil || time.Since(start) != time.Second {
			t.Errorf("over a cut it connected after %v, %v", time.Since(start), err)
		}
		time.AfterFunc(3*time.Second, func() { d.SetCut("scl", "mad", false) })
		start = time.Now()
		if err := d.Connect(t.Context(), "mad", "scl"); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("connected after %v, %v", time.Since(start), err)
		}
	})
}

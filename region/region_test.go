package region

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRegionsAreOrderedAndWellFormed(t *testing.T) {
	if !slices.IsSortedFunc(regions, func(a, b Region) int { return strings.Compare(string(a.Code), string(b.Code)) }) {
		t.Error("regions are not ordered by code; Lookup searches by halves")
	}
	for i, r := range All() {
		if len(r.Code) != 3 || r.Name == "" || r.Lat < -90 || r.Lat > 90 || r.Lon < -180 || r.Lon > 180 {
			t.Errorf("region %+v is malformed", r)
		}
		if i > 0 && regions[i-1].Code == r.Code {
			t.Errorf("region %s is there twice", r.Code)
		}
		if got, ok := Lookup(r.Code); !ok || got != r {
			t.Errorf("Lookup(%s) = %v, %v", r.Code, got, ok)
		}
	}
	if _, ok := Lookup("xyz"); ok {
		t.Error("Lookup found a region that isn't there")
	}
	if got := Title("mad"); got != "Madrid, Spain (mad)" {
		t.Errorf("Title(mad) = %q", got)
	}
}

func TestRTT(t *testing.T) {
	for _, c := range []struct {
		a, b     Code
		min, max time.Duration
	}{
		{"mad", "mad", 0, 0},
		{"mad", "xyz", 0, 0},
		{"ams", "fra", 4 * time.Millisecond, 7 * time.Millisecond},
		{"cdg", "scl", 160 * time.Millisecond, 168 * time.Millisecond}, // 11,680 km
		{"mad", "syd", 240 * time.Millisecond, 252 * time.Millisecond}, // 17,670 km
		{"lhr", "ewr", 76 * time.Millisecond, 80 * time.Millisecond},   // 5,570 km
		{"nrt", "sea", 104 * time.Millisecond, 112 * time.Millisecond}, // 7,700 km, over the date line
	} {
		got := RTT(c.a, c.b)
		if got < c.min || got > c.max {
			t.Errorf("RTT(%s, %s) = %s, want %s to %s", c.a, c.b, got, c.min, c.max)
		}
		if back := RTT(c.b, c.a); back != got {
			t.Errorf("RTT(%s, %s) = %s but %s the other way", c.a, c.b, got, back)
		}
		if OneWay(c.a, c.b) != got/2 {
			t.Errorf("OneWay(%s, %s) is not half of RTT", c.a, c.b)
		}
	}
}

func TestNearest(t *testing.T) {
	of := []Code{"syd", "xyz", "gru", "scl", "mad", "ams"}
	got := Nearest("scl", of)
	want := []Code{"scl", "gru", "mad", "syd", "ams", "xyz"}
	if RTT("scl", "syd") > RTT("scl", "ams") {
		t.Fatal("the test's geography is wrong")
	}
	if !slices.Equal(got, want) {
		for _, r := range got {
			t.Logf("%s %s", r, RTT("scl", r))
		}
		t.Errorf("Nearest(scl) = %v, want %v", got, want)
	}
	if of[0] != "syd" {
		t.Error("Nearest reordered its argument")
	}
}

package main

import (
	"bytes"
	"testing"

	"github.com/google/pprof/profile"
)

// What is left for the compiler names functions and lines, and nothing of the machine.
func TestMergeForBuild(t *testing.T) {
	one := func(count int64) *profile.Profile {
		m := &profile.Mapping{ID: 1, File: "/secret/bin"}
		f := &profile.Function{ID: 1, Name: "vecino/a.f", SystemName: "vecino/a.f", Filename: "/secret/a.go", StartLine: 7}
		l := &profile.Location{ID: 1, Mapping: m, Address: 0x10, Line: []profile.Line{{Function: f, Line: 9}}}
		return &profile.Profile{
			SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
			PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1,
			Mapping: []*profile.Mapping{m}, Function: []*profile.Function{f}, Location: []*profile.Location{l},
			Sample:    []*profile.Sample{{Location: []*profile.Location{l}, Value: []int64{count, 10 * count}, Label: map[string][]string{"k": {"v"}}}},
			TimeNanos: 5,
		}
	}
	p, err := mergeForBuild([]*profile.Profile{one(1), one(2)})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := p.WriteUncompressed(&out); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out.Bytes(), []byte("secret")) {
		t.Errorf("it names the machine's files: %q", out.Bytes())
	}
	got, err := profile.ParseData(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sample) != 1 || got.Sample[0].Value[0] != 3 || got.Sample[0].Location[0].Line[0].Line != 9 || got.Function[0].Name != "vecino/a.f" || got.Function[0].StartLine != 7 {
		t.Errorf("of samples at one place came %v", got)
	}
}

package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWhoGivesMemory(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name   string
		all    []demand
		target int64
		want   []int64 // in megabytes, to the nearest
	}{
		{"enough room: nobody", []demand{{resident: 30 * mb}, {resident: 60 * mb}}, 100 * mb, []int64{0, 0}},
		{"one above its share: that one alone", []demand{{resident: 10 * mb}, {resident: 140 * mb}, {resident: 20 * mb}}, 100 * mb, []int64{0, 70, 0}},
		{"all alike: all alike", []demand{{resident: 50 * mb}, {resident: 50 * mb}, {resident: 50 * mb}, {resident: 50 * mb}}, 100 * mb, []int64{25, 25, 25, 25}},
		{"two above: down to one level", []demand{{resident: 100 * mb}, {resident: 60 * mb}, {resident: 10 * mb}}, 90 * mb, []int64{60, 20, 0}},
		{"idle ones first", []demand{{resident: 50 * mb}, {resident: 50 * mb, idle: 4 * time.Minute}}, 40 * mb, []int64{17, 43}},
		{"an idle one that suffices pays all", []demand{{resident: 50 * mb}, {resident: 50 * mb, idle: time.Hour}}, 60 * mb, []int64{0, 40}},
		{"what can't leave stays, others give for it", []demand{{resident: 80 * mb, fixed: 70 * mb}, {resident: 60 * mb}}, 100 * mb, []int64{10, 30}},
		{"not enough can leave", []demand{{resident: 80 * mb, fixed: 80 * mb}, {resident: 60 * mb, fixed: 50 * mb}}, 100 * mb, []int64{0, 10}},
		{"nobody there", nil, 0, nil},
		{"a clock that went back", []demand{{resident: 50 * mb, idle: -time.Hour}, {resident: 50 * mb}}, 80 * mb, []int64{10, 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := shares(c.all, c.target)
			left := int64(0)
			for i := range c.all {
				if rounded := (got[i] + mb/2) / mb; rounded != c.want[i] {
					t.Errorf("database %d gives %d MB, want %d", i, rounded, c.want[i])
				}
				if got[i] < 0 || got[i] > c.all[i].resident-c.all[i].fixed {
					t.Errorf("database %d can't give %d bytes", i, got[i])
				}
				left += max(c.all[i].resident-got[i], c.all[i].fixed)
			}
			if c.name != "not enough can leave" && left > c.target {
				t.Errorf("%d bytes are left, want at most %d", left, c.target)
			}
		})
	}
}

func TestAmountsOfMemoryAreReadAsPeopleWriteThem(t *testing.T) {
	for in, want := range map[string]int64{
		"512mb": 512 << 20, "64MB": 64 << 20, "2gb": 2 << 30, "1.5g": 3 << 29, "100 kib": 100 << 10, "1048576": 1 << 20, "10b": 10, "0": 0,
	} {
		var b Bytes
		if err := b.Set(in); err != nil || int64(b) != want {
			t.Errorf("%q is read as %d (%v), want %d", in, b, err, want)
		}
		var again Bytes
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q is written as %q, which is %d (%v)", in, b.String(), again, err)
		}
	}
	for _, in := range []string{"", "mb", "-1", "lots", "1tb2", "nan", "1e30gb"} {
		var b Bytes
		if err := b.Set(in); err == nil {
			t.Errorf("%q is read as %d", in, b)
		}
	}
}

func TestTheBudgetIsDividedWithoutRemainder(t *testing.T) {
	for _, total := range []int64{leastMemory, 64 << 20, 512 << 20, 16 << 30, 512 << 30} {
		b := divide(total)
		if sum := b.cache + 2*b.writes + b.process + b.gaps + b.data; sum > total && b.data > total/4 {
			t.Errorf("of %d bytes %d are given out: %+v", total, sum, b)
		}
		if b.data < total/4 || b.cache <= 0 || b.writes <= 0 {
			t.Errorf("%d bytes: %+v", total, b)
		}
	}
}

func TestTheLimitOfTheControlGroupCounts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write("sys/a/memory.max", "1000000\n")
	write("sys/a/b/memory.max", "max\n")
	write("sys/memory/c/memory.limit_in_bytes", "500000\n")
	write("sys/memory/memory.limit_in_bytes", "9223372036854771712\n")
	for in, want := range map[string]int64{"0::/a/b\n": 1000000, "0::/x\n": 0, "5:cpu:/\n3:memory,pids:/c\n0::/\n": 500000, "": 0} {
		if got := groupMemory(write("cgroup", in), filepath.Join(dir, "sys")); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
	if got := machineMemory(write("meminfo", "MemFree: 5 kB\nMemTotal:     2048 kB\n")); got != 2<<20 {
		t.Errorf("machine has %d bytes", got)
	}
}

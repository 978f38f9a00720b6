package tier

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

var measure = flag.Bool("measure", false, "run the measurements of DESIGN.md, which take minutes")

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// putAll writes the keys of hashes, of which there are n in order.
func putAll(tb testing.TB, tier *Tier, db uint64, n, step, session int, value []byte) {
	body, head := value, make([]byte, 24)
	if len(value) <= 256 {
		head, body = append(head, value...), nil
	}
	var w *Writer
	var key [16]byte
	count := 0
	for i := 0; i < n; i += step {
		if w == nil {
			w = tier.Begin(db)
		}
		hash := uint64(i) * (^uint64(0) / uint64(n))
		copy(key[:], fmt.Appendf(key[:0], "key:%012d", i))
		w.Put(0, hash, key[:], head, body)
		if count++; count%session == 0 {
			if err := w.Commit(false); err != nil {
				tb.Fatal(err)
			}
			w = nil
		}
	}
	if w != nil {
		if err := w.Commit(true); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestMeasure(t *testing.T) {
	if !*measure {
		t.Skip("takes minutes; run it with -measure")
	}
	const n = 1_000_000
	dir, err := os.MkdirTemp("", "tier")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	settle := func(tier *Tier) {
		for quiet, last := 0, int64(-1); quiet < 5; quiet++ {
			time.Sleep(60 * time.Millisecond)
			if s := tier.Stats(); s.Compactions != last || s.Compacting {
				quiet, last = 0, s.Compactions
			}
		}
	}
	for _, size := range []int{32, 1024} {
		value := make([]byte, size)
		for i := range value {
			value[i] = byte(rand.Uint32())
		}
		for _, session := range []int{100, 1000, 4000, 16000, 64000, n} {
			for _, bulk := range []bool{false, true} {
				if !bulk && session > 64000 || bulk && session < 1000 {
					continue
				}
				opts := Options{BulkBytes: 1 << 40}
				if bulk {
					opts.BulkBytes = 1
				}
				os.RemoveAll(dir)
				tier, err := Open(dir, opts)
				if err != nil {
					t.Fatal(err)
				}
				// Full once, in one session; then a tenth of the keys again.
				putAll(t, tier, 1, n, 1, n, value)
				runtime.GC()
				settle(tier)
				written := tier.Stats().WrittenBytes
				c, began := cpu(), time.Now()
				for range 4 {
					putAll(t, tier, 1, n, 10, session, value)
				}
				keys := time.Duration(4 * n / 10)
				used, took := cpu()-c, time.Since(began)
				settle(tier)
				tier.Flush()
				settle(tier)
				s := tier.Stats()
				fmt.Printf("%4d B, sessions of %7d, bulk %-5v: %6v/key CPU, %6v/key wall, with compaction %6v/key CPU; written %.1f times, read amp %d, disk %d MiB\n", size, session, bulk,
					(used / keys).Round(10), (took / keys).Round(10), ((cpu() - c) / keys).Round(10), float64(s.WrittenBytes-written)/float64(int(keys)*(size+50)), s.ReadAmp, s.DiskBytes>>20)
				tier.Close()
			}
		}
		// First fill, whole, and reading.
		os.RemoveAll(dir)
		tier, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		c, began := cpu(), time.Now()
		putAll(t, tier, 1, n, 1, n, value)
		fmt.Printf("%4d B, first fill in one session: %v/key CPU, %v/key wall, disk %d MiB\n", size, (cpu()-c)/n, time.Since(began)/n, tier.Stats().DiskBytes>>20)
		heads(t, tier, n)
		gets(t, tier, n)
		tier.Close()
	}
	const many = 5_000_000
	os.RemoveAll(dir)
	tier, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	putAll(t, tier, 1, many, 1, many, make([]byte, 32))
	heads(t, tier, many)
	for db := uint64(2); db < 100_000; db++ {
		w := tier.Begin(db)
		for i := range 10 {
			w.Put(0, uint64(i)<<60, fmt.Appendf(nil, "key:%d", i), make([]byte, 56), nil)
		}
		w.Meta(make([]byte, 100))
		if err := w.Commit(false); err != nil {
			t.Fatal(err)
		}
	}
	tier.Close()
	began := time.Now()
	if tier, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	opened := time.Since(began)
	began = time.Now()
	metas := 0
	tier.Metas(func(uint64, []byte) error { metas++; return nil })
	fmt.Printf("100,000 small databases: open %v, %d metas %v\n", opened, metas, time.Since(began))
	var took []time.Duration
	for range 20_000 {
		began := time.Now()
		n := 0
		tier.Heads(2+rand.Uint64N(99_998), func(uint8, uint64, []byte, []byte) error { n++; return nil })
		took = append(took, time.Since(began))
		if n != 10 {
			t.Fatal(n)
		}
	}
	slices.Sort(took)
	fmt.Printf("heads of 10 keys: p50 %v p99 %v\n", took[len(took)/2], took[len(took)*99/100])
	tier.Close()
}

func heads(t *testing.T, tier *Tier, n int) {
	for _, inline := range []int{1 << 40, headsInline} {
		c, began, got := cpu(), time.Now(), 0
		tier.heads(1, inline, func(uint8, uint64, []byte, []byte) error { got++; return nil })
		fmt.Printf("heads of %d keys, inline %v: %v, %v/key CPU, %v/key wall\n", got, inline > n, time.Since(began), (cpu()-c)/time.Duration(n), time.Since(began)/time.Duration(n))
	}
}

func gets(t *testing.T, tier *Tier, n int) {
	for _, what := range []string{"first", "again"} {
		var took []time.Duration
		c := cpu()
		rng := rand.New(rand.NewPCG(1, 1))
		const reads = 50_000
		for range reads {
			i := rng.IntN(n)
			began := time.Now()
			_, _, found, err := tier.Get(Key{1, 0, uint64(i) * (^uint64(0) / uint64(n)), fmt.Appendf(nil, "key:%012d", i)})
			if err != nil || !found {
				t.Fatal(found, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		fmt.Printf("Get %s: p50 %v p99 %v, %v CPU\n", what, took[reads/2], took[reads*99/100], (cpu()-c)/reads)
	}
}

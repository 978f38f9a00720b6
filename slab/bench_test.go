package slab

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func key16(b []byte, i int) []byte {
	copy(b, "user")
	binary.BigEndian.PutUint64(b[8:], uint64(i)*0x9e3779b97f4a7c15)
	return b[:16]
}

func filled(b testing.TB, n int) *Space {
	s := New(1)
	var k [16]byte
	var v [32]byte
	for i := range n {
		key16(k[:], i)
		if _, err := s.Insert(s.Hash(k[:]), k[:], v[:], 0, 1, 0); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func rss() int64 {
	b, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize())
}

// BenchmarkMemory shows bytes a key, with keys of 16 bytes and values of 32.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000, 1_000_000, 1_300_000, 2_000_000, 5_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				debug.FreeOSMemory()
				Drain()
				before := rss()
				s := filled(b, n)
				debug.FreeOSMemory()
				st := s.Stats()
				b.ReportMetric(float64(rss()-before)/float64(n), "RSS-B/key")
				b.ReportMetric(float64(st.Held)/float64(n), "held-B/key")
				b.ReportMetric(float64(st.Index)/float64(n), "index-B/key")
				s.Close()
			}
		})
	}
}

// BenchmarkWorst shows the longest single pass of each operation while a
// space fills to 5M keys and is emptied, in time of this thread, page faults
// included. The clock itself takes some of each.
func BenchmarkWorst(b *testing.B) {
	for b.Loop() {
		runtime.LockOSThread()
		const n = 5_000_000
		s := New(1)
		var k [16]byte
		var v [32]byte
		var inserts, removes, compacts []time.Duration
		top := func(all []time.Duration, d time.Duration) []time.Duration {
			if d > 20*time.Microsecond {
				all = append(all, d)
			}
			return all
		}
		last := threadTime()
		lap := func() time.Duration { now := threadTime(); d := now - last; last = now; return d }
		for i := range n {
			key16(k[:], i)
			lap()
			s.Insert(s.Hash(k[:]), k[:], v[:], 0, 1, 0)
			inserts = top(inserts, lap())
		}
		for i := range n {
			key16(k[:], i)
			h := s.Hash(k[:])
			lap()
			s.Remove(h, s.Find(h, k[:]))
			removes = top(removes, lap())
			if i%64 == 0 {
				lap()
				s.Compact(512)
				compacts = top(compacts, lap())
			}
		}
		for name, all := range map[string][]time.Duration{"insert": inserts, "remove": removes, "compact": compacts} {
			slices.Sort(all)
			slices.Reverse(all)
			b.Logf("%s: %d over 20µs, worst %v", name, len(all), all[:min(len(all), 6)])
		}
		s.Close()
		runtime.UnlockOSThread()
	}
}

func BenchmarkSpace(b *testing.B) {
	for _, n := range []int{1000, 1_000_000, 5_000_000} {
		s := filled(b, n)
		rng := rand.New(rand.NewPCG(1, 1))
		var k [16]byte
		var v [32]byte
		b.Run(fmt.Sprintf("Find/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				key16(k[:], rng.IntN(n))
				if s.Find(s.Hash(k[:]), k[:]) == 0 {
					b.Fatal("lost")
				}
			}
		})
		b.Run(fmt.Sprintf("Touch16Find16/%d", n), func(b *testing.B) {
			var keys [16][16]byte
			var hashes [16]uint64
			var recs [16]Rec
			sum := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				for i := range keys {
					key16(keys[i][:], rng.IntN(n))
					hashes[i] = s.Hash(keys[i][:])
				}
				for _, h := range hashes {
					sum += s.Approach(h)
				}
				for i, h := range hashes {
					recs[i] = s.Touch(h)
				}
				for _, r := range recs {
					if r != 0 {
						sum += r.Seq()
					}
				}
				for i, h := range hashes {
					if s.Find(h, keys[i][:]) == 0 {
						b.Fatal("lost")
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/key")
		})
		b.Run(fmt.Sprintf("Miss/%d", n), func(b *testing.B) {
			for b.Loop() {
				key16(k[:], n+rng.IntN(n))
				if s.Find(s.Hash(k[:]), k[:]) != 0 {
					b.Fatal("found")
				}
			}
		})
		b.Run(fmt.Sprintf("Set/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				key16(k[:], rng.IntN(n))
				h := s.Hash(k[:])
				s.Set(h, s.Find(h, k[:]), v[:], 0)
			}
		})
		b.Run(fmt.Sprintf("RemoveInsert/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				key16(k[:], rng.IntN(n))
				h := s.Hash(k[:])
				s.Remove(h, s.Find(h, k[:]))
				s.Insert(h, k[:], v[:], 0, 1, 0)
			}
		})
		b.Run(fmt.Sprintf("Scan10/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			cursor, sum := uint64(0), 0
			for b.Loop() {
				cursor = s.ScanFrom(cursor, 10, func(uint64, Rec) { sum++ })
			}
		})
		s.Close()
	}
	b.Run("Fill", func(b *testing.B) {
		b.ReportAllocs()
		s := New(1)
		var k [16]byte
		var v [32]byte
		for i := 0; b.Loop(); i++ {
			key16(k[:], i)
			s.Insert(s.Hash(k[:]), k[:], v[:], 0, 1, 0)
		}
		s.Close()
	})
}

// BenchmarkClose shows how long a caller waits that drops a gigabyte.
func BenchmarkClose(b *testing.B) {
	for b.Loop() {
		s := New(1)
		v := make([]byte, 1000)
		for i := range 1_000_000 {
			s.Insert(s.Hash(key(i)), key(i), v, 0, 1, 0)
		}
		begun := time.Now()
		s.Close()
		b.ReportMetric(float64(time.Since(begun).Microseconds()), "close-µs")
		begun = time.Now()
		Drain()
		b.ReportMetric(float64(time.Since(begun).Milliseconds()), "drain-ms")
	}
}

package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"

	"vecino/catalog"
	"vecino/internal/vfs"
)

func testHeader(seq uint64) Header {
	return Header{
		DB: 42, Position: catalog.Position{Epoch: 3, Seq: seq}, JournalOffset: 1 << 40, TimeMS: 1700000000123, Meta: []byte("meta"),
	}
}

func testChunk(seq uint64, i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%d/%d ", seq, i), 1+i*i*10)
}

const testChunks = 5

// write makes a snapshot at seq of testChunks chunks.
func write(fs vfs.FS, seq uint64) error {
	w, err := Create(fs, "s", testHeader(seq))
	if err != nil {
		return err
	}
	for i := range testChunks {
		if err := w.Write(testChunk(seq, i)); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Finish()
}

// read returns the seq of the snapshot, 0 if there is none. It checks that the
// contents belong to it.
func read(fs vfs.FS) (uint64, error) {
	r, err := Open(fs, "s", 42)
	if errors.Is(err, ErrNone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()
	seq := r.Position.Seq
	if want := testHeader(seq); !reflect.DeepEqual(r.Header, want) {
		return 0, fmt.Errorf("header is %+v, want %+v", r.Header, want)
	}
	for i := range testChunks {
		chunk, err := r.Next()
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(chunk, testChunk(seq, i)) {
			return 0, fmt.Errorf("chunk %d is %.20q", i, chunk)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		return 0, fmt.Errorf("after the last chunk comes %v", err)
	}
	if r.Chunks != testChunks {
		return 0, fmt.Errorf("%d chunks counted", r.Chunks)
	}
	return seq, nil
}

func wantSeq(t testing.TB, fs vfs.FS, want uint64) {
	t.Helper()
	if seq, err := read(fs); err != nil || seq != want {
		t.Fatalf("the snapshot is at %d, %v; want %d", seq, err, want)
	}
}

func TestSnapshotTakesThePlaceOfTheOneBefore(t *testing.T) {
	mem := vfs.NewMem()
	wantSeq(t, mem, 0)
	for seq := uint64(1); seq < 4; seq++ {
		if err := write(mem, seq); err != nil {
			t.Fatal(err)
		}
		wantSeq(t, mem, seq)
	}
	headers, err := List(mem, "s")
	if err != nil || len(headers) != 1 || !reflect.DeepEqual(headers[0], testHeader(3)) {
		t.Fatalf("listed: %+v, %v", headers, err)
	}
	if err := Remove(mem, "s", 42); err != nil {
		t.Fatal(err)
	}
	if err := Remove(mem, "s", 42); err != nil {
		t.Fatal("second remove:", err)
	}
	wantSeq(t, mem.CrashClone(nil), 0)
}

func TestSnapshotWithoutChunksOrMeta(t *testing.T) {
	mem := vfs.NewMem()
	w, err := Create(mem, "s", Header{DB: 1})
	if err == nil {
		err = w.Write(nil)
	}
	if err == nil {
		err = w.Finish()
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(mem, "s", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err != io.EOF || r.Chunks != 0 {
		t.Fatalf("%d chunks, %v", r.Chunks, err)
	}
}

func TestAbortAndSweepLeaveTheEarlierOne(t *testing.T) {
	mem := vfs.NewMem()
	if err := write(mem, 1); err != nil {
		t.Fatal(err)
	}
	w, err := Create(mem, "s", testHeader(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(mem, "s", testHeader(3)); err != nil { // and is forgotten
		t.Fatal(err)
	}
	if err := Sweep(mem, "s"); err != nil {
		t.Fatal(err)
	}
	names, err := mem.List("s")
	if err != nil || !reflect.DeepEqual(names, []string{"db-42.snap"}) {
		t.Fatalf("files: %v, %v", names, err)
	}
	wantSeq(t, mem, 1)
}

// Whatever a power cut leaves, it is the earlier snapshot or the later one.
func TestCrashBeforeEachCall(t *testing.T) {
	for _, keep := range []string{"nothing unsynced", "everything", "every other"} {
		t.Run(keep, func(t *testing.T) {
			mem := vfs.NewMem()
			finished, calls := uint64(0), 0
			fs := vfs.Hooked(mem, func(vfs.Op, string) error {
				calls++
				flip := calls%2 == 0
				clone := mem.CrashClone(func() bool {
					flip = !flip
					return keep == "everything" || keep == "every other" && flip
				})
				seq, err := read(clone)
				if err != nil || seq != finished && seq != finished+1 {
					t.Fatalf("crash before call %d: snapshot %d, %v; %d is finished", calls, seq, err, finished)
				}
				return nil
			})
			for seq := uint64(1); seq < 4; seq++ {
				if err := write(fs, seq); err != nil {
					t.Fatal(err)
				}
				finished = seq
			}
			wantSeq(t, mem.CrashClone(nil), 3)
		})
	}
}

func TestEachCallFailsOnce(t *testing.T) {
	injected := errors.New("injected")
	for n := int64(1); ; n++ {
		mem := vfs.NewMem()
		if err := write(mem, 1); err != nil {
			t.Fatal(err)
		}
		err := write(vfs.Hooked(mem, vfs.FailNth(n, injected)), 2)
		if err == nil {
			if n < 5 {
				t.Fatalf("no error though call %d failed", n)
			}
			return
		}
		if !errors.Is(err, injected) {
			t.Fatalf("call %d: %v", n, err)
		}
		if seq, err := read(mem); err != nil || seq != 1 && seq != 2 {
			t.Fatalf("call %d failed: snapshot %d, %v", n, seq, err)
		}
		if err := write(mem, 3); err != nil {
			t.Fatalf("after call %d had failed: %v", n, err)
		}
		wantSeq(t, mem, 3)
	}
}

// contents returns a snapshot file as it should be.
func contents(t testing.TB) []byte {
	mem := vfs.NewMem()
	if err := write(mem, 1); err != nil {
		t.Fatal(err)
	}
	f, err := mem.Open("s/db-42.snap")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put returns a file system with b as the snapshot.
func put(t testing.TB, b []byte) vfs.FS {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("s"); err != nil {
		t.Fatal(err)
	}
	f, err := mem.Create("s/db-42.snap")
	if err == nil {
		_, err = f.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

func TestFlippedBitAnywhereIsFound(t *testing.T) {
	good := contents(t)
	wantSeq(t, put(t, good), 1)
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		_, err := read(put(t, bad))
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Fatalf("bit %d of byte %d flipped: %v", bit%8, bit/8, err)
		}
	}
}

func TestTruncatedAnywhereIsFound(t *testing.T) {
	good := contents(t)
	for n := range good {
		if _, err := read(put(t, good[:n])); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := read(put(t, append(good, 0))); !errors.Is(err, ErrDamaged) {
		t.Fatalf("one byte too many: %v", err)
	}
}

func TestListReportsTheBadBesideTheGood(t *testing.T) {
	fs := put(t, contents(t)[:30])
	w, err := Create(fs, "s", Header{DB: 1})
	if err == nil {
		err = w.Finish()
	}
	if err != nil {
		t.Fatal(err)
	}
	headers, err := List(fs, "s")
	if len(headers) != 1 || headers[0].DB != 1 || !errors.Is(err, ErrDamaged) {
		t.Fatalf("%+v, %v", headers, err)
	}
}

func TestFileOfAnotherDatabaseIsRefused(t *testing.T) {
	fs := put(t, contents(t))
	if err := fs.Rename("s/db-42.snap", "s/db-43.snap"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(fs, "s", 43); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

func FuzzOpen(f *testing.F) {
	good := contents(f)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:40])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Open(put(t, b), "s", 42)
		if err != nil {
			return
		}
		defer r.Close()
		total := uint64(0)
		for {
			chunk, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("a snapshot that Open accepted: %v", err)
			}
			total += uint64(len(chunk))
		}
		if total != r.Bytes {
			t.Fatalf("%d bytes, %d announced", total, r.Bytes)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	b.Chdir(b.TempDir())
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	w, err := Create(vfs.OS, "s", testHeader(1))
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		if err := w.Write(chunk); err != nil {
			b.Fatal(err)
		}
		if n++; n == 4096 { // a bounded file
			b.StopTimer()
			if err := w.Finish(); err != nil {
				b.Fatal(err)
			}
			if w, err = Create(vfs.OS, "s", testHeader(1)); err != nil {
				b.Fatal(err)
			}
			n = 0
			b.StartTimer()
		}
	}
	if err := w.Finish(); err != nil {
		b.Fatal(err)
	}
}

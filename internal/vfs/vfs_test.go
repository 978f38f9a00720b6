package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"reflect"
	"testing"
)

// put creates a file and writes to it, without a sync.
func put(t *testing.T, fsys FS, name, text string) File {
	t.Helper()
	f, err := fsys.Create(name)
	if err == nil {
		_, err = f.Write([]byte(text))
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func get(t *testing.T, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Both file systems do the same, as far as programs see.
func TestFilesAndDirectories(t *testing.T) {
	for name, fsys := range map[string]FS{"os": OS, "mem": NewMem(), "hooked": Hooked(OS, func(Op, string) error { return nil })} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			_, err := fsys.List(dir)
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatal("list of no directory:", err)
			}
			ok(t, fsys.MkdirAll(dir))
			ok(t, fsys.MkdirAll(dir))
			one, two, three := filepath.Join(dir, "1"), filepath.Join(dir, "2"), filepath.Join(dir, "3")

			f := put(t, fsys, one, "hello")
			_, err = f.WriteAt([]byte("W"), 7)
			ok(t, err)
			ok(t, f.Sync())
			if got := get(t, fsys, one); got != "hello\x00\x00W" {
				t.Fatalf("%q", got)
			}
			buf := make([]byte, 4)
			if n, err := f.ReadAt(buf, 6); n != 2 || err != io.EOF {
				t.Fatalf("read over the end: %d, %v", n, err)
			}
			ok(t, f.Truncate(2))
			ok(t, f.Preallocate(4))
			ok(t, f.Preallocate(3))
			if size, err := f.Size(); size != 4 || err != nil {
				t.Fatalf("size %d, %v", size, err)
			}
			ok(t, f.Close())
			if got := get(t, fsys, one); got != "he\x00\x00" {
				t.Fatalf("cut bytes came back: %q", got)
			}

			ok(t, put(t, fsys, two, "two").Close())
			ok(t, put(t, fsys, three, "three").Close())
			ok(t, fsys.Rename(two, one))
			ok(t, fsys.SyncDir(dir))
			names, err := fsys.List(dir)
			if err != nil || !reflect.DeepEqual(names, []string{"1", "3"}) || get(t, fsys, one) != "two" {
				t.Fatal(names, err)
			}
			open, err := fsys.OpenRW(three)
			ok(t, err)
			ok(t, fsys.Remove(three))
			if n, err := open.ReadAt(buf, 0); n != 4 || string(buf) != "thre" {
				t.Fatal("an open file is gone with its name:", err)
			}
			ok(t, open.Close())
			for what, err := range map[string]error{
				"open": second(fsys.Open(three)), "open rw": second(fsys.OpenRW(three)),
				"remove": fsys.Remove(three), "rename": fsys.Rename(three, one),
			} {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s of no file: %v", what, err)
				}
			}
			ro, err := fsys.Open(one)
			ok(t, err)
			if _, err := ro.WriteAt([]byte("x"), 0); err == nil {
				t.Error("a file opened for reading takes a write")
			}
			ok(t, ro.Close())
			if err := ro.Close(); err == nil {
				t.Error("a file closes twice")
			}
		})
	}
}

func second(_ File, err error) error { return err }

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	m := NewMem()
	ok(t, m.MkdirAll("d"))
	f := put(t, m, "d/f", "synced")
	ok(t, f.Sync())
	if names, _ := m.CrashClone(nil).List("d"); len(names) != 0 {
		t.Fatal("a name is on disk without a sync of its directory:", names)
	}
	ok(t, m.SyncDir("d"))
	_, err := f.WriteAt([]byte("LATER, LONGER"), 0)
	ok(t, err)
	if got := get(t, m.CrashClone(nil), "d/f"); got != "synced" {
		t.Fatalf("%q", got)
	}
	if got := get(t, m.CrashClone(func() bool { return true }), "d/f"); got != "LATER, LONGER" {
		t.Fatalf("%q", got)
	}
	ok(t, m.Rename("d/f", "d/g"))
	ok(t, f.Sync())
	clone := m.CrashClone(nil)
	if got := get(t, clone, "d/f"); got != "LATER, LONGER" {
		t.Fatalf("%q", got)
	}
	ok(t, m.SyncDir("d"))
	ok(t, m.Remove("d/g"))
	if got := get(t, m.CrashClone(nil), "d/g"); got != "LATER, LONGER" {
		t.Fatalf("%q", got)
	}
	ok(t, m.SyncDir("d"))
	if names, _ := m.CrashClone(nil).List("d"); len(names) != 0 {
		t.Fatal("removed, but there:", names)
	}
	ok(t, put(t, clone, "d/f", "clone").Close()) // and it is a file system of its own
}

func TestCrashMayKeepSectorsInAnyOrder(t *testing.T) {
	m := NewMem()
	ok(t, m.MkdirAll("d"))
	f := put(t, m, "d/f", string(make([]byte, 3*sectorBytes)))
	ok(t, f.Sync())
	ok(t, m.SyncDir("d"))
	for i := range 3 {
		_, err := f.WriteAt([]byte{byte('a' + i)}, int64(i*sectorBytes))
		ok(t, err)
	}
	asked := 0
	got := get(t, m.CrashClone(func() bool { asked++; return asked == 2 }), "d/f")
	if asked != 3 || got[0] != 0 || got[sectorBytes] != 'b' || got[2*sectorBytes] != 0 {
		t.Fatalf("asked %d times, kept %q %q %q", asked, got[0], got[sectorBytes], got[2*sectorBytes])
	}
}

func TestHookFailsTheNthCallAndTearsWrites(t *testing.T) {
	full := errors.New("disk full")
	m := NewMem()
	h := Hooked(m, FailNth(3, full))
	ok(t, h.MkdirAll("d"))
	f, err := h.Create("d/f")
	ok(t, err)
	n, err := f.Write([]byte("12345678"))
	if n != 4 || err != full {
		t.Fatal(n, err)
	}
	if got := get(t, m, "d/f"); got != "1234" {
		t.Fatalf("%q", got)
	}
	_, err = f.Write([]byte("5678"))
	ok(t, err)
	if got := get(t, m, "d/f"); got != "12345678" {
		t.Fatalf("%q", got)
	}
}

// Package snapshot reads the checkpoints that a node made of its databases
// before there was a tier: files that replace the journal's entries up to a
// position. A node reads them once, at its first start since, and removes them
// when the tier has what is in them. Writing them is for tests.
//
// They are chunks of bytes that are the writer's affair. A snapshot is there whole or not at all: it is written beside the one
// before and takes its place, durably, in Finish; one that is unfinished or
// damaged is never read.
//
// # On disk
//
// A database has at most one file, db-<id>.snap, and while one is being written
// db-<id>.tmp beside it. All integers are little-endian.
//
//	magic "VECINOS\n"
//	format version, 4 bytes (see Version)
//	length of the header's body, 4 bytes
//	  database 8, epoch 4, seq 8, journal offset 8, time in Unix ms 8, meta
//	CRC32C of all the above
//
//	then chunks:
//	  length, 4 bytes, 1 or more
//	  CRC32C of the chunk and its number, seeded with the header's
//	  chunk
//
//	and the footer:
//	  0, 4 bytes
//	  CRC32C of what follows, seeded with the header's
//	  number of chunks, 8 bytes
//	  bytes in all chunks, 8 bytes
//	end of file
//
// The seeds tie a chunk to its file and place, so that blocks of an older file,
// or in the wrong order, are noticed too.
//
// # History of the format
//
//	1  as above
package snapshot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"vecino/catalog"
	"vecino/internal/vfs"
	"vecino/journal"
)

// Version is the version of the format that this package writes. It reads this
// one and no other.
const Version = 1

const (
	magic      = "VECINOS\n"
	headBytes  = 16
	fixedBytes = 36 // of the header's body, before meta
	suffix     = ".snap"
	tempSuffix = ".tmp"
	prefix     = "db-"

	// MaxMetaBytes and MaxChunkBytes bound what a reader allocates for a file
	// that it can't trust yet.
	MaxMetaBytes  = 1 << 20
	MaxChunkBytes = 2 << 30

	bufferBytes = 256 << 10
	// So much is written between syncs, so that the one at the end is short and
	// the journal's syncs don't queue behind it.
	syncBytes = 32 << 20
)

var (
	// ErrNone is returned by Open if the database has no snapshot.
	ErrNone = errors.New("database has no snapshot")
	// ErrDamaged is returned for a snapshot that is not as it was written.
	ErrDamaged = errors.New("snapshot is damaged")
	// ErrVersion is returned for one that this version of Vecino doesn't know.
	ErrVersion = errors.New("unknown snapshot format version")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says what a snapshot is of.
type Header struct {
	DB       catalog.ID
	Position catalog.Position // all up to here is in the snapshot, nothing later
	// JournalOffset is where in the journal, at the earliest, the entries after
	// Position begin.
	JournalOffset journal.Offset
	TimeMS        int64  // when it was taken, Unix milliseconds
	Meta          []byte // whatever else is needed before the chunks are read
}

func fileName(dir string, db catalog.ID) string {
	return filepath.Join(dir, prefix+strconv.FormatUint(uint64(db), 10)+suffix)
}

// parseName is the inverse of fileName.
func parseName(name string) (catalog.ID, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if ok {
		digits, ok = strings.CutPrefix(digits, prefix)
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	return catalog.ID(id), ok && err == nil && prefix+strconv.FormatUint(id, 10)+suffix == name
}

// Writer writes one snapshot. One goroutine uses it. It ends with Finish or
// Abort.
type Writer struct {
	fs     vfs.FS
	dir    string
	temp   string
	db     catalog.ID
	f      vfs.File
	w      *bufio.Writer
	seed   uint32
	chunks uint64
	bytes  uint64
	dirty  int   // bytes written since the last sync
	err    error // the first
}

// Create begins a snapshot of h.DB in dir, which is made if it doesn't exist.
// Only one may be in the making for a database at a time.
func Create(fs vfs.FS, dir string, h Header) (*Writer, error) {
	if len(h.Meta) > MaxMetaBytes {
		return nil, fmt.Errorf("create snapshot: meta of %d bytes, at most %d may be", len(h.Meta), MaxMetaBytes)
	}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	temp := strings.TrimSuffix(fileName(dir, h.DB), suffix) + tempSuffix
	f, err := fs.Create(temp)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	w := &Writer{fs: fs, dir: dir, temp: temp, db: h.DB, f: f, w: bufio.NewWriterSize(f, bufferBytes)}

	b := append(make([]byte, 0, headBytes+fixedBytes+len(h.Meta)+4), magic...)
	b = binary.LittleEndian.AppendUint32(b, Version)
	b = binary.LittleEndian.AppendUint32(b, uint32(fixedBytes+len(h.Meta)))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.DB))
	b = binary.LittleEndian.AppendUint32(b, h.Position.Epoch)
	b = binary.LittleEndian.AppendUint64(b, h.Position.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.JournalOffset))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.TimeMS))
	b = append(b, h.Meta...)
	w.seed = crc32.Checksum(b, castagnoli)
	w.write(binary.LittleEndian.AppendUint32(b, w.seed))
	return w, nil
}

// Write adds a chunk; an empty one is left out. The first error stays: later
// calls and Finish return it too.
func (w *Writer) Write(chunk []byte) error {
	if len(chunk) == 0 || w.err != nil {
		return w.err
	}
	if len(chunk) > MaxChunkBytes {
		w.err = fmt.Errorf("write snapshot: chunk of %d bytes, at most %d may be", len(chunk), MaxChunkBytes)
		return w.err
	}
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(chunk)))
	binary.LittleEndian.PutUint32(head[4:], chunkSum(w.seed, w.chunks, chunk))
	w.write(head[:])
	w.write(chunk)
	w.chunks++
	w.bytes += uint64(len(chunk))
	if w.dirty += len(chunk); w.dirty >= syncBytes {
		w.sync()
	}
	return w.err
}

func chunkSum(seed uint32, number uint64, chunk []byte) uint32 {
	return crc32.Update(seed+uint32(number)*0x9e3779b1, castagnoli, chunk)
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("write snapshot: %w", err)
	}
}

func (w *Writer) sync() {
	if w.err != nil {
		return
	}
	err := w.w.Flush()
	if err == nil {
		err = w.f.Sync()
	}
	if err != nil {
		w.err = fmt.Errorf("write snapshot: %w", err)
	}
	w.dirty = 0
}

// Finish makes the snapshot durable, in place of the database's earlier one. If
// it fails, the earlier one or this one is there, whole.
func (w *Writer) Finish() error {
	foot := make([]byte, 8, 24)
	foot = binary.LittleEndian.AppendUint64(foot, w.chunks)
	foot = binary.LittleEndian.AppendUint64(foot, w.bytes)
	binary.LittleEndian.PutUint32(foot[4:], crc32.Update(w.seed, castagnoli, foot[8:]))
	w.write(foot)
	w.sync()
	if w.err != nil {
		return errors.Join(w.err, w.Abort())
	}
	err := w.f.Close()
	if err == nil {
		err = w.fs.Rename(w.temp, fileName(w.dir, w.db))
	}
	if err == nil {
		err = w.fs.SyncDir(w.dir)
	}
	if err != nil {
		return fmt.Errorf("finish snapshot: %w", err)
	}
	return nil
}

// Abort gives the snapshot up. The earlier one stays.
func (w *Writer) Abort() error {
	err := w.f.Close()
	if rmErr := w.fs.Remove(w.temp); err == nil {
		err = rmErr
	}
	if err != nil {
		return fmt.Errorf("abort snapshot: %w", err)
	}
	return nil
}

// Reader reads a snapshot that Open has found whole.
type Reader struct {
	Header
	Chunks uint64
	Bytes  uint64 // in all chunks

	f    vfs.File
	name string
	r    *bufio.Reader
	left int64 // bytes of the file not yet read
	seed uint32
	next uint64 // number of the next chunk
	got  uint64 // bytes in the chunks before it
	buf  []byte
	done bool
}

// Open opens the snapshot of a database. It reads all of it once, so that
// nothing of a damaged one is ever handed out. Close it in the end.
func Open(fsys vfs.FS, dir string, db catalog.ID) (*Reader, error) {
	name := fileName(dir, db)
	r, err := open(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open snapshot %s: %w", name, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	if r.DB != db {
		return nil, errors.Join(r.damaged(fmt.Sprintf("it is of database %d", r.DB)), r.Close())
	}
	for err == nil {
		_, err = r.Next()
	}
	if err != io.EOF {
		return nil, errors.Join(err, r.Close())
	}
	chunks, bytes := r.Chunks, r.Bytes
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", name, err)
	}
	if r, err = open(fsys, name); err != nil {
		return nil, err
	}
	r.Chunks, r.Bytes = chunks, bytes
	return r, nil
}

// open opens a file and reads its header.
func open(fs vfs.FS, name string) (*Reader, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	r := &Reader{f: f, name: name, r: bufio.NewReaderSize(f, bufferBytes)}
	if r.left, err = f.Size(); err == nil {
		err = r.readHeader()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) damaged(why string) error {
	return fmt.Errorf("read %s: %w: %s", r.name, ErrDamaged, why)
}

// read returns the next n bytes; they are valid until the next call. The file's
// size is asked before memory is.
func (r *Reader) read(n int) ([]byte, error) {
	if int64(n) > r.left {
		return nil, r.damaged("it ends too early")
	}
	r.left -= int64(n)
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, fmt.Errorf("read %s: %w", r.name, err)
	}
	return r.buf, nil
}

func (r *Reader) readHeader() error {
	b, err := r.read(headBytes)
	if err != nil {
		return err
	}
	if string(b[:8]) != magic {
		return r.damaged("it has no magic")
	}
	version, n := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if version != Version {
		return fmt.Errorf("read %s: %w: %d, this program knows %d", r.name, ErrVersion, version, Version)
	}
	if n < fixedBytes || n > fixedBytes+MaxMetaBytes {
		return r.damaged("its header has an impossible length")
	}
	r.seed = crc32.Checksum(b, castagnoli)
	if b, err = r.read(int(n) + 4); err != nil {
		return err
	}
	r.seed = crc32.Update(r.seed, castagnoli, b[:n])
	if r.seed != binary.LittleEndian.Uint32(b[n:]) {
		return r.damaged("its header has a wrong check sum")
	}
	r.Header = Header{
		DB:            catalog.ID(binary.LittleEndian.Uint64(b)),
		Position:      catalog.Position{Epoch: binary.LittleEndian.Uint32(b[8:]), Seq: binary.LittleEndian.Uint64(b[12:])},
		JournalOffset: journal.Offset(binary.LittleEndian.Uint64(b[20:])),
		TimeMS:        int64(binary.LittleEndian.Uint64(b[28:])),
		Meta:          append([]byte(nil), b[fixedBytes:n]...),
	}
	return nil
}

// Next returns the next chunk, valid until the call after, and io.EOF behind the
// last.
func (r *Reader) Next() ([]byte, error) {
	if r.done {
		return nil, io.EOF
	}
	head, err := r.read(8)
	if err != nil {
		return nil, err
	}
	n, sum := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:])
	if n == 0 {
		return nil, r.readFooter(sum)
	}
	if n > MaxChunkBytes {
		return nil, r.damaged("a chunk has an impossible length")
	}
	chunk, err := r.read(int(n))
	if err != nil {
		return nil, err
	}
	if chunkSum(r.seed, r.next, chunk) != sum {
		return nil, r.damaged(fmt.Sprintf("chunk %d has a wrong check sum", r.next))
	}
	r.next++
	r.got += uint64(n)
	return chunk, nil
}

// readFooter returns io.EOF if all is well.
func (r *Reader) readFooter(sum uint32) error {
	foot, err := r.read(16)
	if err != nil {
		return err
	}
	if crc32.Update(r.seed, castagnoli, foot) != sum {
		return r.damaged("its footer has a wrong check sum")
	}
	if chunks := binary.LittleEndian.Uint64(foot); chunks != r.next {
		return r.damaged(fmt.Sprintf("it has %d chunks of %d", r.next, chunks))
	}
	if bytes := binary.LittleEndian.Uint64(foot[8:]); bytes != r.got {
		return r.damaged(fmt.Sprintf("its chunks have %d bytes of %d", r.got, bytes))
	}
	if r.left != 0 {
		return r.damaged("something follows its end")
	}
	r.Chunks, r.Bytes, r.done = r.next, r.got, true
	return io.EOF
}

// Close lets go of the file.
func (r *Reader) Close() error { return r.f.Close() }

// List returns the headers of the snapshots in dir, in no particular order, and
// joined in one error what is wrong with others; both may be set. Only headers
// are looked at. Without dir there are none.
func List(fsys vfs.FS, dir string) ([]Header, error) {
	names, err := fsys.List(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	var headers []Header
	var errs []error
	for _, name := range names {
		db, ok := parseName(name)
		if !ok {
			continue
		}
		r, err := open(fsys, filepath.Join(dir, name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := r.Close(); err != nil {
			errs = append(errs, err)
		}
		if r.DB != db {
			errs = append(errs, r.damaged(fmt.Sprintf("it is of database %d", r.DB)))
			continue
		}
		headers = append(headers, r.Header)
	}
	return headers, errors.Join(errs...)
}

// Remove deletes the snapshot of a database, durably. Without one it does
// nothing.
func Remove(fsys vfs.FS, dir string, db catalog.ID) error {
	err := fsys.Remove(fileName(dir, db))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	return nil
}

// Sweep removes what snapshots that were not finished have left behind. A node
// calls it at its start, before it creates any.
func Sweep(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep snapshots: %w", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, tempSuffix) {
			if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("sweep snapshots: %w", err)
			}
		}
	}
	return nil
}

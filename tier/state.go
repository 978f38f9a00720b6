package tier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The file TIER, integers little-endian:
//
//	   0  magic "VECINOT\n"
//	   8  format version, 4 bytes
//	  12  CRC32C of bytes 0..11
//	4096  a claim
//	8192  another; the one with the higher serial counts
//
// and a claim
//
//	 0  serial, 8 bytes
//	 8  number of the MANIFEST that was last synced, and how long it was then, 8 bytes each
//	24  the same of the log
//	40  number of the last session that was synced
//	48  number of the first log of the process that wrote this: those before it are void
//	56  CRC32C of bytes 0..55
//
// Why it is there: where Pebble's log or MANIFEST stops being readable, Pebble
// goes on as if a crash had cut them there. If a bit was flipped instead, what
// lies behind is lost without a word, and tables that the MANIFEST doesn't name
// any more are even deleted. A claim says how much was on disk once. It is
// written after each sync, which costs about a microsecond, and synced itself
// within a second. After the death of the process it is exact; after a power cut
// it may be an older one, which claims less, never too much.
const (
	stateMagic  = "VECINOT\n"
	stateHead   = 16
	claimBytes  = 60
	firstClaim  = 4096
	secondClaim = 8192
	stateBytes  = secondClaim + 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// upgrades bring a tier of an older version to the one after it. The head is
// written anew when all is done.
var upgrades = map[uint32]func(fs vfs.FS, dir string) error{
	1: func(vfs.FS, string) error { return nil }, // it has no parts yet
}

type claim struct {
	serial      uint64
	manifest    uint64
	manifestLen uint64
	log         uint64
	logLen      uint64
	session     uint64
	firstLog    uint64
}

func (c claim) encode() []byte {
	b := make([]byte, 0, claimBytes)
	for _, v := range []uint64{c.serial, c.manifest, c.manifestLen, c.log, c.logLen, c.session, c.firstLog} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

func parseClaim(b []byte) (c claim, ok bool) {
	if len(b) < claimBytes || checksum(b[:claimBytes-4]) != binary.LittleEndian.Uint32(b[claimBytes-4:]) {
		return c, false
	}
	for i, v := range []*uint64{&c.serial, &c.manifest, &c.manifestLen, &c.log, &c.logLen, &c.session, &c.firstLog} {
		*v = binary.LittleEndian.Uint64(b[8*i:])
	}
	return c, true
}

// stateFile is the open file TIER.
type stateFile struct {
	log *slog.Logger
	mu  struct {
		sync.Mutex
		file   vfs.File
		claim  claim
		synced uint64 // serial of the last claim that is on disk
		failed bool
	}
}

func (s *stateFile) manifestSynced(number uint64, length int64) {
	s.update(func(c *claim) { c.manifest, c.manifestLen = number, uint64(length) })
}

func (s *stateFile) logSynced(number uint64, length int64) {
	s.update(func(c *claim) {
		if number >= c.log {
			c.log, c.logLen = number, uint64(length)
		}
	})
}

// logOpened is called before the first log of a process is made. Pebble does
// that when all older ones are in tables.
func (s *stateFile) logOpened(number uint64) {
	s.update(func(c *claim) { c.firstLog = number })
}

func (s *stateFile) sessionSynced(session uint64) {
	s.update(func(c *claim) { c.session = max(c.session, session) })
}

// update writes a new claim over the older of the two. A claim that can't be
// written leaves one that claims less.
func (s *stateFile) update(change func(*claim)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.mu.claim)
	if s.mu.file == nil {
		return
	}
	s.mu.claim.serial++
	at := int64(firstClaim)
	if s.mu.claim.serial%2 == 1 {
		at = secondClaim
	}
	_, err := s.mu.file.WriteAt(s.mu.claim.encode(), at)
	if err != nil && !s.mu.failed {
		s.log.Warn("can't write the tier's claims", "err", err.Error())
	}
	s.mu.failed = err != nil
}

// sync makes the last claim durable.
func (s *stateFile) sync() {
	s.mu.Lock()
	file, serial := s.mu.file, s.mu.claim.serial
	if file == nil || serial == s.mu.synced {
		s.mu.Unlock()
		return
	}
	s.mu.synced = serial
	s.mu.Unlock()
	// Not under the lock, for which Pebble's log would wait. Only close closes the
	// file, after this has ended.
	if err := file.SyncData(); err != nil {
		s.log.Warn("can't sync the tier's claims", "err", err.Error())
	}
}

func (s *stateFile) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.file == nil {
		return nil
	}
	err := s.mu.file.Sync()
	if e := s.mu.file.Close(); err == nil {
		err = e
	}
	s.mu.file = nil
	return err
}

// A DamageError says that a file isn't what was written.
type DamageError struct {
	File string
	Why  string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("the tier's file %s is damaged: %s; keep a copy of the directory, then put back a sound one, or remove the directory and let replicas or the journal give what they have", e.File, e.Why)
}

// openState opens TIER, or makes it where there is no tier yet. The last claim
// is returned.
func openState(fs vfs.FS, dir string, log *slog.Logger) (s *stateFile, last claim, err error) {
	name := fs.PathJoin(dir, stateName)
	s = &stateFile{log: log}
	_, data, err := manifest(fs, dir)
	if err != nil {
		return nil, last, err
	}
	b, err := readFile(fs, name)
	switch {
	case isNotExist(err) || err == nil && !data && !stateIsGood(b):
		// A fresh one, or a crash cut the making of it short.
		if data {
			return nil, last, &DamageError{name, "it is missing, though there are data"}
		}
		if err := makeState(fs, dir); err != nil {
			return nil, last, err
		}
		last.serial = 1
	case err != nil:
		return nil, last, err
	default:
		if !stateIsGood(b) {
			return nil, last, &DamageError{name, "its head has a wrong checksum"}
		}
		if version := binary.LittleEndian.Uint32(b[8:]); version != Version {
			if err := upgrade(fs, dir, version); err != nil {
				return nil, last, err
			}
		}
		first, ok1 := parseClaim(b[firstClaim:])
		second, ok2 := parseClaim(b[secondClaim:])
		switch {
		case !ok1 && !ok2:
			return nil, last, &DamageError{name, "both claims have wrong checksums"}
		case ok1 && (!ok2 || first.serial > second.serial):
			last = first
		default:
			last = second
		}
		// Of two claims one may be torn by a crash; but the process writes them
		// in turn, so the one that is left is at most one older.
	}
	s.mu.claim = last
	s.mu.file, err = fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	return s, last, err
}

func stateIsGood(b []byte) bool {
	return len(b) >= stateBytes && string(b[:8]) == stateMagic &&
		checksum(b[:12]) == binary.LittleEndian.Uint32(b[12:])
}

func upgrade(fs vfs.FS, dir string, version uint32) error {
	for v := version; v != Version; v++ {
		up := upgrades[v]
		if up == nil || v > Version {
			return fmt.Errorf("the tier in %s has format version %d, this program reads %d: run the version of vecino that wrote it, or remove the directory to begin anew from the journal and the replicas", dir, version, Version)
		}
		if err := up(fs, dir); err != nil {
			return fmt.Errorf("upgrade the tier in %s from version %d: %w", dir, v, err)
		}
	}
	f, err := fs.OpenReadWrite(fs.PathJoin(dir, stateName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(encodeHead(), 0)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// encodeHead is the head of TIER.
func encodeHead() []byte {
	b := append(make([]byte, 0, stateHead), stateMagic...)
	b = binary.LittleEndian.AppendUint32(b, Version)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

// makeState writes a fresh TIER and makes it durable.
func makeState(fs vfs.FS, dir string) error {
	name := fs.PathJoin(dir, stateName)
	b := make([]byte, stateBytes)
	copy(b, encodeHead())
	copy(b[secondClaim:], claim{serial: 1}.encode())
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// makeDir makes a directory and those above it, and makes them durable.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil || !isNotExist(err) {
		return err
	}
	above := fs.PathDir(dir)
	if above != dir {
		if err := makeDir(fs, above); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDir(fs, above)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// verifyClaims checks that Pebble's log and MANIFEST are readable as far as they
// were synced.
func verifyClaims(fs vfs.FS, dir string, c claim) error {
	name, exists, err := manifest(fs, dir)
	dir = fs.PathJoin(dir, pebbleDir)
	switch {
	case err != nil:
		return err
	case !exists:
		if c.log != 0 {
			return &DamageError{dir, "it names no MANIFEST, though there was one"}
		}
		return nil // it was never opened to the end
	}
	if number(strings.TrimPrefix(name, "MANIFEST-")) == c.manifest {
		if err := verifyChunks(fs, fs.PathJoin(dir, name), 0, c.manifestLen); err != nil {
			return err
		}
	}
	if err := verifyChunks(fs, fs.PathJoin(dir, logName(c.log)), c.log, c.logLen); err != nil && !isNotExist(err) {
		return err // one that is missing is in tables; or it isn't, which the session's number tells
	}
	return verifyClosed(fs, dir, c.firstLog)
}

func logName(number uint64) string { return fmt.Sprintf("%06d.log", number) }

// verifyClosed checks the logs of the last process but for the newest. They were
// closed, with an end that is on disk, before the next was begun.
func verifyClosed(fs vfs.FS, dir string, first uint64) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	var logs []uint64
	for _, name := range names {
		if digits, ok := strings.CutSuffix(name, ".log"); ok && first > 0 && number(digits) >= first {
			logs = append(logs, number(digits))
		}
	}
	slices.Sort(logs)
	for i, n := range logs {
		if i == len(logs)-1 {
			break
		}
		if err := verifyChunks(fs, fs.PathJoin(dir, logName(n)), n, toTheEnd); err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}

// toTheEnd is the length of a log that must have been closed.
const toTheEnd = ^uint64(0)

// manifest is the name of the MANIFEST that counts.
func manifest(fs vfs.FS, dir string) (name string, exists bool, err error) {
	desc, err := pebble.Peek(fs.PathJoin(dir, pebbleDir), fs)
	if isNotExist(err) {
		return "", false, nil
	}
	if err != nil || !desc.Exists {
		return "", false, err
	}
	return fs.PathBase(desc.ManifestFilename), true, nil
}

// Pebble's logs and MANIFESTs are made of chunks that don't cross a block's
// border: CRC of what follows, 4 bytes; length, 2; type, 1; in a log, also the
// log's number, 4, and in newer ones what was synced, 8; then the data.
const (
	chunkBlock   = 32 << 10
	plainChunk   = 7  // types 1 to 4
	numberChunk  = 11 // types 5 to 8
	syncingChunk = 19 // types 9 to 12
)

// verifyChunks reads the chunks of a file that lie before a length. Pebble's own
// reader can't be asked: it doesn't say where exactly it stopped, and takes a log's
// number that has become one more for the log's end.
func verifyChunks(fs vfs.FS, name string, logNumber, length uint64) error {
	b, err := readFile(fs, name)
	if err != nil {
		return err
	}
	closed := length == toTheEnd
	if closed {
		length = uint64(len(b))
	}
	bad := func(at uint64, why string) error {
		return &DamageError{name, fmt.Sprintf("%s at byte %d of %d that were on disk", why, at, length)}
	}
	if uint64(len(b)) < length {
		return bad(uint64(len(b)), "it ends")
	}
	b = b[:length]
	for at := uint64(0); at < length; {
		blockEnd := (at/chunkBlock + 1) * chunkBlock
		block := b[at:min(blockEnd, length)]
		if len(block) < plainChunk {
			at = blockEnd
			continue
		}
		sum, size, kind := binary.LittleEndian.Uint32(block), uint64(binary.LittleEndian.Uint16(block[4:])), block[6]
		head := uint64(plainChunk)
		switch {
		case kind == 0 && sum == 0 && size == 0 && len(block) < syncingChunk && blockEnd <= length:
			at = blockEnd
			continue
		case kind == 0 || kind > 12:
			return bad(at, "there is no chunk")
		case kind > 8:
			head = syncingChunk
		case kind > 4:
			head = numberChunk
		}
		if uint64(len(block)) < head+size {
			return bad(at, "a chunk is too long")
		}
		if head > plainChunk {
			switch n := uint64(binary.LittleEndian.Uint32(block[7:])); {
			case n == uint64(uint32(logNumber+1)) && size == 0 && sum == 0 && (closed || uint64(len(block)) == head):
				return nil // the end of a log that was closed
			case n != uint64(uint32(logNumber)):
				return bad(at, "a chunk is another log's")
			}
		}
		if chunkSum(block[6:head+size]) != sum {
			return bad(at, "a chunk has a wrong checksum")
		}
		at += head + size
	}
	if closed {
		return bad(length, "there is no end")
	}
	return nil
}

// chunkSum is a CRC32C, masked so that it can be stored in what is checksummed.
func chunkSum(b []byte) uint32 {
	c := checksum(b)
	return (c>>15 | c<<17) + 0xa282ead8
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

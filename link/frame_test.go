package link

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"vecino/catalog"
)

// wholeFrame is a frame whose payload is a copy.
type wholeFrame struct {
	what    event
	kind    uint8
	db      catalog.ID
	payload string
}

// parse feeds b to an assembler in pieces, as a reader would.
func parse(b []byte, piece func() int) (all []wholeFrame, err error) {
	var a assembler
	for have, used := 0, 0; ; {
		f, what, n, err := a.next(b[used:have])
		switch {
		case err != nil:
			return all, err
		case what == whole || what == control:
			all = append(all, wholeFrame{what, f.Kind, f.DB, string(f.Payload)})
		case n == 0 && have == len(b):
			return all, nil
		case n == 0:
			have = min(len(b), have+max(1, piece()))
		}
		used += n
	}
}

func everything() int { return 1 << 30 }

func FuzzAssembler(f *testing.F) {
	var q fairQueue
	q.push(Frame{Kind: 1, DB: 1, Payload: []byte("hello")})
	q.splice(2, chop(Frame{Kind: 2, DB: 2, Payload: make([]byte, 40_000)}))
	var b []byte
	for _, s := range q.take(nil) {
		b = append(b, s.buf...)
	}
	f.Add(b, uint64(1))
	f.Add(appendControl(nil, ping, 12345), uint64(2))
	f.Add(appendHeader(nil, 1, flagZstd, 0, 1), uint64(3))
	f.Add(append(appendHeader(nil, 1, flagMore, 4, 1), 255, 255, 255, 255), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0))
		atOnce, err1 := parse(b, everything)
		inPieces, err2 := parse(b, func() int { return rng.IntN(100) })
		if (err1 == nil) != (err2 == nil) || len(atOnce) != len(inPieces) {
			t.Fatalf("at once %d frames, %v; in pieces %d, %v", len(atOnce), err1, len(inPieces), err2)
		}
		for i := range atOnce {
			if atOnce[i] != inPieces[i] {
				t.Errorf("frame %d differs", i)
			}
		}
		if err1 != nil && !errors.Is(err1, errWire) {
			t.Errorf("the error is %v", err1)
		}
	})
}

func TestMalformedFramesAreErrors(t *testing.T) {
	first := func(total uint32, b ...byte) []byte {
		p := []byte{byte(total), byte(total >> 8), byte(total >> 16), byte(total >> 24)}
		p = append(p, b...)
		return append(appendHeader(nil, 1, flagMore, len(p), 1), p...)
	}
	next := func(kind, flags uint8, b ...byte) []byte {
		return append(appendHeader(nil, kind, flags, len(b), 1), b...)
	}
	for name, b := range map[string][]byte{
		"a chunk longer than any":           appendHeader(nil, 1, 0, maxWire-headerSize+1, 1),
		"a flag of a later version":         next(1, flagZstd),
		"a control frame with no time":      next(ping, flagControl),
		"a control frame of no kind":        next(99, flagControl, 0, 0, 0, 0, 0, 0, 0, 0),
		"a first chunk without its length":  next(1, flagMore, 1),
		"a whole that is too long":          first(MaxFrame + 1),
		"a chunk that continues nothing":    next(1, flagContinues, 1),
		"a chunk of another kind":           append(first(2, 'x'), next(2, flagContinues, 'y')...),
		"a frame that ends too early":       append(first(3, 'x'), next(1, flagContinues, 'y')...),
		"a frame that ends too late":        append(first(1, 'x'), next(1, flagContinues, 'y')...),
		"a frame between another's chunks":  append(first(2, 'x'), next(1, 0, 'y')...),
		"two frames that begin, none ended": append(first(2, 'x'), first(2, 'x')...),
	} {
		if all, err := parse(b, everything); !errors.Is(err, errWire) || len(all) > 0 {
			t.Errorf("%s: got %v, %v", name, all, err)
		}
	}
	if all, err := parse(append(first(2, 'x'), next(1, flagContinues, 'y')...), everything); err != nil || len(all) != 1 || all[0].payload != "xy" {
		t.Errorf("a frame in two chunks: got %v, %v", all, err)
	}
}

// Whatever is queued, each database's frames come out whole and in order.
func TestQueueLosesAndMixesNothing(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var (
			q     fairQueue
			wire  []byte
			want  = map[catalog.ID][]string{}
			batch []*segment
		)
		drain := func() {
			batch = q.take(batch[:0])
			for _, s := range batch {
				wire = append(wire, s.buf...)
			}
			recycle(batch)
		}
		for range rng.IntN(300) {
			if rng.IntN(5) == 0 {
				drain()
				continue
			}
			f := Frame{Kind: 3, DB: catalog.ID(rng.IntN(4)), Payload: make([]byte, rng.IntN(1<<rng.IntN(17)))}
			rand.NewChaCha8([32]byte{byte(seed), byte(len(wire))}).Read(f.Payload)
			want[f.DB] = append(want[f.DB], string(f.Payload))
			if len(f.Payload) > largestChunk {
				q.splice(f.DB, chop(f))
			} else {
				q.push(f)
			}
		}
		for q.first != nil {
			drain()
		}
		if q.bytes != 0 || q.back != nil {
			t.Fatalf("seed %d: an empty queue has %d bytes", seed, q.bytes)
		}
		all, err := parse(wire, func() int { return rng.IntN(100_000) })
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, f := range all {
			if len(want[f.db]) == 0 || want[f.db][0] != f.payload {
				t.Fatalf("seed %d: a frame of database %d is not the next", seed, f.db)
			}
			want[f.db] = want[f.db][1:]
		}
		for db, rest := range want {
			if len(rest) > 0 {
				t.Fatalf("seed %d: %d frames of database %d are lost", seed, len(rest), db)
			}
		}
	}
}

func TestBusyDatabasesGetTheSameBytes(t *testing.T) {
	var q fairQueue
	sizes := map[catalog.ID]int{1: 10, 2: 3000, 3: 9000, 4: 16_000, 5: 1 << 20}
	for db, size := range sizes {
		f := Frame{DB: db, Payload: bytes.Repeat([]byte{1}, size)}
		for n := 0; n < 8<<20; n += size + headerSize {
			if size > largestChunk {
				q.splice(db, chop(f))
			} else {
				q.push(f)
			}
		}
	}
	got, least, most := map[catalog.ID]int{}, 1<<60, 0
	for range 50 {
		batch := q.take(nil)
		for _, s := range batch {
			f, _, _, _ := new(assembler).next(s.buf)
			got[f.DB] += len(s.buf)
		}
	}
	for db := range sizes {
		least, most = min(least, got[db]), max(most, got[db])
	}
	if most-least > 2*quantum || least == 0 {
		t.Errorf("bytes sent are %v", got)
	}
}

func TestQuietDatabasesAreForgotten(t *testing.T) {
	var q fairQueue
	for round := range 3 {
		for db := range catalog.ID(5 * keepQueues) {
			q.push(Frame{DB: catalog.ID(round)*1e6 + db})
		}
		for q.first != nil {
			recycle(q.take(nil))
		}
		if n := len(q.queues); n > keepQueues {
			t.Errorf("%d empty queues are kept", n)
		}
	}
}

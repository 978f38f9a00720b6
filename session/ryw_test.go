package session

import (
	"strings"
	"testing"

	"vecino/catalog"
)

func at(seq uint64) catalog.Position { return catalog.Position{Epoch: 1, Seq: seq} }

// released is what may leave now.
func released(t *Tracker, applied catalog.Position, now int64, c *Counters) (string, int64) {
	b, until := t.Release(nil, applied, now, c)
	return string(b), until
}

func TestReadIsAnsweredHereOnlyWhenTheCopyCoversWhatWasSeen(t *testing.T) {
	for _, c := range []struct {
		name      string
		seen      catalog.Position
		applied   catalog.Position
		here      bool
		whileSent bool
	}{
		{name: "nothing seen, nothing applied", here: true},
		{name: "at the write", seen: at(7), applied: at(7), here: true},
		{name: "behind it", seen: at(7), applied: at(6)},
		{name: "a later epoch covers, whatever its seq", seen: at(7), applied: catalog.Position{Epoch: 2, Seq: 1}, here: true},
		{name: "an earlier epoch doesn't, whatever its seq", seen: catalog.Position{Epoch: 2, Seq: 1}, applied: at(900)},
		{name: "covered, but a command is in flight", seen: at(7), applied: at(8), whileSent: true},
	} {
		var tr Tracker
		tr.Raise(c.seen)
		if c.whileSent {
			tr.Send(SentRead, 0)
		}
		if got := tr.ReadHere(c.applied); got != c.here {
			t.Errorf("%s: read here is %v, want %v", c.name, got, c.here)
		}
	}
}

func TestWriteIsReleasedWhenItsEntryHasComeOrPatienceEnds(t *testing.T) {
	for _, c := range []struct {
		name          string
		patience      int64
		applied       catalog.Position
		now           int64
		out           string
		until         int64
		held, late    uint64
		readHereAfter bool
	}{
		{name: "the entry came first", patience: 500, applied: at(9), now: 160, out: "+OK", readHereAfter: true},
		{name: "the entry is late", patience: 500, applied: at(8), now: 160, until: 600, held: 1},
		{name: "patience ends", patience: 500, applied: at(8), now: 600, out: "+OK", late: 1},
		{name: "the reply came after patience", patience: 500, applied: at(8), now: 900, out: "+OK", late: 1},
		{name: "no patience at all", patience: -1, applied: at(8), now: 160, out: "+OK"},
	} {
		tr := Tracker{Patience: c.patience}
		var n Counters
		req := tr.Send(SentWrite, 100)
		if out, _ := released(&tr, at(20), 120, &n); out != "" {
			t.Errorf("%s: released before the reply came: %q", c.name, out)
		}
		tr.Reply(req, at(9), []byte("+OK"))
		out, until := released(&tr, c.applied, c.now, &n)
		if out != c.out || until != c.until || n.Held != c.held || n.ReleasedLate != c.late {
			t.Errorf("%s: released %q, until %d, %+v", c.name, out, until, n)
		}
		if out != "" && tr.ReadHere(c.applied) != c.readHereAfter {
			t.Errorf("%s: a read after it is here: %v", c.name, !c.readHereAfter)
		}
		if tr.W() != at(9) {
			t.Errorf("%s: W is %v", c.name, tr.W())
		}
	}
}

func TestRepliesLeaveInTheOrderOfTheirCommands(t *testing.T) {
	tr := Tracker{Patience: 500}
	var n Counters
	set := tr.Send(SentWrite, 0)
	tr.Answered([]byte("ping "))
	get := tr.Send(SentRead, 0)
	other := tr.Send(SentWrite, 0)

	tr.Reply(other, at(3), []byte("other "))
	tr.Reply(get, at(2), []byte("get "))
	if out, _ := released(&tr, at(3), 10, &n); out != "" {
		t.Errorf("%q overtook the first command", out)
	}
	tr.Reply(set, at(1), []byte("set "))
	if out, _ := released(&tr, at(2), 10, &n); out != "set ping get " {
		t.Errorf("released %q; the last write isn't covered", out)
	}
	if out, _ := released(&tr, at(3), 20, &n); out != "other " {
		t.Errorf("released %q", out)
	}
	if tr.Busy() || tr.InFlight() != 0 || !tr.ReadHere(at(3)) || tr.ReadHere(at(2)) {
		t.Error("it is not at rest")
	}
}

func TestForwardedReadsAreMonotonicAndNeverHeld(t *testing.T) {
	tr := Tracker{Patience: 500}
	var n Counters
	get := tr.Send(SentRead, 0)
	tr.Reply(get, at(50), []byte("new"))
	if out, _ := released(&tr, at(10), 1, &n); out != "new" {
		t.Error("a read's reply was held")
	}
	if tr.ReadHere(at(49)) {
		t.Error("the next read may show an older state than this one did")
	}
}

func TestReplyTwiceOrToNobodyIsForgotten(t *testing.T) {
	var tr Tracker
	var n Counters
	req := tr.Send(SentWrite, 0)
	if !tr.Reply(req, at(1), []byte("one")) || tr.Reply(req, at(9), []byte("two")) || tr.Reply(req+1, at(9), nil) {
		t.Error("took a reply that nobody waits for")
	}
	if tr.W() != at(1) {
		t.Errorf("W is %v", tr.W())
	}
	if out, _ := released(&tr, at(1), 0, &n); out != "one" {
		t.Errorf("released %q", out)
	}
}

func TestOverdueAreAnsweredOldestFirstAndBlockingOnesOnlyWithoutALink(t *testing.T) {
	tr := Tracker{Patience: 500}
	var n Counters
	tr.Send(SentWrite, 100)
	tr.Send(SentBlocking, 100)
	tr.Send(SentRead, 200)
	tr.Send(SentWrite, 900)
	expire := func(before int64, down bool) (refused []uint32, next int64) {
		next = tr.Overdue(before, down, func(req uint32, _ Sent) {
			refused = append(refused, req)
			tr.Reply(req, tr.W(), []byte{'0' + byte(req)})
		})
		return refused, next
	}
	if refused, next := expire(50, false); refused != nil || next != 100 {
		t.Errorf("refused %v early, next %d", refused, next)
	}
	if refused, next := expire(500, false); len(refused) != 2 || refused[0] != 1 || refused[1] != 3 || next != 900 {
		t.Errorf("refused %v, next %d", refused, next)
	}
	tr.LinkDown(600)
	if refused, _ := expire(550, true); refused != nil {
		t.Errorf("refused %v: the blocking command's time has just begun", refused)
	}
	if refused, _ := expire(1000, true); len(refused) != 2 || refused[0] != 2 {
		t.Errorf("refused %v", refused)
	}
	if out, _ := released(&tr, at(0), 1000, &n); out != "1234" {
		t.Errorf("released %q", out)
	}
}

func FuzzFrames(f *testing.F) {
	r := request{session: 7, req: 3, oldest: 2, db: 1, flags: flagExec, watches: []watch{{db: 2, state: present, since: at(5), key: []byte("w")}}}
	f.Add(r.append(nil, [][]byte{[]byte("SET"), []byte("k"), []byte("v")}, [][]byte{[]byte("GET"), []byte("k")}))
	f.Add(appendReply(nil, 7, 3, at(9), []byte("+OK\r\n")))
	f.Add(appendPublish(nil, 1, []byte("channel"), []byte("message")))
	f.Add(appendInterested(nil, 1, []byte("channel"), 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRequest(b); err == nil {
			if r.db < 0 || r.db >= 16 || len(r.argvs) == 0 {
				t.Errorf("%x is a request of %d commands in database %d", b, len(r.argvs), r.db)
			}
			again, err := parseRequest(r.append(nil, r.argvs...))
			if err != nil || len(again.argvs) != len(r.argvs) || len(again.watches) != len(r.watches) {
				t.Errorf("%x reads differently the second time: %v", b, err)
			}
		}
		parseReply(b)
		parsePublish(b)
		var in interests
		in.take("node", b)
	})
}

func TestRequestKeepsItsWords(t *testing.T) {
	r := request{session: 1 << 60, req: 9, oldest: 8, db: 15, flags: flagResp3, watches: []watch{{db: 3, state: absent, since: at(4), key: []byte("w")}}}
	big := strings.Repeat("x", 100_000)
	got, err := parseRequest(r.append(nil, [][]byte{[]byte("SET"), {}, []byte(big)}))
	if err != nil {
		t.Fatal(err)
	}
	if got.session != r.session || got.req != 9 || got.oldest != 8 || got.db != 15 || got.flags != flagResp3 {
		t.Errorf("head is %+v", got)
	}
	if w := got.watches[0]; w.db != 3 || w.state != absent || w.since != at(4) || string(w.key) != "w" {
		t.Errorf("watch is %+v", w)
	}
	if argv := got.argvs[0]; string(argv[0]) != "SET" || len(argv[1]) != 0 || string(argv[2]) != big {
		t.Errorf("words are %q", argv)
	}
}

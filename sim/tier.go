package sim

import (
	"bytes"
	"cmp"
	"errors"
	"iter"
	"maps"
	"slices"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/session"
	"vecino/value"
)

// tier is what a machine's disk holds beside the journal: a record for each key,
// and as of when all of them are.
type tier struct {
	records map[tierKey]keyspace.Stored
	meta    *tierMeta // nil: the records alone are worth nothing
}

type tierKey struct {
	db  int
	key string
}

// tierMeta is where the history stood when the last complete sweep began.
type tierMeta struct {
	pos, complete catalog.Position
	hash          uint64
	clock         int64
	from          journal.Offset
}

// of are the records of a logical database.
func (t *tier) of(db int) iter.Seq2[string, keyspace.Stored] {
	return func(yield func(string, keyspace.Stored) bool) {
		for _, k := range t.keys() {
			if k.db == db && !yield(k.key, t.records[k]) {
				return
			}
		}
	}
}

// keys lists the records in an order that can be repeated.
func (t *tier) keys() []tierKey {
	return slices.SortedFunc(maps.Keys(t.records), func(a, b tierKey) int {
		return cmp.Or(cmp.Compare(a.db, b.db), cmp.Compare(a.key, b.key))
	})
}

func (t *tier) get(k keyspace.ColdKey) keyspace.Stored {
	return t.records[tierKey{k.DB, string(k.Key)}]
}

// writing is a session of writing to the tier. There is one at a time.
type writing struct {
	p          *process
	t          *session.Tenant
	ks         *keyspace.Keyspace
	generation uint64
	graves     keyspace.Graves
	staged     []func(records map[tierKey]keyspace.Stored)
	swept      []keyspace.ColdKey
	saves      []*value.Save
}

// beginWriting begins a session, nil if none can be had now.
func (p *process) beginWriting() *writing {
	if p.dead || p.tenant == nil || p.saving || !p.tenant.Savable() || p.tenant.Engine.State() != engine.Awake {
		return nil
	}
	p.saving = true
	wr := &writing{p: p, t: p.tenant, ks: p.tenant.Engine.Keyspace(), generation: p.machine.generation}
	wr.ks.KeepApart()
	wr.graves = wr.ks.TakeGraves()
	for db := range wr.graves.Flushed() {
		wr.staged = append(wr.staged, func(records map[tierKey]keyspace.Stored) {
			maps.DeleteFunc(records, func(k tierKey, _ keyspace.Stored) bool { return k.db == db })
		})
	}
	for g := range wr.graves.Keys() {
		if p.w.cfg.Plant.KeepGraves {
			break
		}
		k := tierKey{g.DB, string(g.Key)}
		wr.staged = append(wr.staged, func(records map[tierKey]keyspace.Stored) { delete(records, k) })
	}
	return wr
}

// valid reports whether what was begun is still about what is there.
func (wr *writing) valid() bool {
	p := wr.p
	return !p.dead && p.tenant == wr.t && wr.t.Engine.Keyspace() == wr.ks && p.machine.generation == wr.generation
}

func (wr *writing) put(r *keyspace.Record) {
	if wr.p.w.cfg.Plant.SkipKeys && wr.p.w.chance(0.02) {
		return
	}
	k := tierKey{r.DB, string(r.Key)}
	put := *r
	put.Head, put.Body = bytes.Clone(r.Head), bytes.Clone(r.Body)
	if r.Parts != nil {
		wr.saves = append(wr.saves, r.Parts)
	}
	wr.staged = append(wr.staged, func(records map[tierKey]keyspace.Stored) { records[k] = records[k].Put(&put) })
	wr.swept = append(wr.swept, keyspace.ColdKey{DB: r.DB, Hash: r.Hash, Key: bytes.Clone(r.Key), Seq: r.Seq})
}

// commit ends the session. meta is nil for one that didn't look at all keys.
func (wr *writing) commit(meta *tierMeta) bool {
	p := wr.p
	disk := &p.machine.tier
	p.saving = false
	// What the tier shows must not be newer than what the journal keeps.
	if !p.w.cfg.Plant.TierAhead && p.commit() != nil || meta == nil && (p.wipe || disk.meta == nil) {
		wr.fail()
		return false
	}
	if p.wipe || disk.records == nil {
		disk.records = map[tierKey]keyspace.Stored{}
	}
	for _, k := range wr.ks.Blind() {
		p.w.cover.Blind++
		if err := wr.ks.Seen(k, disk.get(k).Head); err != nil {
			p.w.fail("%s: the record of %q: %v", p.machine.id, k.Key, err)
		}
	}
	for _, do := range wr.staged {
		do(disk.records)
	}
	if meta == nil {
		changed := *disk.meta
		meta = &changed
	} else {
		p.wipe, p.since = false, meta.pos.Seq
		p.w.cover.Checkpoints++
	}
	if pos := wr.t.Engine.Position(); !meta.complete.Covers(pos) {
		meta.complete = pos
	}
	disk.meta = meta
	return true
}

// abort ends a session whose keyspace is gone, or that failed.
func (wr *writing) abort() {
	wr.p.saving = false
	wr.fail()
}

func (wr *writing) fail() {
	wr.ks.Rebury(wr.graves)
	for _, save := range wr.saves {
		save.Fail()
	}
}

// offload lets go some of what was swept.
func (wr *writing) offload(p float64) {
	for _, k := range wr.swept {
		if wr.p.w.chance(p) && wr.t.Engine.Offload(k.DB, k.Hash, k.Key, k.Seq) > 0 {
			wr.p.w.cover.Offloaded++
		}
	}
}

// chill has values leave memory, of all keys in memory about that part.
func (p *process) chill(part float64) {
	if p.machine.tier.meta == nil || p.wipe {
		if wr := p.sweep(); wr != nil {
			wr.offload(part)
		}
		return
	}
	wr := p.beginWriting()
	if wr == nil {
		return
	}
	for at := (keyspace.Cursor{}); !at.Done(); {
		wr.ks.Sweep(&at, 0, 1000, wr.put)
	}
	if wr.commit(nil) {
		wr.offload(part)
	}
}

// sink has cold keys leave memory altogether, about that part of them, at the primary.
func (p *process) sink(part float64) {
	if p.dead || p.tenant == nil || p.wipe || !p.tenant.IsPrimary() || p.tenant.Engine.State() != engine.Awake {
		return
	}
	keys, _ := p.tenant.Engine.Sink(keyspace.Sinking{Looks: 1000, Part: part, Since: p.since}, clock{p}.NowMS())
	p.w.cover.Sunk += uint64(keys)
}

// hibernate puts the database to sleep.
func (p *process) hibernate() {
	wr := p.sweep()
	if wr != nil && wr.t.Sleep() {
		p.w.cover.Slept++
		p.w.trace("%s: sleeps at %v", p.machine.id, wr.t.Engine.Position())
	}
}

// sweep writes all that the tier doesn't have, at once. It returns nil if that
// couldn't be done.
func (p *process) sweep() *writing {
	wr := p.beginWriting()
	if wr == nil {
		return nil
	}
	db := wr.t.Engine
	unsaved := db.FirstUnsaved()
	meta := &tierMeta{pos: db.Position(), complete: wr.t.Complete(), hash: db.HistoryHash(), clock: db.Clock(), from: p.next}
	for at := (keyspace.Cursor{}); !at.Done(); {
		wr.ks.Sweep(&at, p.since, 1000, wr.put)
	}
	db.SetUnsaved(0)
	if !wr.commit(meta) {
		db.SetUnsaved(unsaved)
		return nil
	}
	p.machine.homeless = false
	p.trim()
	return wr
}

var errTier = errors.New("the simulated disk doesn't read")

// Fetch and Wake make a process the engine.Storage of its database.
func (p *process) Fetch(db *engine.DB, keys []keyspace.ColdKey) {
	w := p.w
	for _, k := range keys {
		w.after(w.between(10, w.read), func() {
			value, err := keyspace.Answer(db.HashSeed(), k, p.machine.tier.of(k.DB))
			if err != nil {
				w.fail("%s: the record of %q: %v", p.machine.id, k.Key, err)
			}
			if p.machine.unreadable || !w.calm && w.chance(0.03) {
				err = errTier
				w.cover.UnreadValues++
			}
			w.cover.Fetched++
			p.post(func() {
				db.Lock()
				defer db.Unlock()
				db.Fetched(clock{p}.NowMS(), k, value, err)
			})
		})
	}
}

func (p *process) Wake(db *engine.DB) {
	w := p.w
	w.after(w.between(10, 2*w.read), func() {
		ks, err := db.NewKeyspace(), error(nil)
		if p.machine.unreadable || !w.calm && w.chance(0.1) {
			err = errTier
		} else {
			primary := p.tenant != nil && p.tenant.IsPrimary()
			for _, k := range p.machine.tier.keys() {
				if primary && w.chance(0.3) && ks.LoadSunk(k.db, ks.Hash([]byte(k.key)), []byte(k.key), p.machine.tier.records[k].Head) {
					w.cover.Sunk++
					continue
				}
				if e := ks.LoadHead(k.db, []byte(k.key), p.machine.tier.records[k].Head); e != nil {
					w.fail("%s: wake: %v", p.machine.id, e)
				}
			}
			w.cover.Woken++
		}
		p.post(func() {
			db.Lock()
			defer db.Unlock()
			db.Woken(clock{p}.NowMS(), ks, err)
		})
	})
}

// dump gives records of some keys, cold ones from the tier.
func (p *process) dump(ks *keyspace.Keyspace, at *keyspace.Cursor, count int) []byte {
	records := ks.Dump(nil, at, count)
	var wanted []keyspace.ColdKey
	for _, k := range ks.Wanted() {
		if k.Last == 0 {
			wanted = append(wanted, k)
			continue
		}
		for key := range p.machine.tier.of(k.DB) {
			hash := ks.Hash([]byte(key))
			if named := (keyspace.ColdKey{DB: k.DB, Hash: hash, Key: []byte(key)}); k.Hash <= hash && hash <= k.Last && ks.Needs(&named) {
				wanted = append(wanted, named)
			}
		}
	}
	for _, k := range wanted {
		value, err := p.machine.tier.get(k).Thaw(p.w.record.HashSeed, nil)
		var ok bool
		if err == nil {
			records, ok, err = ks.DumpCold(records, k, value)
		}
		if !ok || err != nil {
			p.w.fail("%s: the tier has not %q as of write %d (%v)", p.machine.id, k.Key, k.Seq, err)
		}
	}
	return records
}

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"vecino/api"
	"vecino/catalog"
)

// watchCatalog answers GET /v1/catalog/watch. Each watcher has its own etcd
// watch, so a slow one delays nobody, and one that comes back resumes as far
// as the store's history goes.
func (f *Fleet) watchCatalog(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseInt(r.FormValue("from"), 10, 64)
	if r.FormValue("from") == "" {
		from, err = 0, nil
	}
	if err != nil || from < 0 {
		api.WriteError(w, f.log, api.Errorf(api.Invalid, "from %q is no revision", r.FormValue("from")))
		return
	}
	if err := f.sendCatalog(w, r, from, r.FormValue("node")); err != nil {
		api.WriteError(w, f.log, err)
	}
}

// sendCatalog returns an error only if nothing was sent yet.
func (f *Fleet) sendCatalog(w http.ResponseWriter, r *http.Request, from int64, node string) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	f.watchers.Inc()
	defer f.watchers.Dec()

	var first []catalog.Event
	if from == 0 {
		all, revision, err := f.store.snapshot(ctx, node)
		if err != nil {
			return err
		}
		first, from = append(all, catalog.Event{Revision: revision, Synced: true}), revision
	} else if err := f.store.stillKept(ctx, from); err != nil {
		return err
	}

	changes := f.store.etcd.Watch(ctx, catalogPrefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(from+1))
	lines := api.StartLines(w)
	for _, e := range first {
		if lines.Send(e) != nil {
			return nil
		}
	}
	if lines.Flush() != nil {
		return nil
	}
	heartbeat := time.NewTicker(f.heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heartbeat.C:
			if lines.Send(nil) != nil {
				return nil
			}
		case change, ok := <-changes:
			if !ok || change.Err() != nil {
				return nil // the client asks again, and hears why if it can't resume
			}
			for _, ev := range change.Events {
				e, relevant, err := eventOf(ev, node)
				if err != nil {
					f.log.Error("catalog record can't be read", "key", string(ev.Kv.Key), "error", err)
					return nil
				}
				if relevant && lines.Send(e) != nil {
					return nil
				}
			}
		}
		if lines.Flush() != nil {
			return nil
		}
	}
}

// eventOf translates a change of the store. It is relevant to a node if the
// database has or had a copy there, or what it had isn't known any more.
func eventOf(ev *clientv3.Event, node string) (e catalog.Event, relevant bool, err error) {
	key := string(ev.Kv.Key)
	e.Revision = ev.Kv.ModRevision
	switch {
	case strings.HasPrefix(key, nodePrefix):
		if ev.Type == mvccpb.DELETE {
			return e, false, nil
		}
		e.Node = &catalog.Node{}
		return e, true, json.Unmarshal(ev.Kv.Value, e.Node)
	case !strings.HasPrefix(key, databasePrefix):
		return e, false, fmt.Errorf("unknown kind of record")
	}
	had := true
	if ev.PrevKv != nil {
		before, err := decodeDatabase(ev.PrevKv.Value, ev.PrevKv.ModRevision)
		if err != nil {
			return e, false, err
		}
		had = node == "" || before.CopyOn(node) != nil
	} else if ev.IsCreate() {
		had = false
	}
	if ev.Type == mvccpb.DELETE {
		id, ok := idOfKey(key)
		if !ok {
			return e, false, fmt.Errorf("key is no database's")
		}
		e.Gone = id
		return e, had, nil
	}
	d, err := decodeDatabase(ev.Kv.Value, ev.Kv.ModRevision)
	if err != nil {
		return e, false, err
	}
	e.Database = &d
	return e, had || node == "" || d.CopyOn(node) != nil, nil
}

// snapshot is the whole catalog as it concerns a node ("": all of it), nodes
// first, and the revision it is of.
func (s *store) snapshot(ctx context.Context, node string) (events []catalog.Event, revision int64, err error) {
	read, err := s.etcd.Txn(ctx).Then(
		clientv3.OpGet(nodePrefix, clientv3.WithPrefix()),
		clientv3.OpGet(databasePrefix, clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return nil, 0, fmt.Errorf("read catalog: %w", err)
	}
	for _, response := range read.Responses {
		for _, kv := range response.GetResponseRange().Kvs {
			e, relevant, err := eventOf(&clientv3.Event{Type: mvccpb.PUT, Kv: kv, PrevKv: kv}, node)
			if err != nil {
				return nil, 0, fmt.Errorf("read %s: %w", kv.Key, err)
			}
			if relevant {
				events = append(events, e)
			}
		}
	}
	return events, read.Header.Revision, nil
}

// stillKept is nil if all that came after a revision can still be told.
func (s *store) stillKept(ctx context.Context, revision int64) error {
	_, err := s.etcd.Get(ctx, lastKey, clientv3.WithRev(revision))
	if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrFutureRev) {
		return api.Errorf(api.Gone, "revision %d is not kept; start from 0", revision)
	}
	if err != nil {
		return fmt.Errorf("read revision %d: %w", revision, err)
	}
	return nil
}

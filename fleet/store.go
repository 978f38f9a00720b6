package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"vecino/api"
	"vecino/catalog"
	"vecino/internal/etcd"
)

// The layout of the store. What is under catalogPrefix is what a watch sends.
//
//	/catalog/databases/<id, 16 hex digits>  catalog.Database
//	/catalog/nodes/<id>                     catalog.Node
//	/last                                   the highest database ID ever given out
//	/addresses/<address>                    ID of the database that has it
//	/creations/<idempotency key>            creation
const (
	catalogPrefix   = "/catalog/"
	databasePrefix  = catalogPrefix + "databases/"
	nodePrefix      = catalogPrefix + "nodes/"
	lastKey         = "/last"
	addressPrefix   = "/addresses/"
	creationsPrefix = "/creations/"
)

// keepCreations is how long an idempotency key is remembered.
const keepCreations = 24 * time.Hour

// maxTries bounds how often a change is tried that others get in the way of.
const maxTries = 100

// creation is what became of one idempotency key.
type creation struct {
	Database  catalog.ID `json:"database,omitempty"`
	Request   string     `json:"request,omitempty"` // hash of it
	Cancelled bool       `json:"cancelled,omitempty"`
	Made      time.Time  `json:"made"`
}

// store is the catalog in etcd: every change is one transaction that succeeds
// only if what it was computed from still stands.
type store struct {
	etcd *etcd.Store
	now  func() time.Time
}

func databaseKey(id catalog.ID) string { return fmt.Sprintf("%s%016x", databasePrefix, uint64(id)) }

func idOfKey(key string) (catalog.ID, bool) {
	id, err := strconv.ParseUint(strings.TrimPrefix(key, databasePrefix), 16, 64)
	return catalog.ID(id), err == nil
}

func decodeDatabase(value []byte, revision int64) (d catalog.Database, err error) {
	if err := json.Unmarshal(value, &d); err != nil {
		return d, fmt.Errorf("decode database record: %w", err)
	}
	d.Revision = revision
	return d, nil
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("fleet: record can't be encoded: %v", err)) // plain data always can
	}
	return string(b)
}

// requestHash tells requests under one key apart.
func requestHash(r api.FleetCreate) string {
	sum := sha256.Sum256([]byte(encode(r)))
	return hex.EncodeToString(sum[:])
}

// create records a database under the next ID. fill makes the record for it,
// and is called again when others got in the way. When the key was used before
// for the same request, its database is answered and again is true.
func (s *store) create(ctx context.Context, key string, r api.FleetCreate, fill func(catalog.ID) (catalog.Database, error)) (d catalog.Database, again bool, err error) {
	var (
		hash       = requestHash(r)
		creationAt = creationsPrefix + key
		addressAt  = addressPrefix + r.Address.String()
	)
	for range maxTries {
		read, err := s.etcd.Txn(ctx).Then(clientv3.OpGet(lastKey), clientv3.OpGet(creationAt), clientv3.OpGet(addressAt)).Commit()
		if err != nil {
			return d, false, fmt.Errorf("read before creation: %w", err)
		}
		last, before, address := read.Responses[0].GetResponseRange(), read.Responses[1].GetResponseRange(), read.Responses[2].GetResponseRange()
		if before.Count > 0 {
			d, err := s.repeat(ctx, before.Kvs[0].Value, hash)
			return d, true, err
		}
		if address.Count > 0 {
			return d, false, api.Errorf(api.Conflict, "address %s belongs to another database", r.Address)
		}
		var id catalog.ID = 1
		var lastRevision int64
		if last.Count > 0 {
			n, err := strconv.ParseUint(string(last.Kvs[0].Value), 10, 64)
			if err != nil {
				return d, false, fmt.Errorf("decode %s: %w", lastKey, err)
			}
			id, lastRevision = catalog.ID(n+1), last.Kvs[0].ModRevision
		}
		if d, err = fill(id); err != nil {
			return d, false, err
		}
		txn, err := s.etcd.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(lastKey), "=", lastRevision),
			clientv3.Compare(clientv3.CreateRevision(creationAt), "=", 0),
			clientv3.Compare(clientv3.CreateRevision(addressAt), "=", 0),
		).Then(
			clientv3.OpPut(lastKey, strconv.FormatUint(uint64(id), 10)),
			clientv3.OpPut(databaseKey(id), encode(d)),
			clientv3.OpPut(addressAt, strconv.FormatUint(uint64(id), 10)),
			clientv3.OpPut(creationAt, encode(creation{Database: id, Request: hash, Made: s.now()})),
		).Commit()
		if err != nil {
			return d, false, fmt.Errorf("record database: %w", err)
		}
		if txn.Succeeded {
			d.Revision = txn.Header.Revision
			return d, false, nil
		}
	}
	return d, false, errContended
}

var errContended = api.Errorf(api.Unavailable, "too many changes at once; try again")

// repeat answers a creation whose key was used before.
func (s *store) repeat(ctx context.Context, value []byte, hash string) (d catalog.Database, err error) {
	var c creation
	if err := json.Unmarshal(value, &c); err != nil {
		return d, fmt.Errorf("decode creation: %w", err)
	}
	if c.Cancelled {
		return d, api.Errorf(api.Gone, "the creation under this idempotency key was cancelled")
	}
	if c.Request != hash {
		return d, api.Errorf(api.KeyReused, "this idempotency key was used for a different database")
	}
	d, err = s.database(ctx, c.Database)
	if api.CodeOf(err) == api.NotFound {
		return d, api.Errorf(api.Gone, "the database made under this idempotency key was destroyed")
	}
	return d, err
}

// cancel undoes a creation, or forbids it if it hasn't arrived yet.
func (s *store) cancel(ctx context.Context, key string) error {
	at := creationsPrefix + key
	for range maxTries {
		read, err := s.etcd.Get(ctx, at)
		if err != nil {
			return fmt.Errorf("read creation: %w", err)
		}
		cancelled := creation{Made: s.now()}
		unchanged := clientv3.Compare(clientv3.CreateRevision(at), "=", 0)
		var remove []clientv3.Op
		if len(read.Kvs) > 0 {
			if err := json.Unmarshal(read.Kvs[0].Value, &cancelled); err != nil {
				return fmt.Errorf("decode creation: %w", err)
			}
			if cancelled.Cancelled {
				return nil
			}
			unchanged = clientv3.Compare(clientv3.ModRevision(at), "=", read.Kvs[0].ModRevision)
			d, err := s.database(ctx, cancelled.Database)
			switch {
			case err == nil:
				remove = removal(d)
			case api.CodeOf(err) != api.NotFound:
				return err
			}
		}
		cancelled.Cancelled = true
		txn, err := s.etcd.Txn(ctx).If(unchanged).Then(append(remove, clientv3.OpPut(at, encode(cancelled)))...).Commit()
		if err != nil {
			return fmt.Errorf("cancel creation: %w", err)
		}
		if txn.Succeeded {
			return nil
		}
	}
	return errContended
}

// removal deletes all of a database but the memory of its key and its ID. An
// address never changes, so nothing needs to be compared.
func removal(d catalog.Database) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(databaseKey(d.ID)),
		clientv3.OpDelete(addressPrefix + d.Address.String()),
	}
}

// database reads one record.
func (s *store) database(ctx context.Context, id catalog.ID) (d catalog.Database, err error) {
	read, err := s.etcd.Get(ctx, databaseKey(id))
	if err != nil {
		return d, fmt.Errorf("read database: %w", err)
	}
	if len(read.Kvs) == 0 {
		return d, api.Errorf(api.NotFound, "no database has the id %d", id)
	}
	return decodeDatabase(read.Kvs[0].Value, read.Kvs[0].ModRevision)
}

// databases reads all records, by ID.
func (s *store) databases(ctx context.Context) ([]catalog.Database, error) {
	read, err := s.etcd.Get(ctx, databasePrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read databases: %w", err)
	}
	list := make([]catalog.Database, 0, len(read.Kvs))
	for _, kv := range read.Kvs {
		d, err := decodeDatabase(kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// change applies f to a record until nobody got in between. If f leaves the
// record as it is, nothing is written.
func (s *store) change(ctx context.Context, id catalog.ID, f func(*catalog.Database) error) (catalog.Database, error) {
	for range maxTries {
		d, err := s.database(ctx, id)
		if err != nil {
			return d, err
		}
		revision, before := d.Revision, encode(d)
		d.Copies = append([]catalog.Copy(nil), d.Copies...)
		if err := f(&d); err != nil {
			return d, err
		}
		after := encode(d)
		if after == before {
			return d, nil
		}
		key := databaseKey(id)
		txn, err := s.etcd.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).Then(clientv3.OpPut(key, after)).Commit()
		if err != nil {
			return d, fmt.Errorf("change database: %w", err)
		}
		if txn.Succeeded {
			d.Revision = txn.Header.Revision
			return d, nil
		}
	}
	return catalog.Database{}, errContended
}

// remove deletes a database's record.
func (s *store) remove(ctx context.Context, id catalog.ID) error {
	d, err := s.database(ctx, id)
	if err != nil {
		return err
	}
	if _, err := s.etcd.Txn(ctx).Then(removal(d)...).Commit(); err != nil {
		return fmt.Errorf("remove database: %w", err)
	}
	return nil
}

// nodes reads all registered nodes, by ID.
func (s *store) nodes(ctx context.Context) ([]catalog.Node, error) {
	read, err := s.etcd.Get(ctx, nodePrefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read nodes: %w", err)
	}
	list := make([]catalog.Node, len(read.Kvs))
	for i, kv := range read.Kvs {
		if err := json.Unmarshal(kv.Value, &list[i]); err != nil {
			return nil, fmt.Errorf("decode node record: %w", err)
		}
	}
	return list, nil
}

// putNode records a node, if anything about it is new. occupied says whether
// it holds copies, in which case it can't move.
func (s *store) putNode(ctx context.Context, n catalog.Node, occupied func() bool) error {
	key, value := nodePrefix+n.ID, encode(n)
	read, err := s.etcd.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	if len(read.Kvs) > 0 {
		if string(read.Kvs[0].Value) == value {
			return nil
		}
		var old catalog.Node
		if err := json.Unmarshal(read.Kvs[0].Value, &old); err != nil {
			return fmt.Errorf("decode node record: %w", err)
		}
		if old.Region != n.Region && occupied() {
			return api.Errorf(api.Conflict, "node %s holds databases in %s and can't move to %s", n.ID, old.Region, n.Region)
		}
	}
	if _, err := s.etcd.Put(ctx, key, value); err != nil {
		return fmt.Errorf("record node: %w", err)
	}
	return nil
}

// sweep forgets keys of long ago.
func (s *store) sweep(ctx context.Context) error {
	read, err := s.etcd.Get(ctx, creationsPrefix, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read creations: %w", err)
	}
	for _, kv := range read.Kvs {
		var c creation
		if err := json.Unmarshal(kv.Value, &c); err != nil {
			return fmt.Errorf("decode creation: %w", err)
		}
		if s.now().Sub(c.Made) < keepCreations {
			continue
		}
		if _, err := s.etcd.Delete(ctx, string(kv.Key)); err != nil {
			return fmt.Errorf("forget creation: %w", err)
		}
	}
	return nil
}

package platform

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"vecino/api"
	"vecino/catalog"
	"vecino/internal/etcd"
	"vecino/privnet"
)

// The layout of the store.
//
//	/organizations/<slug>            organization
//	/tokens/<SHA-256 of the token>   token
//	/network                         the last network number given out
//	/numbers/<network, 8 hex digits> the last database number given out there
//	/serial                          the last loopback number given out
//	/databases/<organisation>/<name> record
//	/creations/<organisation>/<key>  creation: what became of an idempotency key
//	/edges/<id>                      api.Edge, without what it applied
const (
	organizationPrefix = "/organizations/"
	tokenPrefix        = "/tokens/"
	networkKey         = "/network"
	numberPrefix       = "/numbers/"
	serialKey          = "/serial"
	databasePrefix     = "/databases/"
	creationPrefix     = "/creations/"
	edgePrefix         = "/edges/"
)

const (
	firstNetwork  = 0x47fb         // the first organisation's network
	keepCreations = 24 * time.Hour // how long an idempotency key is remembered
	maxTries      = 100            // how often a change is tried that others get in the way of
)

// phase is how far a database has come.
//
//	          reserve            finish           destroy
//	(nothing) ------> creating ---------> ready ---------> destroying ---> (nothing)
//	                     |
//	                     | the fleet refused, or the platform died here
//	                     v
//	                  undoing ---> (nothing)
//
// Only ready databases are routed. A record in any other phase is an intent:
// when nobody is at work on it, mend carries it to its end.
type phase string

const (
	creating   phase = "creating"
	ready      phase = "ready"
	undoing    phase = "undoing"
	destroying phase = "destroying"
)

// record is one database. What the fleet decides (regions, plan, eviction) is
// not repeated here.
type record struct {
	UID          string     `json:"uid"` // random; the idempotency key towards the fleet
	Name         string     `json:"name"`
	Organization string     `json:"organization"`
	Address      netip.Addr `json:"address"`
	Serial       uint32     `json:"serial"` // numbers databases across organisations, for loopback addresses
	Phase        phase      `json:"phase"`
	Resetting    bool       `json:"resetting,omitempty"` // the fleet may have a newer password than Password
	Database     catalog.ID `json:"database,omitempty"`  // the fleet's
	Password     []byte     `json:"password,omitempty"`  // sealed, for UID
	Key          string     `json:"key,omitempty"`       // the client's idempotency key
	Created      time.Time  `json:"created"`

	revision int64
}

func (r *record) key() string { return databaseKey(r.Organization, r.Name) }

type organization struct {
	Slug    string          `json:"slug"`
	Name    string          `json:"name"`
	Type    string          `json:"type"`
	Network privnet.Network `json:"network"`
}

type token struct {
	Organizations []string `json:"organizations"`
}

type creation struct {
	UID     string    `json:"uid"`
	Name    string    `json:"name"`
	Request string    `json:"request"` // hash of it
	Made    time.Time `json:"made"`
}

type store struct {
	etcd *etcd.Store
	now  func() time.Time
}

func databaseKey(org, name string) string { return databasePrefix + org + "/" + name }
func creationKey(org, key string) string  { return creationPrefix + org + "/" + key }
func numberKey(n privnet.Network) string  { return fmt.Sprintf("%s%08x", numberPrefix, uint32(n)) }
func tokenKey(secret string) string {
	h := api.HashToken(secret)
	return tokenPrefix + hex.EncodeToString(h[:])
}
func unchanged(key string, at int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", at)
}

// errContended is returned when others kept getting in the way.
var errContended = api.Errorf(api.Unavailable, "too many changes at once; try again")

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("platform: record can't be encoded: %v", err)) // plain data always can
	}
	return string(b)
}

func requestHash(r api.CreateDatabase) string {
	sum := sha256.Sum256([]byte(encode(r)))
	return hex.EncodeToString(sum[:])
}

func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// read decodes the value under a key and returns its revision, 0 if there is
// none.
func (s *store) read(ctx context.Context, key string, into any) (revision int64, err error) {
	got, err := s.etcd.Get(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	if len(got.Kvs) == 0 {
		return 0, nil
	}
	if err := json.Unmarshal(got.Kvs[0].Value, into); err != nil {
		return 0, fmt.Errorf("decode %s: %w", key, err)
	}
	return got.Kvs[0].ModRevision, nil
}

// seed makes the first organisation and its owner's token, each unless it is
// there.
func (s *store) seed(ctx context.Context, userToken string) error {
	var o organization
	at, err := s.read(ctx, organizationPrefix+personalSlug, &o)
	if err != nil {
		return err
	}
	if at == 0 {
		if _, err := s.addOrganization(ctx, organization{Slug: personalSlug, Name: "Personal", Type: "personal"}, ""); err != nil && api.CodeOf(err) != api.Conflict {
			return err
		}
	}
	if userToken == "" {
		return nil
	}
	_, err = s.etcd.Txn(ctx).If(unchanged(tokenKey(userToken), 0)).
		Then(clientv3.OpPut(tokenKey(userToken), encode(token{Organizations: []string{personalSlug}}))).Commit()
	if err != nil {
		return fmt.Errorf("record the first token: %w", err)
	}
	return nil
}

// personalSlug names the organisation every platform starts with.
const personalSlug = "personal"

// addOrganization records an organisation with the next network, and lets the
// token use it.
func (s *store) addOrganization(ctx context.Context, o organization, secret string) (organization, error) {
	for range maxTries {
		var last uint64
		lastAt, err := s.read(ctx, networkKey, &last)
		if err != nil {
			return o, err
		}
		o.Network = privnet.Network(max(last+1, firstNetwork))
		conditions := []clientv3.Cmp{unchanged(networkKey, lastAt), unchanged(organizationPrefix+o.Slug, 0)}
		writes := []clientv3.Op{
			clientv3.OpPut(networkKey, strconv.FormatUint(uint64(o.Network), 10)),
			clientv3.OpPut(organizationPrefix+o.Slug, encode(o)),
		}
		if secret != "" {
			var t token
			at, err := s.read(ctx, tokenKey(secret), &t)
			if err != nil {
				return o, err
			}
			t.Organizations = append(t.Organizations, o.Slug)
			conditions = append(conditions, unchanged(tokenKey(secret), at))
			writes = append(writes, clientv3.OpPut(tokenKey(secret), encode(t)))
		}
		if at, err := s.read(ctx, organizationPrefix+o.Slug, &organization{}); err != nil {
			return o, err
		} else if at != 0 {
			return o, &api.Error{Code: api.Conflict, Field: "organization", Message: fmt.Sprintf("organization %q exists", o.Slug)}
		}
		txn, err := s.etcd.Txn(ctx).If(conditions...).Then(writes...).Commit()
		if err != nil {
			return o, fmt.Errorf("record organization: %w", err)
		}
		if txn.Succeeded {
			return o, nil
		}
	}
	return o, errContended
}

// taken is returned by reserve when there is a database of that name.
type taken struct{ record record }

func (t taken) Error() string {
	return fmt.Sprintf("database %q exists in organization %q", t.record.Name, t.record.Organization)
}

// reserve mints an address and records the intent to create a database, all
// in one transaction. Before it nothing has happened; after it the name, the
// address and the key are taken whatever happens next. When the client's key
// was used before, its creation is returned and nothing is reserved.
func (s *store) reserve(ctx context.Context, o organization, uid, name, key, hash string) (r record, before *creation, err error) {
	for range maxTries {
		var (
			number, serial uint64
			old            record
			made           creation
		)
		if key != "" {
			at, err := s.read(ctx, creationKey(o.Slug, key), &made)
			if err != nil {
				return r, nil, err
			}
			if at != 0 {
				return r, &made, nil
			}
		}
		if at, err := s.read(ctx, databaseKey(o.Slug, name), &old); err != nil {
			return r, nil, err
		} else if at != 0 {
			return r, nil, taken{old}
		}
		numberAt, err := s.read(ctx, numberKey(o.Network), &number)
		if err != nil {
			return r, nil, err
		}
		serialAt, err := s.read(ctx, serialKey, &serial)
		if err != nil {
			return r, nil, err
		}
		number, serial = max(number+1, privnet.FirstNumber), max(serial+1, privnet.FirstNumber)
		r = record{
			UID: uid, Name: name, Organization: o.Slug, Phase: creating, Key: key, Created: s.now().UTC(),
			Address: privnet.Mint(o.Network, number), Serial: uint32(serial),
		}
		conditions := []clientv3.Cmp{
			unchanged(r.key(), 0),
			unchanged(numberKey(o.Network), numberAt),
			unchanged(serialKey, serialAt),
		}
		writes := []clientv3.Op{
			clientv3.OpPut(r.key(), encode(r)),
			clientv3.OpPut(numberKey(o.Network), strconv.FormatUint(number, 10)),
			clientv3.OpPut(serialKey, strconv.FormatUint(serial, 10)),
		}
		if key != "" {
			conditions = append(conditions, unchanged(creationKey(o.Slug, key), 0))
			writes = append(writes, clientv3.OpPut(creationKey(o.Slug, key), encode(creation{UID: uid, Name: name, Request: hash, Made: s.now().UTC()})))
		}
		txn, err := s.etcd.Txn(ctx).If(conditions...).Then(writes...).Commit()
		if err != nil {
			return r, nil, fmt.Errorf("reserve name and address: %w", err)
		}
		if txn.Succeeded {
			r.revision = txn.Header.Revision
			return r, nil, nil
		}
	}
	return r, nil, errContended
}

// get reads one record.
func (s *store) get(ctx context.Context, org, name string) (r record, found bool, err error) {
	r.revision, err = s.read(ctx, databaseKey(org, name), &r)
	return r, r.revision != 0, err
}

// list reads the records of an organisation, or of all ("").
func (s *store) list(ctx context.Context, org string) (list []record, revision int64, err error) {
	prefix := databasePrefix
	if org != "" {
		prefix += org + "/"
	}
	got, err := s.etcd.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("read databases: %w", err)
	}
	list = make([]record, len(got.Kvs))
	for i, kv := range got.Kvs {
		if err := json.Unmarshal(kv.Value, &list[i]); err != nil {
			return nil, 0, fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		list[i].revision = kv.ModRevision
	}
	return list, got.Header.Revision, nil
}

// put writes a record over the revision it was read at.
func (s *store) put(ctx context.Context, r *record) error {
	txn, err := s.etcd.Txn(ctx).If(unchanged(r.key(), r.revision)).Then(clientv3.OpPut(r.key(), encode(r))).Commit()
	if err != nil {
		return fmt.Errorf("record database: %w", err)
	}
	if !txn.Succeeded {
		return api.Errorf(api.Conflict, "database %q was changed by somebody else meanwhile; look again", r.Name)
	}
	r.revision = txn.Header.Revision
	return nil
}

// drop removes a record. The client's key goes with one that was never made,
// so that the request can be repeated; it stays with one that was destroyed,
// so that a late repetition doesn't make it again.
func (s *store) drop(ctx context.Context, r *record) error {
	removals := []clientv3.Op{clientv3.OpDelete(r.key())}
	if r.Key != "" && r.Phase == undoing {
		removals = append(removals, clientv3.OpDelete(creationKey(r.Organization, r.Key)))
	}
	txn, err := s.etcd.Txn(ctx).If(unchanged(r.key(), r.revision)).Then(removals...).Commit()
	if err != nil {
		return fmt.Errorf("remove database: %w", err)
	}
	if txn.Succeeded {
		return nil
	}
	now, found, err := s.get(ctx, r.Organization, r.Name)
	if err != nil || !found || now.UID != r.UID {
		return err // somebody else has done it
	}
	return api.Errorf(api.Conflict, "database %q was changed by somebody else meanwhile; look again", r.Name)
}

// settle waits until a creation that is under way has ended either way.
func (s *store) settle(ctx context.Context, org string, c *creation) (r record, found bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, found, err = s.get(ctx, org, c.Name)
	if err != nil {
		return r, false, err
	}
	open := func() bool { return found && r.UID == c.UID && (r.Phase == creating || r.Phase == undoing) }
	if !open() {
		return r, found && r.UID == c.UID, nil
	}
	watch := s.etcd.Watch(ctx, databaseKey(org, c.Name), clientv3.WithRev(r.revision+1))
	for open() {
		change, ok := <-watch
		if !ok || change.Err() != nil {
			return r, false, api.Errorf(api.Unavailable, "the creation under this idempotency key is still under way; try again")
		}
		for _, ev := range change.Events {
			r, found = record{revision: ev.Kv.ModRevision}, ev.Kv.Value != nil
			if found {
				if err := json.Unmarshal(ev.Kv.Value, &r); err != nil {
					return r, false, fmt.Errorf("decode %s: %w", ev.Kv.Key, err)
				}
			}
		}
	}
	return r, found && r.UID == c.UID, nil
}

// sweep forgets idempotency keys of long ago.
func (s *store) sweep(ctx context.Context) error {
	got, err := s.etcd.Get(ctx, creationPrefix, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read creations: %w", err)
	}
	for _, kv := range got.Kvs {
		var c creation
		if err := json.Unmarshal(kv.Value, &c); err != nil {
			return fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		if s.now().Sub(c.Made) < keepCreations {
			continue
		}
		if _, err := s.etcd.Delete(ctx, string(kv.Key)); err != nil {
			return fmt.Errorf("forget %s: %w", kv.Key, err)
		}
	}
	return nil
}

// Package etcd opens the store of a daemon's metadata: a member embedded in
// this process by default, or an external cluster.
//
// The embedded member listens nowhere: it has no neighbours, and its only
// client is this process, which calls it directly. So nobody else on the
// machine can read it, and there is no port to choose.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

// Config says which store to open.
type Config struct {
	// Dir is where the embedded member keeps its data. It must not be shared:
	// two members on one directory would corrupt it, so it is locked.
	Dir string

	// Endpoints of an external cluster. When there are any, Dir is not used.
	Endpoints []string

	// Prefix is put before every key in an external cluster, so that it can
	// serve several daemons. An embedded member has no need of it, and couldn't
	// have it: its watchers share the events in memory, and each of them would
	// take the prefix off.
	Prefix string
}

// History is how many revisions can still be read back, and so how far a
// watch may fall behind before it must start over.
const History = 20_000

// startTimeout bounds how long a member may take to recover its log.
const startTimeout = 30 * time.Second

// Store is an open store. The client is used directly.
type Store struct {
	*clientv3.Client
	server *embed.Etcd
	once   sync.Once
	err    error
}

// Open opens the store and returns when it answers.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{}
	if len(c.Endpoints) > 0 {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   c.Endpoints,
			DialTimeout: 5 * time.Second,
			Logger:      zap.NewNop(),
			Context:     context.WithoutCancel(ctx),
		})
		if err != nil {
			return nil, fmt.Errorf("connect to etcd: %w", err)
		}
		s.Client = client
		s.KV = namespace.NewKV(s.KV, c.Prefix)
		s.Watcher = namespace.NewWatcher(s.Watcher, c.Prefix)
		s.Lease = namespace.NewLease(s.Lease, c.Prefix)
	} else if err := s.embed(ctx, c.Dir); err != nil {
		return nil, fmt.Errorf("open embedded etcd in %s: %w", c.Dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := s.Get(ctx, "/"); err != nil {
		s.Close()
		return nil, fmt.Errorf("first read from etcd: %w", err)
	}
	return s, nil
}

func (s *Store) embed(ctx context.Context, dir string) error {
	if dir == "" {
		return errors.New("no directory given")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	// The member's own URL is a name only: nothing listens there.
	self := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	ec := embed.NewConfig()
	ec.Name = "vecino"
	ec.Dir = dir
	ec.ListenPeerUrls, ec.ListenClientUrls = nil, nil
	ec.AdvertisePeerUrls = []url.URL{self}
	ec.AdvertiseClientUrls = []url.URL{self}
	ec.InitialCluster = ec.Name + "=" + self.String()
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	// A lone member elects itself, so there is no reason to wait for others.
	ec.TickMs, ec.ElectionMs = 20, 100
	ec.AutoCompactionMode = embed.CompactorModeRevision
	ec.AutoCompactionRetention = fmt.Sprint(History)
	ec.SnapshotCount = 10_000

	server, err := embed.StartEtcd(ec)
	if err != nil {
		return err
	}
	select {
	case <-server.Server.ReadyNotify():
	case err = <-server.Err():
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(startTimeout):
		err = fmt.Errorf("not ready after %s", startTimeout)
	}
	if err != nil {
		server.Close()
		return err
	}
	s.server, s.Client = server, v3client.New(server.Server)
	return nil
}

// Close closes the client and, if it is embedded, the member. Watches end.
// Closing again does nothing.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.err = s.Client.Close()
		if s.server != nil {
			s.server.Close()
		}
		if errors.Is(s.err, context.Canceled) {
			s.err = nil // what an embedded client always says
		}
	})
	return s.err
}

package etcd

import (
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestEmbeddedStoreKeepsWhatWasWrittenAcrossAReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	s, err := Open(t.Context(), Config{Dir: dir, Prefix: "/a"})
	if err != nil {
		t.Fatal(err)
	}
	watches := []clientv3.WatchChan{ // two, since they share what they see
		s.Watch(t.Context(), "/k", clientv3.WithPrefix()), s.Watch(t.Context(), "/k", clientv3.WithPrefix()),
	}
	put, err := s.Put(t.Context(), "/k1", "v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, watch := range watches {
		ev := <-watch
		if len(ev.Events) != 1 || string(ev.Events[0].Kv.Key) != "/k1" || ev.Events[0].Kv.ModRevision != put.Header.Revision {
			t.Fatalf("watch saw %+v, want /k1 at revision %d", ev.Events, put.Header.Revision)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, err = Open(t.Context(), Config{Dir: dir, Prefix: "/a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	get, err := s.Get(t.Context(), "/k1")
	if err != nil {
		t.Fatal(err)
	}
	if len(get.Kvs) != 1 || string(get.Kvs[0].Value) != "v1" {
		t.Fatalf("read %v after reopening, want v1", get.Kvs)
	}
}

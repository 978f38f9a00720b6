package main

import (
	"errors"
	"strings"
	"testing"

	"vecino/api"
	"vecino/catalog"
)

func TestStagePlaysTheFleetToANode(t *testing.T) {
	b := &bench{ctx: t.Context(), dir: t.TempDir()}
	s, err := b.newStage("stage", 3, func(i int, d *catalog.Database) { d.Eviction = i == 1 })
	if err != nil {
		t.Fatal(err)
	}
	defer b.closeStage(s)
	f := api.NewFleet(s.url, stageToken)
	if err := f.RegisterNode(t.Context(), catalog.Node{ID: stageNode, Region: stageRegion, Proxy: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	var databases []catalog.Database
	nodes := 0
	err = f.WatchCatalog(t.Context(), 0, stageNode, func(e catalog.Event) error {
		switch {
		case e.Node != nil:
			nodes++
		case e.Database != nil:
			databases = append(databases, *e.Database)
		case e.Synced:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || nodes != 1 || len(databases) != 3 {
		t.Fatalf("%d nodes, %d databases, %v", nodes, len(databases), err)
	}
	for i, d := range databases {
		if c := d.CopyOn(stageNode); c == nil || c.Role != catalog.Primary || d.Eviction != (i == 1) || s.door(i).database != d.Address {
			t.Errorf("database %d is %+v", i, d)
		}
	}
	if d, err := f.OpenEpoch(t.Context(), databases[0].ID, stageNode); err != nil || d.Epoch <= databases[0].Epoch {
		t.Errorf("epoch %d, %v", d.Epoch, err)
	}
	if err := f.Report(t.Context(), stageNode, api.NodeReport{Copies: []api.CopyStatus{{Database: 1, State: catalog.Live}}}); err != nil || s.refused.Load() != 0 {
		t.Errorf("a report: %v, %d refused", err, s.refused.Load())
	}
	long := api.NodeReport{Copies: []api.CopyStatus{{Database: 1, Node: strings.Repeat("x", 9<<20)}}}
	if err := f.Report(t.Context(), stageNode, long); err == nil || s.refused.Load() != 1 {
		t.Errorf("a report that is too long: %v, %d refused", err, s.refused.Load())
	}
}

func TestStageComesFromManyAddresses(t *testing.T) {
	addr, header := fakeServer(t, func([]string) string { return "+PONG\r\n" })
	s := &stage{proxy: addr, databases: make([]catalog.Database, 3)}
	for i := range s.databases {
		s.databases[i].Address = testDoor.database
	}
	err := s.each(t.Context(), 3, 2, func(_ int, c *client) error {
		_, err := c.do("PING")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if h := header(); !strings.Contains(h, testDoor.database.String()) {
			t.Errorf("header %q", h)
		}
	}
	failure := errors.New("no")
	if err := s.each(t.Context(), 3, 2, func(int, *client) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
}

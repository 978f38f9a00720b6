package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"vecino/catalog"
)

type spec struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Schemas map[string]struct {
			Properties map[string]json.RawMessage
		}
	}
}

func readSpec(t *testing.T, file []byte) (s spec) {
	t.Helper()
	if err := yaml.Unmarshal(file, &s); err != nil {
		t.Fatal(err)
	}
	for ref := range strings.SplitSeq(string(file), `$ref: "#/components/schemas/`) {
		name, _, _ := strings.Cut(ref, `"`)
		if strings.HasPrefix(ref, "openapi:") {
			continue
		}
		if _, ok := s.Components.Schemas[name]; !ok {
			t.Errorf("schema %s is referred to and not there", name)
		}
	}
	return s
}

// fields lists the JSON fields of a struct, embedded ones included.
func fields(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			names = append(names, fields(f.Type)...)
		} else if name != "-" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestSpecsHaveTheFieldsOfTheTypes(t *testing.T) {
	for _, c := range []struct {
		file  []byte
		types map[string]any
	}{
		{FleetSpec, map[string]any{
			"RegionInfo": RegionInfo{}, "Plan": Plan{}, "Limits": Limits{}, "Position": Position{}, "Copy": catalog.Copy{}, "Database": catalog.Database{},
			"CopyStatus": CopyStatus{}, "NodeReport": NodeReport{}, "FleetDatabase": FleetDatabase{}, "FleetCreate": FleetCreate{}, "FleetUpdate": FleetUpdate{},
			"EpochRequest": EpochRequest{}, "Node": catalog.Node{}, "CatalogEvent": catalog.Event{},
		}},
		{PlatformSpec, map[string]any{
			"RegionInfo": RegionInfo{}, "Plan": Plan{}, "Limits": Limits{}, "Position": Position{}, "Organization": Organization{}, "CreateDatabase": CreateDatabase{},
			"UpdateDatabase": UpdateDatabase{}, "Database": Database{}, "Endpoint": Endpoint{}, "Edge": Edge{}, "EdgeSettings": EdgeSettings{},
			"Serving": Serving{}, "Route": Route{}, "RouteEvent": RouteEvent{},
		}},
	} {
		s := readSpec(t, c.file)
		for name, v := range c.types {
			want := fields(reflect.TypeOf(v))
			got := slices.Sorted(maps.Keys(s.Components.Schemas[name].Properties))
			if !slices.Equal(got, want) {
				t.Errorf("%s in the OpenAPI file has the fields\n%v, the type has\n%v", name, got, want)
			}
		}
	}
}

func TestErrorsOfAnythingBecomeErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   Error
	}{
		{422, `{"error":{"code":"invalid","message":"m","choices":["a"]}}`, Error{Code: Invalid, Message: "m", Choices: []string{"a"}}},
		{404, `not here`, Error{Code: NotFound, Message: "404 Not Found: not here"}},
		{502, `<html>`, Error{Code: Unavailable, Message: "502 Bad Gateway: <html>"}},
		{500, `{"error":{}}`, Error{Code: Internal, Message: `500 Internal Server Error: {"error":{}}`}},
		{401, ``, Error{Code: Unauthorized, Message: "401 Unauthorized: "}},
	} {
		if got := decodeError(c.status, []byte(c.body)); !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%d %s is %+v, want %+v", c.status, c.body, *got, c.want)
		}
	}
}

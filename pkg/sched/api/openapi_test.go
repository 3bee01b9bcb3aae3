package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// object is a mapping of the description, or of an answer.
type object = map[string]any

func description(t *testing.T) object {
	t.Helper()
	text, err := os.ReadFile("../../../doc/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d object
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// at goes down a description by keys; what a $ref names stands for it.
func at(t *testing.T, d object, from any, keys ...string) any {
	t.Helper()
	for {
		here, _ := from.(object)
		if ref, ok := here["$ref"].(string); ok {
			from = at(t, d, d, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			continue
		}
		if len(keys) == 0 {
			return from
		}
		if here[keys[0]] == nil {
			t.Fatalf("the description has no %q where it should; there are %v", keys[0], slices.Sorted(maps.Keys(here)))
		}
		from, keys = here[keys[0]], keys[1:]
	}
}

// Each endpoint is described, and each that is described is there.
func TestEndpointsAreDescribed(t *testing.T) {
	s, _ := server(t, newFake())
	var have, described []string
	for _, e := range s.endpoints(time.Now) {
		have = append(have, e.method+" "+e.path)
	}
	d := description(t)
	for path, methods := range at(t, d, d, "paths").(object) {
		for method := range methods.(object) {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(have)
	slices.Sort(described)
	if !slices.Equal(have, described) {
		t.Errorf("there are\n%s\ndescribed are\n%s", strings.Join(have, "\n"), strings.Join(described, "\n"))
	}
}

// What a running server answers is as it is described: the code, the type, and each field.
func TestAnswersAreDescribed(t *testing.T) {
	_, url := server(t, newFake())
	d := description(t)
	for _, test := range []struct {
		method, path, described, token string
		code                           int
	}{
		{"GET", "/v1/status", "", "right", 200},
		{"GET", "/v1/status?filter=nothing", "/v1/status", "right", 200},
		{"GET", "/v1/status?filter=(", "/v1/status", "right", 400},
		{"GET", "/v1/status", "", "wrong", 401},
		{"GET", "/v1/jobs", "", "right", 200},
		{"GET", "/v1/backups", "", "right", 200},
		{"GET", "/healthz", "", "", 200},
		{"GET", "/metrics", "", "right", 200},
		{"POST", "/v1/jobs/x/run", "/v1/jobs/{name}/run", "right", 202},
		{"POST", "/v1/runall", "", "right", 202},
		{"POST", "/v1/reload", "", "right", 204},
	} {
		if test.described == "" {
			test.described = test.path
		}
		a, body := ask(t, test.method, url+test.path, "Bearer "+test.token)
		if a.StatusCode != test.code {
			t.Errorf("%s: %s", test.path, a.Status)
			continue
		}
		responses := at(t, d, d, "paths", test.described, strings.ToLower(test.method), "responses").(object)
		if err := conforms(t, d, responses, a, body); err != nil {
			t.Errorf("%s %s, %s: %v\n%s", test.method, test.path, a.Status, err, body)
		}
	}
}

// conforms compares an answer with the description of its endpoint's responses.
func conforms(t *testing.T, d, responses object, a *http.Response, body string) error {
	t.Helper()
	response := at(t, d, responses, fmt.Sprint(a.StatusCode)).(object)
	if response["content"] == nil {
		if body != "" {
			return fmt.Errorf("it has a body")
		}
		return nil
	}
	kind, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	schema := at(t, d, response, "content", kind, "schema")
	var value any = body
	if kind == "application/json" {
		if err := json.Unmarshal([]byte(body), &value); err != nil {
			return err
		}
	}
	return check(t, d, "it", schema, value)
}

// check compares a value with its schema, as far as the description uses such.
func check(t *testing.T, d object, name string, schema, value any) error {
	t.Helper()
	s := at(t, d, schema).(object)
	types, ok := s["type"].([]any)
	if !ok {
		types = []any{s["type"]}
	}
	if !slices.Contains(types, any(kind(value))) && !(kind(value) == "integer" && slices.Contains(types, any("number"))) {
		return fmt.Errorf("%s is of type %s, described is %v", name, kind(value), types)
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, value) {
		return fmt.Errorf("%s is %v, described is %v", name, value, enum)
	}
	if s["format"] == "date-time" && value != nil {
		if _, err := time.Parse(time.RFC3339, value.(string)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	switch v := value.(type) {
	case []any:
		for i, item := range v {
			if err := check(t, d, fmt.Sprintf("%s[%d]", name, i), s["items"], item); err != nil {
				return err
			}
		}
	case object:
		properties := at(t, d, s, "properties").(object)
		for _, key := range s["required"].([]any) {
			if _, ok := v[key.(string)]; !ok {
				return fmt.Errorf("%s has no %s", name, key)
			}
		}
		for key, field := range v {
			if properties[key] == nil {
				return fmt.Errorf("%s has a %s, which is not described", name, key)
			}
			if err := check(t, d, name+"."+key, properties[key], field); err != nil {
				return err
			}
		}
	}
	return nil
}

// kind is the type of a JSON value as a schema calls it.
func kind(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	}
	return "object"
}

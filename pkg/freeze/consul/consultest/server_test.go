package consultest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// What the documentation shows, and what it rules out.
func TestDocumented(t *testing.T) {
	s := Start(t, "secret")
	for _, c := range []struct {
		method, path, token, body string
		code                      int
		want                      string
	}{
		{"GET", "/v1/kv/zip", "secret", "", 404, ""},
		{"PUT", "/v1/kv/zip?flags=42", "secret", "test", 200, "true"},
		{"GET", "/v1/kv/zip", "secret", "", 200, `[{"LockIndex":0,"Key":"zip","Flags":42,"Value":"dGVzdA==","CreateIndex":11,"ModifyIndex":11}]`},
		{"GET", "/v1/kv/zip?raw", "secret", "", 200, "test"},
		{"PUT", "/v1/kv/zip?cas=0", "secret", "new", 200, "false"},
		{"PUT", "/v1/kv/zip?cas=11", "secret", "", 200, "true"},
		{"GET", "/v1/kv/zip", "secret", "", 200, `[{"LockIndex":0,"Key":"zip","Flags":0,"Value":null,"CreateIndex":11,"ModifyIndex":12}]`},
		{"PUT", "/v1/kv/web/bar?cas=0", "secret", "1", 200, "true"},
		{"PUT", "/v1/kv/web/subdir/foo", "secret", "2", 200, "true"},
		{"GET", "/v1/kv/web/?keys&separator=/", "secret", "", 200, `["web/bar","web/subdir/"]`},
		{"GET", "/v1/kv/web?recurse", "secret", "", 200, `[{"LockIndex":0,"Key":"web/bar","Flags":0,"Value":"MQ==","CreateIndex":13,"ModifyIndex":13},` +
			`{"LockIndex":0,"Key":"web/subdir/foo","Flags":0,"Value":"Mg==","CreateIndex":14,"ModifyIndex":14}]`},
		{"GET", "/v1/kv/nothing?recurse", "secret", "", 404, ""},
		{"DELETE", "/v1/kv/zip?cas=1", "secret", "", 200, "false"},
		{"DELETE", "/v1/kv/zip", "secret", "", 200, "true"},
		{"DELETE", "/v1/kv/zip", "secret", "", 200, "true"},
		{"DELETE", "/v1/kv/web?recurse", "secret", "", 200, "true"},
		{"GET", "/v1/kv/nothing?keys", "secret", "", 404, ""},
		{"GET", "/v1/kv/zip", "", "", 403, "Permission denied"},
		{"PUT", "/v1/kv/zip", "guess", "x", 403, "ACL not found"},
	} {
		s.wants(t, c.method, c.path, c.token, c.body, c.code, c.want)
	}
	if len(s.wrong) > 0 {
		t.Errorf("refused: %s", s.wrong)
	}
	refused := []struct {
		method, path, body string
		code               int
	}{
		{"POST", "/v1/kv/zip", "test", 405},
		{"GET", "/kv/zip", "", 404},
		{"GET", "/v1/kv/zip?token=secret", "", 400},
		{"GET", "/v1/kv/", "", 400},
		{"GET", "/v1/kv/a%0ab", "", 400},
		{"GET", "/v1/kv/a?separator=/", "", 400},
		{"PUT", "/v1/kv/", "x", 400},
		{"PUT", "/v1/kv/a?recurse", "x", 400},
		{"PUT", "/v1/kv/a?cas=x", "x", 400},
		{"PUT", "/v1/kv/a", strings.Repeat("x", maxValue+1), 413},
		{"DELETE", "/v1/kv/", "", 400},
		{"DELETE", "/v1/kv/a?cas=0", "", 400},
	}
	for _, c := range refused {
		s.wants(t, c.method, c.path, "secret", c.body, c.code, "")
	}
	if len(s.wrong) != len(refused) {
		t.Errorf("%d of %d were noted: %s", len(s.wrong), len(refused), s.wrong)
	}
	s.wrong = nil
}

func (s *Server) wants(t *testing.T, method, path, token, body string, code int, want string) {
	t.Helper()
	r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("X-Consul-Token", token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != code || !strings.HasPrefix(string(text), want) || code == 200 && string(text) != want {
		t.Errorf("%s %s: %d %s %v, want %d %s", method, path, answer.StatusCode, text, err, code, want)
	}
	if header := fmt.Sprint(answer.Header); code == 200 && method == "GET" && (!strings.Contains(header, "X-Consul-Index:[1") || !strings.Contains(header, "X-Consul-Lastcontact:[0]")) {
		t.Errorf("%s %s: %s", method, path, header)
	}
}

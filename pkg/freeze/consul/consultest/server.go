// Package consultest stands in for Consul in tests: a server of its key/value store on 127.0.0.1, with the methods, paths,
// parameters, headers and codes that Consul's HTTP API documentation tells of (KV Store, Authentication, Blocking Queries),
// and nothing else: what the documentation does not allow is refused, and noted. Consul 1.20.6 answers what TestDocumented
// asks in the same way, but for numbers of indexes, and but for parameters without a meaning, some of which it takes.
package consultest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// maxValue is the largest value, in bytes.
const maxValue = 512 << 10

// Server is a Consul with ACLs whose default is to deny.
type Server struct {
	URL   string
	Token string // the one that may do all
	mu    sync.Mutex
	pairs map[string]pair
	index uint64   // of the last change
	wrong []string // requests that the documentation does not allow
}

type pair struct {
	created, modified, flags uint64
	value                    []byte
}

// Start starts a server that ends with the test.
func Start(t testing.TB, token string) *Server {
	s := &Server{Token: token, pairs: map[string]pair{}, index: 10}
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		h.Close()
		for _, w := range s.wrong {
			t.Errorf("Consul's documentation does not allow it: %s", w)
		}
	})
	s.URL = h.URL
	return s
}

// Keys are the keys that begin with a prefix, in order.
func (s *Server) Keys(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.pairs {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Value is what stands at a key, or "".
func (s *Server) Value(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.pairs[key].value)
}

// Put writes to a key.
func (s *Server) Put(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(key, []byte(value), 0)
}

func (s *Server) put(key string, value []byte, flags uint64) {
	s.index++
	p := pair{s.index, s.index, flags, value}
	if old, ok := s.pairs[key]; ok {
		p.created = old.created
	}
	s.pairs[key] = p
}

// parameters are those that each method takes, and that this server knows. dc and ns name others than its own.
var parameters = map[string][]string{
	http.MethodGet:    {"recurse", "raw", "keys", "separator", "pretty", "stale", "consistent"},
	http.MethodPut:    {"flags", "cas", "pretty"},
	http.MethodDelete: {"recurse", "cas", "pretty"},
}

// refuse answers with an error, and notes what was wrong with the request.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, code int, format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	s.wrong = append(s.wrong, r.Method+" "+r.URL.Path+": "+why)
	http.Error(w, why, code)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("X-Consul-Default-Acl-Policy", "deny")
	key, ok := strings.CutPrefix(r.URL.Path, "/v1/kv/")
	allowed, known := parameters[r.Method]
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case !ok:
		s.refuse(w, r, http.StatusNotFound, "there is nothing at this path")
		return
	case !known:
		w.Header().Set("Allow", "OPTIONS,GET,PUT,DELETE")
		s.refuse(w, r, http.StatusMethodNotAllowed, "method %s not allowed", r.Method)
		return
	case err != nil || strings.ContainsAny(key, "\n\r") || strings.HasPrefix(key, "/"):
		s.refuse(w, r, http.StatusBadRequest, "a key or query that cannot be")
		return
	}
	for name := range query {
		if !slices.Contains(allowed, name) { // a token among them: it would stand in logs
			s.refuse(w, r, http.StatusBadRequest, "no parameter %s of %s is known here", name, r.Method)
			return
		}
	}
	if !s.allowed(w, r) {
		return
	}
	switch r.Method {
	case http.MethodGet:
		s.serveGet(w, r, key, query)
	case http.MethodPut:
		s.servePut(w, r, key, query)
	case http.MethodDelete:
		s.serveDelete(w, r, key, query)
	}
}

// allowed looks at the token, in either of its headers. Without one it is the anonymous, which may do nothing.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request) bool {
	token := r.Header.Get("X-Consul-Token")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && token == "" {
		token = bearer
	}
	switch token {
	case s.Token:
		return true
	case "":
		http.Error(w, "Permission denied: anonymous token lacks permission 'key:read' on \"snapshot\"", http.StatusForbidden)
	default:
		http.Error(w, "ACL not found", http.StatusForbidden)
	}
	return false
}

func (s *Server) serveGet(w http.ResponseWriter, r *http.Request, key string, query url.Values) {
	recurse, keys, raw := query.Has("recurse"), query.Has("keys"), query.Has("raw")
	if raw && (recurse || keys) || query.Has("separator") && !keys || query.Has("stale") && query.Has("consistent") || key == "" && !recurse && !keys {
		s.refuse(w, r, http.StatusBadRequest, "parameters that do not go together: %s", query.Encode())
		return
	}
	type entry struct {
		LockIndex   uint64
		Key         string
		Flags       uint64
		Value       []byte // in base64; null where it is empty
		CreateIndex uint64
		ModifyIndex uint64
	}
	var found []entry
	for k, p := range s.pairs {
		if k == key || (recurse || keys) && strings.HasPrefix(k, key) {
			if len(p.value) == 0 {
				p.value = nil
			}
			found = append(found, entry{0, k, p.flags, p.value, p.created, p.modified})
		}
	}
	slices.SortFunc(found, func(a, b entry) int { return strings.Compare(a.Key, b.Key) })
	index := s.index
	for i, e := range found {
		if i == 0 || e.ModifyIndex > index {
			index = e.ModifyIndex
		}
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Consul-Knownleader", "true")
	w.Header().Set("X-Consul-Lastcontact", "0")
	switch {
	case len(found) == 0:
		w.WriteHeader(http.StatusNotFound)
	case raw:
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(found[0].Value)
	case keys:
		var names []string
		for _, e := range found {
			name := e.Key
			if sep := query.Get("separator"); sep != "" {
				if i := strings.Index(name[len(key):], sep); i >= 0 {
					name = name[:len(key)+i+len(sep)]
				}
			}
			names = append(names, name)
		}
		answer(w, slices.Compact(names))
	default:
		answer(w, found)
	}
}

func (s *Server) servePut(w http.ResponseWriter, r *http.Request, key string, query url.Values) {
	value, err := io.ReadAll(io.LimitReader(r.Body, maxValue+1))
	flags, flagsErr := number(query, "flags")
	cas, casErr := number(query, "cas")
	switch {
	case key == "":
		s.refuse(w, r, http.StatusBadRequest, "Missing key name")
	case err != nil || flagsErr != nil || casErr != nil:
		s.refuse(w, r, http.StatusBadRequest, "%v %v %v", err, flagsErr, casErr)
	case len(value) > maxValue:
		s.refuse(w, r, http.StatusRequestEntityTooLarge, "the value is larger than %d bytes", maxValue)
	case query.Has("cas") && cas != s.pairs[key].modified: // 0 is: only if it is not there
		answer(w, false)
	default:
		s.put(key, value, flags)
		answer(w, true)
	}
}

func (s *Server) serveDelete(w http.ResponseWriter, r *http.Request, key string, query url.Values) {
	cas, err := number(query, "cas")
	recurse := query.Has("recurse")
	switch {
	case key == "" && !recurse:
		s.refuse(w, r, http.StatusBadRequest, "Missing key name")
	case err != nil || recurse && query.Has("cas") || query.Has("cas") && cas == 0:
		s.refuse(w, r, http.StatusBadRequest, "cas and recurse that cannot be: %s", query.Encode())
	case query.Has("cas") && cas != s.pairs[key].modified:
		answer(w, false)
	default:
		s.index++
		for k := range s.pairs {
			if k == key || recurse && strings.HasPrefix(k, key) {
				delete(s.pairs, k)
			}
		}
		answer(w, true)
	}
}

func number(query url.Values, name string) (uint64, error) {
	if !query.Has(name) {
		return 0, nil
	}
	return strconv.ParseUint(query.Get(name), 10, 64)
}

// answer writes JSON, without spaces.
func answer(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"backy/pkg/freeze"
	"backy/pkg/freeze/consul"
	"backy/pkg/freeze/consul/consultest"
)

const token = "00000000-1111-2222-3333-444444444444"

// rig is a machine whose host makes snapshots that are asked for, and a clock that moves only when somebody waits.
type rig struct {
	t     *testing.T
	kv    *consultest.Server
	vm    *consul.VM
	now   time.Time
	waits []string
	said  bytes.Buffer

	answers time.Duration // when the host makes the snapshot, after the request; 0 is never
	there   bool
	by      string // who made the snapshot
	seen    consul.Request
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, kv: consultest.Start(t, token), now: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)}
	t.Setenv("CONSUL_HTTP_ADDR", r.kv.URL)
	t.Setenv("CONSUL_HTTP_TOKEN", token)
	r.connect()
	return r
}

func (r *rig) connect() {
	begun := r.now
	vm, err := consul.New("vm1", func() time.Time { return r.now }, slog.New(slog.NewTextHandler(&r.said, nil)))
	if err != nil {
		r.t.Fatal(err)
	}
	vm.Sleep = func(ctx context.Context, d time.Duration) error {
		r.now = r.now.Add(d)
		r.waits = append(r.waits, d.String())
		r.look()
		if r.answers > 0 && r.now.Sub(begun) >= r.answers && !r.there {
			r.there, r.by = true, "host"
		}
		return context.Cause(ctx)
	}
	r.vm = vm
}

var uuid4 = regexp.MustCompile(`^snapshot/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// look is what the host does: it finds the request for its machine.
func (r *rig) look() {
	for _, key := range r.kv.Keys(consul.Prefix) {
		var q consul.Request
		if json.Unmarshal([]byte(r.kv.Value(key)), &q) == nil && q.VM == "vm1" {
			r.seen = q
			if !uuid4.MatchString(key) {
				r.t.Errorf("key %s", key)
			}
		}
	}
}

func (r *rig) around(ctx context.Context) error {
	return r.vm.Around(ctx, freeze.Snapshot{
		Name: "backy-x",
		Make: func(context.Context) error {
			if r.there {
				return fmt.Errorf("snapshot: %w", fs.ErrExist)
			}
			r.there, r.by = true, "us"
			return nil
		},
		There: func(context.Context) (bool, error) { return r.there, nil },
	})
}

func (r *rig) want(by, warning string) {
	r.t.Helper()
	if r.by != by {
		r.t.Errorf("made by %q, want %q", r.by, by)
	}
	if said := r.said.String(); strings.Contains(said, "level=WARN") != (warning != "") || !strings.Contains(said, warning) {
		r.t.Errorf("said\n%s, want %q", said, warning)
	}
	if strings.Contains(r.said.String(), token) {
		r.t.Error("the token was said")
	}
	for _, key := range r.kv.Keys("") {
		if strings.Contains(r.kv.Value(key), "vm1") {
			r.t.Errorf("%s stays: %s", key, r.kv.Value(key))
		}
	}
}

func TestHostFreezes(t *testing.T) {
	r := newRig(t)
	r.answers = 6 * time.Second
	if err := r.around(t.Context()); err != nil {
		t.Error(err)
	}
	r.want("host", "")
	if got := strings.Join(r.waits, " "); got != "3s 2s 2s" {
		t.Error(got)
	}
	if r.seen != (consul.Request{VM: "vm1", Snapshot: "backy-x"}) {
		t.Errorf("asked for %+v", r.seen)
	}
}

// The request is what the hosts know.
func TestRequest(t *testing.T) {
	text, err := json.Marshal(consul.Request{VM: "vm1", Snapshot: "backy-x"})
	if err != nil || string(text) != `{"vm":"vm1","snapshot":"backy-x"}` {
		t.Errorf("%s %v", text, err)
	}
}

// Who waits in vain makes the snapshot of a disk in use, and says so.
func TestHostDoesNotAnswer(t *testing.T) {
	r := newRig(t)
	if err := r.around(t.Context()); err != nil {
		t.Error(err)
	}
	r.want("us", "nobody has made the snapshot within 1m30s")
	if waited := r.now.Sub(time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)); waited != 89*time.Second || len(r.waits) != 44 {
		t.Errorf("waited %s, %d times", waited, len(r.waits))
	}
}

// It comes at the last moment, after the last look.
func TestHostIsLate(t *testing.T) {
	r := newRig(t)
	err := r.vm.Around(t.Context(), freeze.Snapshot{
		Name: "backy-x", Make: func(context.Context) error { r.by = "host"; return fs.ErrExist },
		There: func(context.Context) (bool, error) { return false, nil },
	})
	if err != nil {
		t.Error(err)
	}
	r.want("host", "level=WARN")
}

// Requests of a backup that was killed are removed first; those of other machines, and what is no request, are left alone.
func TestOldRequests(t *testing.T) {
	r := newRig(t)
	r.answers = time.Second
	r.kv.Put("snapshot/1", `{"vm": "vm1", "snapshot": "backy-old"}`)
	r.kv.Put("snapshot/2", `{"vm": "vm2", "snapshot": "backy-old"}`)
	r.kv.Put("snapshot/3", `vm 1?`)
	r.kv.Put("snapshots/vm", `{"vm": "vm3"}`)
	if err := r.around(t.Context()); err != nil {
		t.Error(err)
	}
	r.want("host", "")
	if got := strings.Join(r.kv.Keys(""), " "); got != "snapshot/2 snapshot/3 snapshots/vm" {
		t.Error(got)
	}
	if r.seen.Snapshot != "backy-x" {
		t.Errorf("the host saw %+v", r.seen)
	}
}

func TestConsulRefuses(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ token, want string }{{"wrong", "403 (ACL not found)"}, {"", "403 (Permission denied"}} {
		t.Setenv("CONSUL_HTTP_TOKEN", c.token)
		r.connect()
		r.there = false
		if err := r.around(t.Context()); err != nil {
			t.Error(err)
		}
		r.want("us", c.want)
	}
	if len(r.waits) > 0 {
		t.Errorf("waited in vain: %s", r.waits)
	}
}

func TestNoConsul(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", l.Addr().String())
	l.Close()
	r.connect()
	if err := r.around(t.Context()); err != nil {
		t.Error(err)
	}
	r.want("us", "connection refused")
}

// The image cannot be asked: then it is Make's to say what is wrong.
func TestNobodyKnows(t *testing.T) {
	r := newRig(t)
	wrong := errors.New("the cluster does not answer")
	err := r.vm.Around(t.Context(), freeze.Snapshot{
		Name: "backy-x", Make: func(context.Context) error { return wrong },
		There: func(context.Context) (bool, error) { return false, wrong },
	})
	if !errors.Is(err, wrong) {
		t.Error(err)
	}
	r.want("", "the cluster does not answer")
}

// Ctrl-C takes the request away, and makes nothing.
func TestCancelled(t *testing.T) {
	r := newRig(t)
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	wait := r.vm.Sleep
	r.vm.Sleep = func(ctx context.Context, d time.Duration) error {
		if len(r.waits) == 2 {
			if keys := r.kv.Keys(consul.Prefix); len(keys) != 1 {
				t.Errorf("requests %s", keys)
			}
			cancel(stop)
		}
		return wait(ctx, d)
	}
	if err := r.around(ctx); !errors.Is(err, stop) {
		t.Error(err)
	}
	r.want("", "")
}

// Consul goes away while it is waited for: the request stays, and the snapshot of the host counts.
func TestConsulGoesAway(t *testing.T) {
	r := newRig(t)
	front := httptest.NewServer(r.kv)
	t.Setenv("CONSUL_HTTP_ADDR", front.URL)
	r.connect()
	r.answers = 6 * time.Second
	wait := r.vm.Sleep
	r.vm.Sleep = func(ctx context.Context, d time.Duration) error {
		if len(r.waits) == 1 {
			front.CloseClientConnections()
			front.Close()
		}
		return wait(ctx, d)
	}
	if err := r.around(t.Context()); err != nil {
		t.Error(err)
	}
	if r.by != "host" || !strings.Contains(r.said.String(), "the request to freeze stays in Consul, until the next backup") || len(r.kv.Keys("snapshot/")) != 1 {
		t.Errorf("%s %s %s", r.by, r.said.String(), r.kv.Keys(""))
	}
}

// Package consul freezes the file systems of a virtual machine by way of Consul: a request in its key/value store is seen by
// who looks after the machine, who freezes it, makes the snapshot, and thaws it.
package consul

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/hashicorp/consul/api"

	"backy/pkg/freeze"
)

// Prefix is where the requests are: at a key of Prefix and a UUID.
const Prefix = "snapshot/"

// Request is what stands there, as JSON.
type Request struct {
	VM       string `json:"vm"`
	Snapshot string `json:"snapshot"`
}

// How long the snapshot is waited for: first, between two looks, and in all.
const (
	FirstWait = 3 * time.Second
	NextWait  = 2 * time.Second
	Patience  = 90 * time.Second
)

// askLimit is how long Consul may take for one answer.
const askLimit = 10 * time.Second

// VM is a freeze.Freezer that asks for the snapshot of a virtual machine. If it does not come, or Consul cannot be asked,
// the snapshot is made as it is, with a warning.
type VM struct {
	Name  string // of the machine
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error // nil is a real one
	Log   *slog.Logger
	kv    *api.KV
}

// New returns a VM that asks the Consul that the environment names, as Consul's own tools do: CONSUL_HTTP_ADDR,
// CONSUL_HTTP_TOKEN and so on. It does not connect yet.
func New(name string, now func() time.Time, log *slog.Logger) (*VM, error) {
	c, err := api.NewClient(api.DefaultNonPooledConfig())
	if err != nil {
		return nil, fmt.Errorf("Consul: %w", err)
	}
	return &VM{Name: name, Now: now, Sleep: sleep, Log: log, kv: c.KV()}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Around asks for the snapshot and waits for it. The request does not stay, whatever becomes of it; that of one who was
// killed is removed by the next.
func (v *VM) Around(ctx context.Context, s freeze.Snapshot) error {
	there, why := v.request(ctx, s)
	switch {
	case there:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	v.Log.WarnContext(ctx, "the file systems of the virtual machine are not frozen; the snapshot is made all the same, of a disk in use", "vm", v.Name, "reason", why)
	err := s.Make(ctx)
	if errors.Is(err, fs.ErrExist) { // it has come after all
		return nil
	}
	return err
}

// request has the snapshot made by who looks after the machine. Where it was not, why tells the reason.
func (v *VM) request(ctx context.Context, s freeze.Snapshot) (there bool, why error) {
	if err := v.removeOld(ctx); err != nil {
		return false, err
	}
	text, err := json.Marshal(Request{v.Name, s.Name})
	if err != nil {
		return false, err
	}
	key := Prefix + uuid()
	defer func() {
		if err := v.remove(context.WithoutCancel(ctx), key); err != nil {
			v.Log.WarnContext(ctx, "the request to freeze stays in Consul, until the next backup of the virtual machine", "vm", v.Name, "key", key, "error", err)
		}
	}()
	if err := v.put(ctx, key, text); err != nil {
		return false, err
	}
	begun := v.Now()
	for wait := FirstWait; v.Now().Add(wait).Sub(begun) <= Patience; wait = NextWait {
		if err := v.Sleep(ctx, wait); err != nil {
			return false, err
		}
		there, err := s.There(ctx)
		switch {
		case err != nil:
			return false, err
		case there:
			v.Log.InfoContext(ctx, "the snapshot was made while the file systems of the virtual machine were frozen", "vm", v.Name, "snapshot", s.Name, "waited", v.Now().Sub(begun).Round(time.Millisecond))
			return true, nil
		}
	}
	return false, fmt.Errorf("nobody has made the snapshot within %s", Patience)
}

// removeOld removes the requests of this machine that are there: of who asked before and was killed.
func (v *VM) removeOld(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	pairs, _, err := v.kv.List(Prefix, new(api.QueryOptions).WithContext(asking))
	if err != nil {
		return fmt.Errorf("Consul does not tell what was asked for before: %w", err)
	}
	for _, p := range pairs {
		var old Request
		if json.Unmarshal(p.Value, &old) != nil || old.VM != v.Name {
			continue // someone else's
		}
		if err := v.remove(ctx, p.Key); err != nil {
			return fmt.Errorf("Consul keeps what was asked for before: %w", err)
		}
		v.Log.InfoContext(ctx, "removed an old request to freeze the virtual machine", "vm", v.Name, "snapshot", old.Snapshot)
	}
	return nil
}

// put writes a key that is not there yet.
func (v *VM) put(ctx context.Context, key string, value []byte) error {
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	ok, _, err := v.kv.CAS(&api.KVPair{Key: key, Value: value}, new(api.WriteOptions).WithContext(asking))
	if err == nil && !ok {
		err = errors.New("it says no")
	}
	if err != nil {
		return fmt.Errorf("Consul does not take the request: %w", err)
	}
	return nil
}

func (v *VM) remove(ctx context.Context, key string) error {
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	_, err := v.kv.Delete(key, new(api.WriteOptions).WithContext(asking))
	return err
}

// uuid is a random one (version 4).
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

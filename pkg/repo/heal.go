package repo

import (
	"context"
	"fmt"
	"os"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/object/dir"
)

// Healer is a session that puts good copies in the place of bad objects.
type Healer struct {
	repo    *Repo
	id      string
	session *Session
	fs      *os.File
	pool    *dir.Writer
	healed  []object.Key
	check   map[object.Kind]*object.Decoder
}

// NewHealer begins a session that heals.
func (r *Repo) NewHealer() (*Healer, error) {
	if err := checkMount(r.Base); err != nil {
		return nil, err
	}
	h := &Healer{repo: r, id: NewID(), check: map[object.Kind]*object.Decoder{}}
	for kind, limit := range map[object.Kind]int{object.Chunk: MaxBlock, object.Page: blockmap.MaxPage} {
		dec, err := object.NewDecoder(limit)
		if err != nil {
			return nil, err
		}
		h.check[kind] = dec
	}
	var err error
	if h.fs, err = os.Open(r.path()); err != nil {
		return nil, err
	}
	if err = os.Mkdir(r.path("tmp", h.id), 0o750); err == nil {
		if h.session, err = r.register(h.id, kindWriter, object.Name{}, ""); err != nil && gone(r.path("tmp", h.id)) {
			h.Close()
			return r.NewHealer() // a purge took it for left over: once more, as another session
		}
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("start a session in %s: %w", r.Base, err)
	}
	h.pool = r.pool.Writer(r.path("tmp", h.id), r.Ops)
	return h, nil
}

// Put checks a copy of an object against its name and puts it in place, over what is there. A copy that is bad itself is
// an *object.BadError. The frame is the caller's again afterwards.
func (h *Healer) Put(ctx context.Context, key object.Key, frame []byte) error {
	if _, err := h.check[key.Kind].Decode(key, nil, frame); err != nil {
		return err
	}
	h.healed = append(h.healed, key)
	return h.pool.Put(ctx, key, frame)
}

// Finish makes what was put durable, reads it back, and takes the marks away.
func (h *Healer) Finish(ctx context.Context) error {
	if len(h.healed) == 0 {
		return nil
	}
	if err := h.pool.Publish(ctx); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	if err := h.repo.Ops.FS(h.fs); err != nil {
		return fmt.Errorf("make healed objects durable: %w", err)
	}
	for _, key := range h.healed {
		if _, _, err := object.Fetch(ctx, h.pool, h.check[key.Kind], key, nil, nil); err != nil {
			return fmt.Errorf("read back what was to replace a bad object: %w", err)
		}
		if err := h.repo.Unmark(key); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the session. What was not finished is not healed.
func (h *Healer) Close() {
	if h.pool != nil {
		h.pool.Close()
	}
	_ = os.RemoveAll(h.repo.path("tmp", h.id)) // what is left is purge's
	h.session.Close()
	if h.fs != nil {
		h.fs.Close()
	}
}

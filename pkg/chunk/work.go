package chunk

import (
	"context"
	"fmt"

	"backy/pkg/extent"
	"backy/pkg/object"
)

// stock holds the pieces with their buffers, and a set of tools for each worker. There are never more than n pieces with
// content, so it is what bounds the memory.
type stock struct {
	*stage
	pieces chan *piece
	tools  chan *tools
}

// tools are what a worker needs for itself.
type tools struct {
	enc     *object.Encoder
	dec     *object.Decoder
	frame   []byte
	content []byte
}

func newStock(s *stage, n, workers int) (*stock, error) {
	st := &stock{s, make(chan *piece, n), make(chan *tools, workers)}
	for range n {
		st.pieces <- new(piece)
	}
	for range workers {
		enc, err := object.NewEncoder()
		if err != nil {
			return nil, err
		}
		dec, err := object.NewDecoder(int(s.block))
		if err != nil {
			return nil, err
		}
		st.tools <- &tools{enc: enc, dec: dec}
	}
	return st, nil
}

// get waits for a piece to be free.
func (st *stock) get(ctx context.Context) (*piece, error) {
	select {
	case b := <-st.pieces:
		if b.content == nil {
			b.content = make([]byte, st.block)
		}
		return b, nil
	case <-ctx.Done():
		return nil, errStopped
	}
}

// put takes a piece back; runs are not from here.
func (st *stock) put(b *piece) {
	if b.content != nil {
		st.pieces <- b
	}
}

// work completes, names, looks up and compresses a block.
func (st *stock) work(ctx context.Context, b *piece) error {
	if b.run > 0 {
		return nil
	}
	t := <-st.tools // there are as many as workers
	defer func() { st.tools <- t }()
	if err := st.complete(ctx, t, b); err != nil {
		return err
	}
	b.send = false
	if extent.IsZero(b.content) {
		b.name = object.Name{}
		return nil
	}
	b.name = object.Sum(b.content)
	there, err := st.look.has(ctx, object.Key{Kind: object.Chunk, Name: b.name}, b.block)
	if err != nil || there {
		return err
	}
	b.send = true
	b.frame, err = t.enc.Encode(b.frame[:0], b.content)
	return err
}

// complete fills the gaps of a block from the base.
func (st *stock) complete(ctx context.Context, t *tools, b *piece) error {
	if b.base.IsZero() {
		for _, g := range b.gaps {
			clear(b.content[g.from:g.to])
		}
		return nil
	}
	key := object.Key{Kind: object.Chunk, Name: b.base}
	old, frame, err := object.Fetch(ctx, st.Repo.Objects(), t.dec, key, t.frame, t.content)
	t.frame, t.content = frame, old
	if err == nil && int64(len(old)) != st.block {
		err = &object.BadError{Key: key, Reason: "it is no block of the base"}
	}
	if err != nil {
		if err := st.lost(key, err); err != nil {
			return fmt.Errorf("complete block %d from the base: %w", b.block, err)
		}
		old = make([]byte, st.block) // nothing comes of it: see damaged
	}
	for _, g := range b.gaps {
		copy(b.content[g.from:g.to], old[g.from:g.to])
	}
	return nil
}

package restore

import (
	"context"
	"errors"
	"fmt"

	"backy/pkg/blockmap"
	"backy/pkg/object"
)

// kind says what is known of a piece.
type kind int

const (
	data kind = iota // one block, whose chunk has to be read
	zero             // blocks that are all zero
	lost             // nobody knows: a page or chunk is missing or bad
)

// piece is a run of the disk on its way out.
type piece struct {
	kind        kind
	off, length int64       // bytes; the disk's size cuts the last block
	name        object.Name // of a block's chunk
	err         error       // why it is lost
	content     []byte      // of a block, padded
	read        int64       // bytes of its frame
}

// bytes is the content that lies within the disk.
func (p *piece) bytes() []byte { return p.content[:p.length] }

// reason says why a piece is lost, in a few words.
func (p *piece) reason() string {
	key := object.Key{Kind: object.Chunk, Name: p.name}
	var page *blockmap.PageError
	if errors.As(p.err, &page) {
		key = object.Key{Kind: object.Page, Name: page.Name}
	}
	if errors.Is(p.err, object.ErrNotExist) {
		return key.String() + " is missing"
	}
	if bad := (*object.BadError)(nil); errors.As(p.err, &bad) {
		return bad.Error()
	}
	return fmt.Sprintf("%s: %v", key, p.err)
}

// walk turns a block map, or what it has in place of another one, into pieces, from the first block to the last.
type walk struct {
	blockmap.Map
	yield  func(*piece) bool
	at     int64 // the block up to which all has been yielded or passed over
	zeroTo int64 // from at up to this block all is zero and has to be said; behind it, what comes next decides
}

var errStopped = errors.New("stopped") // by yield; whoever stopped it has the reason

// feed yields the pieces of the disk that the sink wants to hear of.
func (r *run) feed(ctx context.Context, yield func(*piece) bool) error {
	pages, err := blockmap.NewPages(r.objects())
	if err != nil {
		return err
	}
	m := r.Revision.Map()
	w := &walk{Map: m, yield: yield}
	old := blockmap.Map{Size: m.Size, BlockSize: m.BlockSize}
	if r.sink.zeroes() {
		w.zeroTo = m.Blocks()
	}
	if r.From != nil {
		if old = r.From.Map(); old.BlockSize != m.BlockSize {
			r.Log.Warn(fmt.Sprintf("the blocks of %s have another size, so that it cannot be compared: the stream holds the whole disk", r.From.ID))
			old, w.zeroTo = blockmap.Map{Size: m.Size, BlockSize: m.BlockSize}, m.Blocks()
		}
	}
	oldPages, err := blockmap.NewPages(r.objects())
	if err != nil {
		return err
	}
	err = blockmap.Compare(ctx, blockmap.NewCursor(oldPages, old), blockmap.NewCursor(pages, m), blockmap.Visitor{
		Block:   w.block,
		Lost:    w.lost,
		OldLost: func(e *blockmap.PageError) error { return r.unknown(w, e) },
	})
	if err == nil {
		err = w.pass(m.Blocks())
	}
	if errors.Is(err, errStopped) {
		return context.Cause(ctx)
	}
	return err
}

// unknown is told of a page of From that cannot be read. Nobody knows what the disk had there, so all of it is said anew.
func (r *run) unknown(w *walk, e *blockmap.PageError) error {
	if e.To <= w.zeroTo {
		return nil
	}
	r.Log.Warn(fmt.Sprintf("a page of %s cannot be read, so that blocks %d to %d are taken whole", r.From.ID, e.From, e.To-1), "reason", e.Err)
	if e.From > w.zeroTo {
		if err := w.pass(e.From); err != nil {
			return err
		}
	}
	w.zeroTo = e.To
	return nil
}

// block is told of a block that differs from the other map's.
func (w *walk) block(b int64, _, name object.Name) error {
	if name.IsZero() && w.zeroTo >= b {
		w.zeroTo = max(w.zeroTo, b+1)
		return nil
	}
	if err := w.pass(b); err != nil {
		return err
	}
	if name.IsZero() {
		w.zeroTo = b + 1
		return nil
	}
	w.at = b + 1
	return w.send(&piece{kind: data, name: name}, b, b+1)
}

// lost is told of a page that is missing or bad.
func (w *walk) lost(e *blockmap.PageError) error {
	if err := w.pass(e.From); err != nil {
		return err
	}
	w.at = e.To
	return w.send(&piece{kind: lost, err: e}, e.From, e.To)
}

// pass goes on to a block, past blocks that are zero or as they were.
func (w *walk) pass(to int64) error {
	from := w.at
	w.at = max(w.at, to)
	if end := min(to, w.zeroTo); from < end {
		return w.send(&piece{kind: zero}, from, end)
	}
	return nil
}

// send yields a piece that covers the blocks from, up to but not with to.
func (w *walk) send(p *piece, from, to int64) error {
	p.off = from * w.BlockSize
	end := w.Size
	if to < w.Blocks() {
		end = to * w.BlockSize
	}
	p.length = end - p.off
	if !w.yield(p) {
		return errStopped
	}
	return nil
}

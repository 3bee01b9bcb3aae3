package chunk

import (
	"context"
	"errors"
	"fmt"
	"io"

	"backy/pkg/blockmap"
	"backy/pkg/extent"
	"backy/pkg/object"
)

// piece is a block on its way, or a run of blocks that became zero.
type piece struct {
	block int64
	run   int64 // blocks; 0: it is one block, with content

	content []byte      // the block, padded with zeroes
	upTo    int64       // of the block, filled so far
	gaps    []gap       // of the block, to be completed
	base    object.Name // of the block, for the gaps

	name  object.Name
	frame []byte
	send  bool
}

// gap is a part of a block that the stream does not mention.
type gap struct{ from, to int64 }

// assembler cuts extents into blocks. Extents need no alignment: a block that is covered in part is completed from the
// base, or with zeroes where there is none.
type assembler struct {
	*stage
	stock *stock
	base  *blockmap.Cursor
	open  *piece // the block that is being filled
	next  int64  // the first block that nothing was said of yet
	yield func(*piece) bool
}

var errStopped = errors.New("stopped")

// feed yields the pieces of the whole stream, and returns nil only after its end was proven.
func (a *assembler) feed(ctx context.Context, yield func(*piece) bool) error {
	a.yield = yield
	err := a.extents(ctx)
	if errors.Is(err, errStopped) {
		return nil // whoever stopped it has the reason
	}
	return err
}

func (a *assembler) extents(ctx context.Context) error {
	for {
		e, err := a.in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := a.extent(ctx, e); err != nil {
			return err
		}
	}
	if err := a.close(ctx); err != nil {
		return err
	}
	return a.lastBlock(ctx)
}

// extent fills blocks from an extent, and passes on runs of whole zero blocks.
func (a *assembler) extent(ctx context.Context, e extent.Extent) error {
	for off, end := e.Offset, e.End(); off < end; {
		block := off / a.block
		if to := end / a.block; e.Zero && off%a.block == 0 && (to > block || end == a.size) {
			if end == a.size {
				to = a.blocks()
			}
			if err := a.zeroes(ctx, block, to); err != nil {
				return err
			}
			off = min(to*a.block, end)
			continue
		}
		from := off % a.block
		n := min(a.block-from, end-off)
		if err := a.fill(ctx, block, from, n, e.Zero); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (a *assembler) blocks() int64 {
	return blockmap.Map{Size: a.size, BlockSize: a.block}.Blocks()
}

// limit is the number of bytes of a block that are the disk's.
func (a *assembler) limit(block int64) int64 { return min(a.block, a.size-block*a.block) }

// fill puts n bytes at a place of a block.
func (a *assembler) fill(ctx context.Context, block, from, n int64, zero bool) error {
	if a.open != nil && a.open.block != block {
		if err := a.close(ctx); err != nil {
			return err
		}
	}
	if a.open == nil {
		b, err := a.stock.get(ctx)
		if err != nil {
			return err
		}
		b.block, b.run, b.upTo, b.gaps = block, 0, 0, b.gaps[:0]
		a.open = b
	}
	b := a.open
	if from > b.upTo {
		b.gaps = append(b.gaps, gap{b.upTo, from})
	}
	b.upTo = from + n
	part := b.content[from:b.upTo]
	if zero {
		clear(part)
		return nil
	}
	_, err := io.ReadFull(a.in, part)
	return err
}

// zeroes passes on a run of blocks that are zero. Without a base they are that anyway.
func (a *assembler) zeroes(ctx context.Context, from, to int64) error {
	if err := a.close(ctx); err != nil {
		return err
	}
	a.next = to
	if a.stage.base == nil {
		return nil
	}
	if !a.yield(&piece{block: from, run: to - from}) {
		return errStopped
	}
	return nil
}

// close passes on the open block.
func (a *assembler) close(ctx context.Context) error {
	b := a.open
	if b == nil {
		return nil
	}
	a.open, a.next = nil, b.block+1
	limit := a.limit(b.block)
	if b.upTo < limit {
		b.gaps = append(b.gaps, gap{b.upTo, limit})
	}
	clear(b.content[limit:])
	b.base = object.Name{}
	if len(b.gaps) > 0 && a.stage.base != nil {
		name, err := a.base.At(ctx, b.block)
		if page := (*blockmap.PageError)(nil); errors.As(err, &page) {
			err = a.lost(object.Key{Kind: object.Page, Name: page.Name}, err)
		}
		if err != nil {
			return fmt.Errorf("complete block %d from the base: %w", b.block, err)
		}
		b.base = name
	}
	if !a.yield(b) {
		return errStopped
	}
	return nil
}

// lastBlock cuts the block in which a disk ends that became smaller, if the stream does not mention it.
func (a *assembler) lastBlock(ctx context.Context) error {
	last := a.blocks() - 1
	if a.stage.base == nil || a.stage.base.Size <= a.size || a.size%a.block == 0 || a.next > last {
		return nil
	}
	if err := a.fill(ctx, last, 0, 0, true); err != nil {
		return err
	}
	return a.close(ctx)
}

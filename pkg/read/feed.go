package read

import (
	"context"
	"errors"
	"fmt"
	"io"

	"backy/pkg/blockmap"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/repo"
)

// errStopped ends a feed that is not wanted any more; whoever stopped it has the reason.
var errStopped = errors.New("stopped")

// feeder yields pieces.
type feeder struct {
	*stage
	ctx   context.Context
	yield func(*piece) bool
}

func (s *stage) feeding(ctx context.Context, yield func(*piece) bool, feed func(feeder) error) error {
	err := feed(feeder{s, ctx, yield})
	if errors.Is(err, errStopped) || ctx.Err() != nil {
		return nil
	}
	return err
}

// feedDisk yields the whole disk, with what the base has there.
func (s *stage) feedDisk(ctx context.Context, yield func(*piece) bool) error {
	return s.feeding(ctx, yield, func(f feeder) error {
		return f.all(0)
	})
}

// feedMap yields what the map names and what the base has lost, and all from where base and disk end to be alike.
func (s *stage) feedMap(ctx context.Context, yield func(*piece) bool) error {
	return s.feeding(ctx, yield, func(f feeder) error {
		runs, err := s.toRead(ctx)
		if err != nil {
			return err
		}
		for _, r := range runs {
			if err := f.run(r); err != nil {
				return err
			}
		}
		return f.all(s.common())
	})
}

// feedStream yields blocks as they come.
func (s *stage) feedStream(ctx context.Context, yield func(*piece) bool) error {
	return s.feeding(ctx, yield, func(f feeder) error {
		for block := range s.blocks() {
			b, err := s.pool.get(ctx, block)
			if err != nil {
				return err
			}
			limit := s.limit(block)
			if err := s.pool.wait(ctx, limit); err != nil {
				return err
			}
			n, err := io.ReadFull(s.Stream, b.buf[:limit])
			s.pool.bytes.Add(int64(n))
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fmt.Errorf("standard input ends after %d bytes, and --size says %d", block*s.block+int64(n), s.Size)
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", s.Source, err)
			}
			b.filled = true
			if err := f.compared(b); err != nil {
				return err
			}
		}
		var more [1]byte
		if n, err := io.ReadFull(s.Stream, more[:]); n > 0 {
			return fmt.Errorf("standard input goes on after the %d bytes that --size says", s.Size)
		} else if !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", s.Source, err)
		}
		return nil
	})
}

// all yields each block from one on that may hold data, and what has become a hole between them.
func (f feeder) all(at int64) error {
	for r, err := range f.data(at) {
		if err == nil {
			err = f.hole(at, r.First)
		}
		if err == nil {
			err = f.run(r)
		}
		if err != nil {
			return err
		}
		at = r.First + r.Count
	}
	return f.hole(at, f.blocks())
}

// run yields the blocks of a run.
func (f feeder) run(r extent.Run) error {
	if r.Zero {
		return f.pass(&piece{block: r.First, run: r.Count})
	}
	for block := r.First; block < r.First+r.Count; block++ {
		b, err := f.pool.get(f.ctx, block)
		if err != nil {
			return err
		}
		if err := f.compared(b); err != nil {
			return err
		}
	}
	return nil
}

// compared yields a block with what the base has there, if that is asked for.
func (f feeder) compared(b *piece) error {
	if f.mode == repo.ReadCompare {
		name, err := f.cursor.At(f.ctx, b.block)
		if page := (*blockmap.PageError)(nil); errors.As(err, &page) && lostPage(err) {
			b.unknown = true
		} else if err != nil {
			return err
		}
		b.base = name
		b.unknown = b.unknown || f.marks[object.Key{Kind: object.Chunk, Name: name}]
	}
	return f.pass(b)
}

func (f feeder) pass(b *piece) error {
	if !f.yield(b) {
		return errStopped
	}
	return nil
}

// hole yields what the base has between two blocks where the disk has a hole.
func (f feeder) hole(from, to int64) error {
	if f.base == nil {
		return nil
	}
	to = min(to, f.cursor.Blocks()) // the disk may have grown
	zero := extent.Run{Zero: true}
	add := func(first, count int64) error {
		if first == zero.First+zero.Count {
			zero.Count += count
			return nil
		}
		r := zero
		zero = extent.Run{First: first, Count: count, Zero: true}
		if r.Count == 0 {
			return nil
		}
		return f.run(r)
	}
	for from < to {
		block, _, err := f.cursor.Next(f.ctx, from)
		count := int64(1)
		if page := (*blockmap.PageError)(nil); errors.As(err, &page) && lostPage(err) {
			block, count = max(from, page.From), page.To-max(from, page.From)
		} else if err != nil {
			return err
		}
		if block >= to {
			break
		}
		count = min(count, to-block)
		if err := add(block, count); err != nil {
			return err
		}
		from = block + count
	}
	if zero.Count > 0 {
		return f.run(zero)
	}
	return nil
}

// lostPage tells a page that is damaged or missing from one that just cannot be read now.
func lostPage(err error) bool {
	return errors.Is(err, object.ErrNotExist) || errors.As(err, new(*object.BadError))
}

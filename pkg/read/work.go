package read

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/time/rate"

	"backy/pkg/aligned"
	"backy/pkg/blockmap"
	"backy/pkg/disk"
	"backy/pkg/event"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

// inFlight is how many blocks are read, or wait to be written, at once, beyond one a core.
const inFlight = 4

// piece is a block on its way, or a run of blocks that are zero now and may not have been.
type piece struct {
	block int64
	run   int64 // blocks; 0: it is one block that is read

	buf     []byte
	filled  bool        // read by the feed
	base    object.Name // of the block
	unknown bool        // what the base has is not known, or is bad: what is there is emitted in any case

	hash       hash.Hash // of what was read, in a comparison
	zero, same bool
	inCache    bool // it is passed on from where it is; buf has only its beginning
}

// pool holds the pieces with their buffers: there are never more.
type pool struct {
	*stage
	pieces  chan *piece
	workers int
	limiter *rate.Limiter
	splicer disk.Splicer // nil: the disk or what is written to cannot
	pipe    *os.File
	bytes   atomic.Int64 // read
}

func newPool(s *stage) *pool {
	workers := runtime.GOMAXPROCS(0)
	p := &pool{stage: s, workers: workers}
	p.fill()
	if f, ok := s.Out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
			p.pipe = f
			p.splicer, _ = s.Disk.(disk.Splicer)
		}
	}
	if s.Rate > 0 {
		p.limiter = rate.NewLimiter(rate.Limit(s.Rate), int(s.block))
	}
	return p
}

// fill makes the pieces, anew after a run that ended early: those that were on their way then are not put back.
func (p *pool) fill() {
	p.pieces = make(chan *piece, p.workers+inFlight)
	for range cap(p.pieces) {
		p.pieces <- new(piece)
	}
}

func (p *pool) get(ctx context.Context, block int64) (*piece, error) {
	select {
	case b := <-p.pieces:
		if b.buf == nil {
			b.buf = aligned.Buffer(int(p.block))
		}
		*b = piece{block: block, buf: b.buf}
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pool) put(b *piece) {
	if b.buf != nil {
		p.pieces <- b
	}
}

// read fills a piece from the disk, padded with zeroes.
func (p *pool) read(ctx context.Context, b *piece) error {
	limit := p.limit(b.block)
	clear(b.buf[limit:])
	if b.filled {
		return nil
	}
	if err := p.wait(ctx, limit); err != nil {
		return err
	}
	step := limit
	if p.mode == repo.ReadCompare && !b.base.IsZero() {
		b.hash, step = sha256.New(), atOnce
	}
	for at := int64(0); at < limit; {
		part := b.buf[at:min(at+step, limit)]
		n, err := p.Disk.ReadAt(part, b.block*p.block+at)
		p.bytes.Add(int64(n))
		if n < len(part) {
			return fmt.Errorf("read %s at %d: %w", p.Source, b.block*p.block+at+int64(n), shrunk(err))
		}
		if b.hash != nil {
			b.hash.Write(part)
		}
		at += int64(n)
	}
	if b.hash != nil {
		b.hash.Write(b.buf[limit:])
	}
	return nil
}

// atOnce is how much is read before it is hashed, while it is still in the cache of the processor, bytes.
const atOnce = 256 << 10

// beginning is how much of a block is looked at to find out that it is not all zero, bytes.
const beginning = 64 << 10

// peek reports whether a block is not zero and can be passed on from the page cache, without reading it. That is not
// for a comparison, which needs to read.
func (p *pool) peek(ctx context.Context, b *piece) (bool, error) {
	limit := p.limit(b.block)
	if p.splicer == nil || b.filled || p.mode == repo.ReadCompare || !p.splicer.Cached(b.block*p.block, limit) {
		return false, nil
	}
	n, err := p.Disk.ReadAt(b.buf[:min(beginning, limit)], b.block*p.block)
	if err != nil || extent.IsZero(b.buf[:n]) {
		return false, nil // the read to come tells
	}
	b.inCache = true
	p.bytes.Add(limit)
	return true, p.wait(ctx, limit)
}

// pass writes a block from the page cache, and what had to leave that meanwhile by a copy.
func (p *pool) pass(out *extent.Writer, b *piece) error {
	off, limit := b.block*p.block, p.limit(b.block)
	return out.DataFrom(off, limit, func() error {
		done, err := p.splicer.Splice(p.pipe, off, limit)
		if err != nil || done == limit {
			return err
		}
		if n, err := p.Disk.ReadAt(b.buf[done:limit], off+done); int64(n) < limit-done {
			return fmt.Errorf("read %s at %d: %w", p.Source, off+done, shrunk(err))
		}
		_, err = p.pipe.Write(b.buf[done:limit])
		return err
	})
}

// shrunk says what an end before its time means.
func shrunk(err error) error {
	if errors.Is(err, io.EOF) {
		return disk.ErrShrunk
	}
	return err
}

// wait keeps to the rate.
func (p *pool) wait(ctx context.Context, n int64) error {
	if p.limiter == nil {
		return nil
	}
	return p.limiter.WaitN(ctx, int(n))
}

// work reads a block and finds out whether it is worth a record.
func (p *pool) work(ctx context.Context, b *piece) error {
	if b.run > 0 {
		return nil
	}
	if there, err := p.peek(ctx, b); err != nil || there {
		return err
	}
	if err := p.read(ctx, b); err != nil {
		return err
	}
	b.zero = extent.IsZero(b.buf)
	if b.unknown || p.mode == repo.ReadMap {
		return nil
	}
	b.same = b.zero && b.base.IsZero()
	if !b.zero && !b.base.IsZero() {
		if b.hash != nil {
			b.same = object.Name(b.hash.Sum(nil)) == b.base
		} else {
			b.same = object.Sum(b.buf) == b.base
		}
	}
	return nil
}

// copy reads what has to be read and writes what has to be written, in order.
func (s *stage) copy(ctx context.Context, out *extent.Writer) error {
	feed := s.feedDisk
	switch {
	case s.Stream != nil:
		feed = s.feedStream
	case s.mode == repo.ReadMap:
		feed = s.feedMap
	}
	return parallel.Ordered(ctx, s.pool.workers, cap(s.pool.pieces), feed, s.pool.work, func(b *piece) error {
		defer s.pool.put(b)
		off := b.block * s.block
		s.Events.Emit(event.Event{Kind: event.Progress, Done: off, Total: s.Size, Read: s.pool.bytes.Load()})
		switch {
		case b.run > 0:
			return out.Zero(off, min(b.run*s.block, s.Size-off))
		case b.same:
			return nil
		case b.zero:
			return out.Zero(off, s.limit(b.block))
		case b.inCache:
			return s.pool.pass(out, b)
		}
		return out.Data(off, b.buf[:s.limit(b.block)])
	})
}

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
				return fmt.Errorf("%s ends after %d bytes, and --size says %d", s.Source, block*s.block+int64(n), s.Size)
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
			return fmt.Errorf("%s goes on after the %d bytes that --size says", s.Source, s.Size)
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

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
	"backy/pkg/disk"
	"backy/pkg/event"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

// inFlight is how many blocks wait to be read or to be written, beyond one a worker.
const inFlight = 4

// ahead is how much is read at once, at most, beyond a block a core, bytes: it bounds the memory.
const ahead = 64 << 20

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
	deep    bool // each read of the disk takes time, however little is read
	limiter *rate.Limiter
	splicer disk.Splicer // nil: the disk or what is written to cannot
	pipe    *os.File
	bytes   atomic.Int64 // read
}

func newPool(s *stage) *pool {
	p := &pool{stage: s, workers: runtime.GOMAXPROCS(0)}
	if d, ok := s.Disk.(disk.Deep); ok {
		p.deep = true
		p.workers = max(p.workers, min(d.Depth(), int(ahead/s.block)))
	}
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
		b.hash = sha256.New()
		if !p.deep {
			step = atOnce
		}
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

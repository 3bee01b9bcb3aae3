package scrub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"backy/pkg/aligned"
	"backy/pkg/blockmap"
	"backy/pkg/disk"
	"backy/pkg/event"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

const (
	maxDiffers = 1000    // that are listed
	maxSample  = 1 << 20 // blocks
)

// piece is a block to be compared with the source.
type piece struct {
	block    int64
	name     object.Name
	hole     bool // the source has nothing there
	buf      []byte
	source   object.Name // of the block in the source
	sourceOK error       // whether it could be read
	read     int64
	err      error  // of the object
	evidence []byte // the block in the revision, if it differs
}

// sample reads some of a revision's chunks.
func (s *scrub) sample(ctx context.Context) error {
	for _, r := range s.Revisions {
		list, err := s.pick(ctx, r)
		if err != nil {
			return err
		}
		err = s.read(ctx, func(ctx context.Context, yield func(*item) bool) error {
			for _, p := range list {
				if s.late() || !yield(&item{key: object.Key{Kind: object.Chunk, Name: p.name}, length: r.Block}) {
					break
				}
			}
			return ctx.Err()
		}, func(*item) error {
			s.Events.Emit(event.Event{Kind: event.Progress, Done: s.report.Objects * r.Block, Total: int64(len(list)) * r.Block, Read: s.report.Read})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pick chooses the sample of a revision: of all blocks if there is a source, else of those that are not zero, or of those
// that differ from the base. Each has the same chance, the last one too. They come in no order, so that this holds also
// where the time is over before the end.
func (s *scrub) pick(ctx context.Context, r repo.Revision) ([]piece, error) {
	n := int64(0)
	if err := s.scope(ctx, r, func(int64, object.Name) { n++ }); err != nil || n == 0 {
		return nil, err
	}
	want := min(n, max(1, int64(math.Ceil(float64(n)*s.Share))), maxSample)
	list := make([]piece, 0, want)
	err := s.scope(ctx, r, func(block int64, name object.Name) {
		if s.Random.Int64N(max(n, 1)) < want-int64(len(list)) { // Knuth's algorithm S
			list = append(list, piece{block: block, name: name})
		}
		n--
	})
	s.Random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list, err
}

// scope visits the blocks that a sample is taken of.
func (s *scrub) scope(ctx context.Context, r repo.Revision, visit func(int64, object.Name)) error {
	pages, err := blockmap.NewPages(s.Repo.Objects())
	if err != nil {
		return err
	}
	lost := func(e *blockmap.PageError) error {
		s.found[object.Key{Kind: object.Page, Name: e.Name}] = judge(e.Err)
		return nil
	}
	if s.Source != nil && !s.Changed {
		return s.every(ctx, r, pages, func(p piece) error {
			visit(p.block, p.name)
			return nil
		})
	}
	old := blockmap.NewCursor(nil, blockmap.Map{Size: r.Size, BlockSize: r.Block})
	if s.Changed && r.Base != "" {
		job, err := s.Repo.Job(r.Job)
		if err != nil {
			return err
		}
		if base, err := job.Get(r.Base); err == nil && base.Block == r.Block {
			old = blockmap.NewCursor(pages, base.Map())
		}
	}
	return blockmap.Compare(ctx, old, blockmap.NewCursor(pages, r.Map()), blockmap.Visitor{
		Block: func(block int64, _, name object.Name) error {
			if s.Source != nil || !name.IsZero() {
				visit(block, name)
			}
			return nil
		},
		Lost:    lost,
		OldLost: func(*blockmap.PageError) error { return nil },
	})
}

// every visits all blocks of a revision, those too that are zero.
func (s *scrub) every(ctx context.Context, r repo.Revision, pages *blockmap.Pages, visit func(piece) error) error {
	cursor := blockmap.NewCursor(pages, r.Map())
	for block := int64(0); block < r.Map().Blocks(); block++ {
		name, err := cursor.At(ctx, block)
		if page := (*blockmap.PageError)(nil); errors.As(err, &page) && ctx.Err() == nil {
			s.lostPage(page)
			block = page.To - 1
			continue
		}
		if err == nil {
			err = visit(piece{block: block, name: name})
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// lostPage notes a page that cannot be read.
func (s *scrub) lostPage(e *blockmap.PageError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found[object.Key{Kind: object.Page, Name: e.Name}] = judge(e.Err)
}

// compare reads blocks of a revision and of its source.
func (s *scrub) compare(ctx context.Context) error {
	before, err := s.still()
	if err != nil || s.report.Skipped != "" {
		return err
	}
	r := s.Revisions[0]
	rd, err := newReader(s.Repo.Objects(), s.Workers, r.Block)
	if err != nil {
		return err
	}
	total := r.Map().Blocks()
	feed := func(ctx context.Context, yield func(*piece) bool) error { return s.all(ctx, r, yield) }
	if s.Share < 1 || s.Changed {
		list, err := s.pick(ctx, r)
		if err != nil {
			return err
		}
		total = int64(len(list))
		feed = func(ctx context.Context, yield func(*piece) bool) error {
			for i := range list {
				if s.late() || !yield(&list[i]) {
					break
				}
			}
			return ctx.Err()
		}
	}
	n := 2 * (s.Workers + ahead)
	buffers := make(chan []byte, n)
	for range n {
		buffers <- nil
	}
	err = parallel.Ordered(ctx, s.Workers+ahead, n, feed, func(ctx context.Context, p *piece) error {
		if p.buf = <-buffers; p.buf == nil {
			p.buf = aligned.Buffer(int(r.Block))
		}
		return s.both(ctx, rd, r, p)
	}, func(p *piece) error {
		err := s.compared(r, p)
		buffers <- p.buf
		p.buf, p.evidence = nil, nil
		s.Events.Emit(event.Event{Kind: event.Progress, Done: s.report.Blocks * r.Block, Total: total * r.Block, Read: s.report.Read})
		return err
	})
	if err != nil {
		return err
	}
	s.differs = merge(s.differs) // a sample comes in no order
	return s.moved(before)
}

// all yields every block, and says which the source does not have.
func (s *scrub) all(ctx context.Context, r repo.Revision, yield func(*piece) bool) error {
	pages, err := blockmap.NewPages(s.Repo.Objects())
	if err != nil {
		return err
	}
	mapper, _ := s.Source.(disk.Mapper)
	start, end := int64(0), int64(0) // the data run that is known
	err = s.every(ctx, r, pages, func(p piece) error {
		off := p.block * r.Block
		if mapper != nil && end <= off {
			var err error
			if start, end, err = mapper.NextData(off); errors.Is(err, io.EOF) {
				start, end = r.Size, math.MaxInt64
			} else if err != nil {
				mapper = nil // a read will tell
			}
		}
		p.hole = mapper != nil && start >= min(off+r.Block, r.Size)
		if s.late() || !yield(&p) {
			return errStopped
		}
		return nil
	})
	if errors.Is(err, errStopped) {
		return ctx.Err()
	}
	return err
}

// both reads a block of the source and its chunk.
func (s *scrub) both(ctx context.Context, rd *reader, r repo.Revision, p *piece) error {
	off, length := r.Map().Range(p.block, p.block+1)
	clear(p.buf[length:])
	if p.hole {
		clear(p.buf)
	} else if n, err := s.Source.ReadAt(p.buf[:length], off); int64(n) < length {
		if errors.Is(err, io.EOF) {
			err = disk.ErrShrunk
		}
		p.sourceOK = err
	}
	if p.sourceOK == nil && !extent.IsZero(p.buf) {
		p.source = object.Sum(p.buf)
	}
	if !p.name.IsZero() {
		p.read, p.err = rd.judge(ctx, object.Key{Kind: object.Chunk, Name: p.name}, r.Block, func(content []byte) {
			if p.source != p.name && p.sourceOK == nil {
				p.evidence = append([]byte(nil), content...)
			}
		})
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// compared notes how a block compares.
func (s *scrub) compared(r repo.Revision, p *piece) error {
	offset, length := r.Map().Range(p.block, p.block+1)
	if !p.name.IsZero() {
		s.mu.Lock()
		s.note(object.Key{Kind: object.Chunk, Name: p.name}, p.read, p.err)
		s.mu.Unlock()
	}
	if p.sourceOK != nil {
		s.sourceLost = true
		s.unknown(fmt.Sprintf("%s at byte %d", s.SourceName, offset), p.sourceOK)
		return nil
	}
	s.report.Blocks++
	if p.source == p.name {
		return nil
	}
	s.differs = append(s.differs, repo.Range{Offset: offset, Length: length})
	m := Mismatch{Range: repo.Range{Offset: offset, Length: length}, Source: repo.HashOf(p.source), Backup: repo.HashOf(p.name)}
	if len(s.report.Differs) >= maxDiffers {
		s.report.DiffersMore++
		return nil
	}
	if len(s.report.Differs) < repo.MaxEvidence {
		if err := s.evidence(offset, p); err != nil {
			s.Log.Warn("the evidence is not kept", "reason", err)
		} else {
			m.Kept = true
		}
	}
	s.report.Differs = append(s.report.Differs, m)
	return nil
}

// evidence keeps both forms of a block, or of the revision's none where its chunk is bad.
func (s *scrub) evidence(offset int64, p *piece) error {
	if p.name.IsZero() {
		p.evidence = make([]byte, len(p.buf))
	}
	return s.quarantine.Evidence(offset, p.buf, p.evidence)
}

// still looks at the source before it is read. Where it may have changed since it was backed up, nothing is compared.
func (s *scrub) still() (before disk.State, err error) {
	d, ok := s.Source.(disk.Stater)
	if ok {
		if before, err = d.Stat(); err != nil {
			return before, err
		}
	}
	if s.Since == nil || s.Since.Still(before) {
		return before, nil
	}
	s.report.Complete, s.report.Skipped = false, s.SourceName+" has changed since it was read, or may have: it has no snapshot, so there is nothing to compare with"
	return before, nil
}

// moved looks whether the source changed while it was read: what differs then says nothing.
func (s *scrub) moved(before disk.State) error {
	d, ok := s.Source.(disk.Stater)
	if !ok {
		return nil
	}
	now, err := d.Stat()
	if err != nil {
		return err
	}
	if !before.Modified.IsZero() && !before.Still(now) {
		s.report.NoVerdict = s.SourceName + " changed while it was read"
		s.Log.Warn(s.report.NoVerdict + ", so what differs says nothing about the revision")
		return nil
	}
	for _, r := range s.differs {
		s.tell("differs from %s: %d bytes from byte %d on", s.SourceName, r.Length, r.Offset)
	}
	return nil
}

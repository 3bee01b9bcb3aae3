package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"backy/pkg/disk"
	"backy/pkg/extent"
	"backy/pkg/repo"
)

// sink takes the pieces. any is called for each of them by the workers, in any order; next after it, in the disk's order,
// one at a time; finish when all have come and nothing failed.
type sink interface {
	zeroes() bool // blocks that are zero in the revision are pieces too
	any(ctx context.Context, p *piece) error
	next(p *piece) error
	finish() error
}

func (r *run) open(ctx context.Context) (sink, error) {
	switch {
	case r.Target != nil:
		_, fresh := r.Target.(disk.Committer)
		return &target{r.Target, r.Sparse || fresh, r.Keep}, nil
	case r.Stream != nil:
		return &stream{r.Stream, ctx}, nil
	case r.Diff != nil:
		h := extent.Header{To: repo.SnapshotName(r.Revision.ID), Size: r.Revision.Size}
		if r.From != nil {
			h.From = repo.SnapshotName(r.From.ID)
		}
		w, err := extent.NewWriter(r.Diff, h)
		return &diff{w, r.Keep}, err
	}
	return nowhere{}, nil
}

// nowhere is where a check goes.
type nowhere struct{}

func (nowhere) zeroes() bool                      { return false }
func (nowhere) any(context.Context, *piece) error { return nil }
func (nowhere) next(*piece) error                 { return nil }
func (nowhere) finish() error                     { return nil }

// target writes to a disk, in any order.
type target struct {
	disk.Writer
	sparse bool // reads as zero where nothing is written
	keep   bool
}

func (t *target) zeroes() bool { return !t.sparse }

func (t *target) any(ctx context.Context, p *piece) error {
	switch {
	case p.kind == data && t.sparse:
		for from, to := range runs(p.bytes()) {
			if _, err := t.WriteAt(p.content[from:to], p.off+int64(from)); err != nil {
				return err
			}
		}
		return nil
	case p.kind == data:
		_, err := t.WriteAt(p.bytes(), p.off)
		return err
	case t.sparse, p.kind == lost && t.keep:
		return nil
	}
	return pieces(ctx, p, zeroStep, t.Zero)
}

func (t *target) next(*piece) error { return nil }

func (t *target) finish() error {
	if c, ok := t.Writer.(disk.Committer); ok {
		return c.Commit()
	}
	return t.Sync()
}

// zeroStep is what a target is told to zero at once, in bytes, so that an interrupt gets through.
const zeroStep = 1 << 30

// pieces calls do for a piece in steps.
func pieces(ctx context.Context, p *piece, step int64, do func(off, length int64) error) error {
	for done := int64(0); done < p.length; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := min(step, p.length-done)
		if err := do(p.off+done, n); err != nil {
			return err
		}
		done += n
	}
	return nil
}

const (
	page = 4096      // what a hole is a multiple of in nearly every file system
	hole = 16 * page // what is worth one
)

var (
	zeroPage  [page]byte
	zeroBlock [1 << 20]byte
)

// runs gives the data of a block, from and to, without its runs of whole pages of zeroes that are worth a hole.
func runs(p []byte) func(yield func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		from, zeroFrom := 0, 0 // data begins at from; from zeroFrom on all pages so far are zero
		for at := 0; at < len(p); at += page {
			end := min(at+page, len(p))
			if bytes.Equal(p[at:end], zeroPage[:end-at]) {
				continue
			}
			if at-zeroFrom >= hole {
				if from < zeroFrom && !yield(from, zeroFrom) {
					return
				}
				from = at
			}
			zeroFrom = end
		}
		if len(p)-zeroFrom < hole {
			zeroFrom = len(p)
		}
		if from < zeroFrom {
			yield(from, zeroFrom)
		}
	}
}

// stream writes the disk's bytes in order.
type stream struct {
	w   io.Writer
	ctx context.Context
}

func (s *stream) zeroes() bool                      { return true }
func (s *stream) any(context.Context, *piece) error { return nil }
func (s *stream) finish() error                     { return nil }

func (s *stream) next(p *piece) error {
	if p.kind == data {
		return s.write(p.bytes())
	}
	return pieces(s.ctx, p, int64(len(zeroBlock)), func(_, length int64) error { return s.write(zeroBlock[:length]) })
}

func (s *stream) write(b []byte) error {
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("write the disk: %w", err)
	}
	return nil
}

// diff writes a stream of extents.
type diff struct {
	*extent.Writer
	keep bool
}

func (d *diff) zeroes() bool                      { return false }
func (d *diff) any(context.Context, *piece) error { return nil }
func (d *diff) finish() error                     { return d.Close() }

func (d *diff) next(p *piece) error {
	switch {
	case p.kind == data:
		return d.Data(p.off, p.bytes())
	case p.kind == zero:
		return d.Zero(p.off, p.length)
	case d.keep:
		return nil
	}
	return fmt.Errorf("%d bytes from byte %d on: %s; the stream was left without its end, so that nobody takes it", p.length, p.off, p.reason())
}

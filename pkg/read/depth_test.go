package read_test

import (
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// deep is a disk whose reads wait until it is opened.
type deep struct {
	size  int64
	depth int
	in    chan struct{}
	open  chan struct{}
}

func (d *deep) Size() int64  { return d.size }
func (d *deep) Depth() int   { return d.depth }
func (d *deep) Close() error { return nil }
func (d *deep) ReadAt(p []byte, off int64) (int, error) {
	d.in <- struct{}{}
	<-d.open
	return len(p), nil
}

// A disk that waits for a network is asked for as many blocks at once as it likes, but for so many only as memory is meant
// to be taken.
func TestDepth(t *testing.T) {
	for _, c := range []struct {
		block     int64
		want, got int
	}{{1 << 20, 10, 10}, {4 << 20, 10, 10}, {16 << 20, 10, 4}, {4 << 20, 30, 16}} {
		t.Run(fmt.Sprintf("%d of %d", c.want, c.block), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &deep{size: 100 * c.block, depth: c.want, in: make(chan struct{}, 100), open: make(chan struct{})}
				done := make(chan error, 1)
				go func() {
					done <- read.Run(t.Context(), read.Options{Out: io.Discard, Disk: d, Block: c.block, Now: repotest.Clock(), Log: repotest.Quiet})
				}()
				synctest.Wait()
				if c.got = max(c.got, runtime.GOMAXPROCS(0)); len(d.in) != c.got {
					t.Errorf("%d reads in flight, want %d", len(d.in), c.got)
				}
				close(d.open)
				if err := <-done; err != nil || len(d.in) != 100 {
					t.Errorf("%d reads, %v", len(d.in), err)
				}
			})
		})
	}
}

// far is a disk that notes how much is read at once.
type far struct {
	*repotest.Disk
	most atomic.Int64
}

func (d *far) Depth() int { return 4 }
func (d *far) ReadAt(p []byte, off int64) (int, error) {
	d.most.Store(max(d.most.Load(), int64(len(p))))
	return d.Disk.ReadAt(p, off)
}

// Of a disk that waits for a network a block is read at once, in a comparison, too.
func TestReadsWholeBlocks(t *testing.T) {
	const large = 4 * block
	f := repotest.New(t)
	d := &far{Disk: filled(1, 3*large)}
	i := &image{Image: repotest.NewImage(d.Disk), t: t, f: f, block: large}
	i.backup(read.Options{Block: large})
	r, err := run(t, f, nil, read.Options{Disk: d, Base: "last"})
	must(t, err)
	if r.note.Mode != repo.ReadCompare || len(r.list) > 0 || d.most.Load() != large {
		t.Errorf("%+v; %d bytes at once", r.note, d.most.Load())
	}
}

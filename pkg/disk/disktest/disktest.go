// Package disktest is the contract of package disk as a test: Run for sources, RunWriter for targets.
package disktest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"backy/pkg/aligned"
	"backy/pkg/disk"
)

const page = 4096

// Content makes what a disk of size bytes may hold: random data, written zeroes and unwritten stretches of 64 KiB and
// more, by turns, the end of it data. It is the same for the same size.
func Content(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	for at := 0; at < size; at += 192 << 10 {
		r.Read(b[at:min(at+70000, size)])
	}
	r.Read(b[max(0, size-100):])
	return b
}

// WriteSparse writes content, but leaves out pages that are all zero.
func WriteSparse(t testing.TB, w io.WriterAt, content []byte) {
	t.Helper()
	for at := 0; at < len(content); at += page {
		p := content[at:min(at+page, len(content))]
		if len(bytes.Trim(p, "\x00")) == 0 {
			continue
		}
		if _, err := w.WriteAt(p, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
}

// Run tests the sources that open returns; each holds the content given, sparse where the kind of disk can be. Run closes
// them.
func Run(t *testing.T, open func(t *testing.T, content []byte) disk.Disk) {
	for name, size := range map[string]int{"pages": 1 << 20, "odd": 1<<20 + 512*3, "small": 512} {
		t.Run(name, func(t *testing.T) {
			content := Content(size)
			d := open(t, content)
			defer d.Close()
			if d.Size() != int64(size) {
				t.Fatalf("size %d, want %d", d.Size(), size)
			}
			t.Run("ReadAt", func(t *testing.T) { readAt(t, d, content) })
			t.Run("Concurrent", func(t *testing.T) { concurrent(t, d, content) })
			if m, ok := d.(disk.Mapper); ok {
				t.Run("NextData", func(t *testing.T) { nextData(t, m, content) })
			}
			if s, ok := d.(disk.Stater); ok {
				if st, err := s.Stat(); err != nil || st.Size != int64(size) {
					t.Errorf("stat: %+v, %v", st, err)
				}
			}
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if n, err := d.ReadAt(make([]byte, 512), 0); err == nil || err == io.EOF {
				t.Errorf("read after Close: %d, %v", n, err)
			}
		})
	}
}

func readAt(t *testing.T, d disk.Disk, content []byte) {
	size := len(content)
	for _, c := range []struct{ off, n int }{
		{0, size}, {0, size + 1}, {0, 1}, {0, 0}, {1, 2}, {size - 1, 1}, {size - 1, 2}, {size, 1}, {size + 1, 1}, {size + 5000, 1},
		{size / 2, size}, {page - 1, 2}, {page, page}, {100, 70000},
	} {
		for _, odd := range []bool{true, false} {
			p := aligned.Buffer(c.n + 1)[:c.n]
			if odd {
				p = aligned.Buffer(c.n + 1)[1:]
			}
			want := content[min(c.off, size):min(c.off+c.n, size)]
			n, err := d.ReadAt(p, int64(c.off))
			if n != len(want) || !bytes.Equal(p[:n], want) {
				t.Errorf("%d bytes at %d: got %d, want %d, or other bytes", c.n, c.off, n, len(want))
			}
			if n < c.n && err != io.EOF || n == c.n && err != nil && err != io.EOF {
				t.Errorf("%d bytes at %d: %d bytes and error %v", c.n, c.off, n, err)
			}
		}
	}
	if n, err := d.ReadAt(make([]byte, 1), -1); n != 0 || err == nil || err == io.EOF {
		t.Errorf("negative offset: %d, %v", n, err)
	}
}

func concurrent(t *testing.T, d disk.Disk, content []byte) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				off := rand.IntN(len(content))
				p := make([]byte, rand.IntN(len(content)-off)+1)
				if _, err := d.ReadAt(p, int64(off)); err != nil && err != io.EOF || !bytes.Equal(p, content[off:off+len(p)]) {
					t.Errorf("%d bytes at %d: %v, or other bytes", len(p), off, err)
				}
			}
		})
	}
	all.Wait()
}

func nextData(t *testing.T, m disk.Mapper, content []byte) {
	size := int64(len(content))
	for _, from := range []int64{0, 1, page, size / 2, size - 1} {
		at := from
		for at < size {
			start, end, err := m.NextData(at)
			if err == io.EOF {
				start, end = size, size
			} else if err != nil {
				t.Fatalf("from %d: %v", at, err)
			} else if start < at || end <= start || end > size {
				t.Fatalf("from %d: data from %d to %d, on a disk of %d bytes", at, start, end, size)
			}
			if len(bytes.Trim(content[at:start], "\x00")) > 0 {
				t.Fatalf("from %d: not all of it is zero up to %d", at, start)
			}
			at = end
		}
	}
	for _, off := range []int64{size, size + 1} {
		if _, _, err := m.NextData(off); err != io.EOF {
			t.Errorf("from %d on a disk of %d bytes: %v, want io.EOF", off, size, err)
		}
	}
}

// Target is a target under test.
type Target struct {
	disk.Writer
	Content func() []byte // what the target holds once it is closed, or committed
}

// RunWriter tests the targets that open returns, each for size bytes. Where a kind of target exists before it is written, it
// should be full of 0xff then. RunWriter closes them, after Commit where there is one.
func RunWriter(t *testing.T, open func(t *testing.T, size int64) Target) {
	for name, size := range map[string]int64{"pages": 1 << 20, "odd": 1<<20 + 512*3} {
		content := Content(int(size))
		for _, step := range []int64{64 << 10, 10000, size} {
			t.Run(name, func(t *testing.T) {
				w := open(t, size)
				fill(t, w, content, step)
				finish(t, w)
				if got := w.Content(); !bytes.Equal(got, content) {
					t.Errorf("in steps of %d: %d bytes, the first other one is %d", step, len(got), firstOther(got, content))
				}
			})
		}
	}
	t.Run("all zero", func(t *testing.T) {
		w := open(t, 1<<20)
		for _, off := range []int64{0, 1000, 300000} { // from unaligned bytes to others
			next := map[int64]int64{0: 1000, 1000: 300000, 300000: 1 << 20}[off]
			if err := w.Zero(off, next-off); err != nil {
				t.Fatal(err)
			}
		}
		finish(t, w)
		if got := w.Content(); len(got) != 1<<20 || len(bytes.Trim(got, "\x00")) > 0 {
			t.Error("not all is zero")
		}
	})
	t.Run("refuses", func(t *testing.T) {
		w := open(t, 1<<20)
		defer w.Close()
		for _, c := range []struct{ off, n int64 }{{-1, 1}, {1 << 20, 1}, {1<<20 - 1, 2}, {1<<63 - 1, 2}} {
			if _, err := w.WriteAt(make([]byte, c.n), c.off); err == nil {
				t.Errorf("takes %d bytes at %d", c.n, c.off)
			}
			if err := w.Zero(c.off, c.n); err == nil {
				t.Errorf("takes %d zeroes at %d", c.n, c.off)
			}
		}
		if err := w.Zero(10, -1); err == nil {
			t.Error("takes a negative length")
		}
	})
	t.Run("nothing", func(t *testing.T) {
		w := open(t, 1<<20)
		_, err := w.WriteAt(nil, 1<<20)
		if err = errors.Join(err, w.Zero(1<<20, 0), w.Zero(0, 1<<20)); err != nil {
			t.Error(err)
		}
		finish(t, w)
	})
}

// fill writes content by several goroutines, in pieces of step bytes that come in any order; pieces of zero by Zero.
func fill(t *testing.T, w disk.Writer, content []byte, step int64) {
	var all sync.WaitGroup
	for _, i := range rand.Perm(int((int64(len(content)) + step - 1) / step)) {
		all.Go(func() {
			off := int64(i) * step
			p := content[off:min(off+step, int64(len(content)))]
			if len(bytes.Trim(p, "\x00")) == 0 {
				if err := w.Zero(off, int64(len(p))); err != nil {
					t.Error(err)
				}
			} else if n, err := w.WriteAt(p, off); n != len(p) || err != nil {
				t.Errorf("%d bytes at %d: %d, %v", len(p), off, n, err)
			}
		})
	}
	all.Wait()
}

func finish(t *testing.T, w Target) {
	t.Helper()
	err := w.Sync()
	if c, ok := w.Writer.(disk.Committer); ok && err == nil {
		err = c.Commit()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte{1}, 0); err == nil {
		t.Error("write after Close succeeds")
	}
}

func firstOther(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

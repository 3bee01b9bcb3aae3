package read_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"backy/pkg/disk/file"
	"backy/pkg/extent"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

const block = repotest.Block

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// source is a disk as a real file, holes and all, and beside it the truth about it.
type source struct {
	*repotest.Disk
	path string
}

func newSource(t testing.TB, d *repotest.Disk) *source {
	s := &source{d, filepath.Join(t.TempDir(), "disk.img")}
	s.write(t)
	return s
}

// write makes the file anew.
func (s *source) write(t testing.TB) {
	t.Helper()
	s.WriteFile(t, s.path)
}

func filled(seed uint64, size int64) *repotest.Disk {
	d := repotest.NewDisk(size)
	d.WriteAt(repotest.Noise(rand.New(rand.NewPCG(seed, 0)), size), 0)
	return d
}

// result is what a run wrote.
type result struct {
	stream []byte
	header extent.Header
	list   []extent.Extent
	note   repo.ReadNote // zero without a repository
}

// run reads a source; the fixture may be nil. What the options leave open is filled in.
func run(t testing.TB, f *repotest.Fixture, s *source, o read.Options) (*result, error) {
	t.Helper()
	var out bytes.Buffer
	elsewhere := o.Out != nil
	finish := func() {}
	if !elsewhere {
		o.Out, finish = pipe(t, &out)
	}
	if o.Disk == nil && o.Stream == nil {
		d, err := file.Open(s.path, file.Options{})
		must(t, err)
		defer d.Close()
		o.Disk = d
	}
	o.Now = repotest.Clock()
	if o.Log == nil {
		o.Log = repotest.Quiet
	}
	if o.Source == "" {
		o.Source = "disk"
	}
	if f != nil {
		o.Repo, o.Job = f.Repo, "vm1"
	} else if o.Block == 0 {
		o.Block = block
	}
	err := read.Run(ctx, o)
	finish()
	r := &result{stream: out.Bytes()}
	if err != nil || elsewhere {
		return r, err
	}
	x, err := extent.NewReader(bytes.NewReader(r.stream))
	must(t, err)
	r.header = x.Header()
	for {
		e, err := x.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		r.list = append(r.list, e)
	}
	if f != nil {
		id, ok := repo.SnapshotID(r.header.To)
		if !ok {
			t.Fatalf("header %+v", r.header)
		}
		r.note, err = f.ReadNote(id)
		must(t, err)
	}
	return r, nil
}

// pipe is a real one, which is what gets data without a copy. finish waits until all of it is in out.
func pipe(t testing.TB, out *bytes.Buffer) (w *os.File, finish func()) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := out.ReadFrom(r)
		done <- err
	}()
	return w, func() {
		t.Helper()
		w.Close()
		must(t, <-done)
		r.Close()
	}
}

// apply does to a copy of the base, which may be nil, what the stream says.
func (r *result) apply(t testing.TB, base *repotest.Disk) *repotest.Disk {
	t.Helper()
	d := repotest.NewDisk(r.header.Size)
	if base != nil {
		d = base.Clone()
		d.Resize(r.header.Size)
	}
	x, err := extent.NewReader(bytes.NewReader(r.stream))
	must(t, err)
	for {
		e, err := x.Next()
		if errors.Is(err, io.EOF) {
			return d
		}
		must(t, err)
		d.Punch(e.Offset, e.Length)
		if !e.Zero {
			data := make([]byte, e.Length)
			_, err := io.ReadFull(x, data)
			must(t, err)
			d.WriteAt(data, e.Offset)
		}
	}
}

// want fails unless the stream makes the source of the base.
func (r *result) want(t testing.TB, base *repotest.Disk, s *source) {
	t.Helper()
	if diff := r.apply(t, base).Diff(s.Disk); diff != "" {
		t.Fatalf("the stream does not give the disk: %s; extents %v", diff, r.list)
	}
}

// sent is the number of blocks of data in the stream.
func (r *result) sent() (n int) {
	for _, e := range r.list {
		if !e.Zero {
			n++
		}
	}
	return n
}

func rbd(extents ...extent.Extent) io.Reader { return repotest.RBD(extents...) }

func data(off, length int64) extent.Extent { return extent.Extent{Offset: off, Length: length} }
func zero(off, length int64) extent.Extent {
	return extent.Extent{Offset: off, Length: length, Zero: true}
}

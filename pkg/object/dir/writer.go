package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"backy/pkg/aligned"
	"backy/pkg/durable"
	"backy/pkg/object"
)

const (
	inFlight = 8        // objects that are written and made durable at once
	queue    = 64       // objects that are durable or on their way, and not yet in place
	direct   = 64 << 10 // from this size on, objects go past the page cache: cheaper, and nobody reads them soon
)

// Writer is a pool that objects can be put into. They are staged in a directory on the same file system, several at
// once, made durable there, and renamed into place in the order in which they were put. What is in place is whole after
// a power cut; that its name is there too takes a syncfs, which is the owner's to do.
type Writer struct {
	*Pool
	staging  string
	ops      durable.Ops
	staged   int         // names given so far
	slots    chan []byte // buffers: there are inFlight of them
	order    chan *staged
	placed   chan error // of the goroutine that renames, when it has ended
	writers  sync.WaitGroup
	buffered atomic.Bool // the file system knows no O_DIRECT
	err      error       // the first failure; nothing is put after it
}

// staged is an object on its way.
type staged struct {
	key     object.Key
	path    string
	durable chan error
}

var _ object.Store = (*Writer)(nil)

// Writer stages in the directory named, always by its path: a writer whose staging was taken away cannot go on.
func (p *Pool) Writer(staging string, ops durable.Ops) *Writer {
	w := &Writer{Pool: p, staging: staging, ops: ops, slots: make(chan []byte, inFlight)}
	for range inFlight {
		w.slots <- nil
	}
	return w
}

// Put implements object.Putter.
func (w *Writer) Put(ctx context.Context, key object.Key, frame []byte) error {
	if w.err != nil {
		return w.err
	}
	if w.order == nil {
		w.order, w.placed = make(chan *staged, queue), make(chan error, 1)
		go w.place(w.order, w.placed)
	}
	select {
	case buf := <-w.slots:
		w.stage(key, buf, frame)
	case err := <-w.placed: // it ends early only with an error
		w.placed <- err
		w.err = err
	case <-ctx.Done():
		w.err = context.Cause(ctx)
	}
	return w.err
}

// stage starts to write a copy of the frame, in a slot's buffer.
func (w *Writer) stage(key object.Key, buf, frame []byte) {
	if size := aligned.Up(len(frame)); cap(buf) < size {
		buf = aligned.Buffer(aligned.Up(size + size/8))
	}
	buf = buf[:copy(buf[:cap(buf)], frame)]
	w.staged++ // a name of its own, also for an object that is put again while it is on its way
	s := &staged{key, filepath.Join(w.staging, strconv.Itoa(w.staged)), make(chan error, 1)}
	w.writers.Go(func() {
		s.durable <- w.write(s, buf)
		w.slots <- buf
	})
	select {
	case w.order <- s:
	case err := <-w.placed:
		w.placed <- err
		w.err = err
	}
}

// write makes a durable file of the content of buf, whose capacity reaches to the next page.
func (w *Writer) write(s *staged, buf []byte) error {
	past := len(buf) >= direct && !w.buffered.Load()
	f, err := w.create(s.path, past)
	if err != nil {
		return fmt.Errorf("stage %s: %w", s.key, err)
	}
	if past {
		n := len(buf)
		whole := buf[:aligned.Up(n)]
		clear(whole[n:])
		if _, err = f.Write(whole); err == nil {
			err = f.Truncate(int64(n))
		}
	} else {
		_, err = f.Write(buf)
	}
	if err == nil {
		err = w.ops.File(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if past && errors.Is(err, unix.EINVAL) { // some file systems refuse it only now
		w.buffered.Store(true)
		if err = os.Remove(s.path); err == nil {
			return w.write(s, buf)
		}
	}
	if err != nil {
		return fmt.Errorf("stage %s: %w", s.key, err)
	}
	return nil
}

func (w *Writer) create(path string, past bool) (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if past {
		f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0o640)
		if !errors.Is(err, unix.EINVAL) {
			return f, err
		}
		w.buffered.Store(true)
		_ = os.Remove(path) // open(2) may have made it before it refused
	}
	return os.OpenFile(path, flags, 0o640)
}

// place renames what is durable, in order. It ends with the first error, or when there is nothing more to come.
func (w *Writer) place(order <-chan *staged, placed chan<- error) {
	for s := range order {
		err := <-s.durable
		if err == nil {
			if err = w.rename(s.path, w.Path(s.key)); err != nil {
				err = fmt.Errorf("put %s in place: %w", s.key, err)
			}
		}
		if err != nil {
			placed <- err
			return
		}
	}
	placed <- nil
}

// Publish implements object.Putter.
func (w *Writer) Publish(ctx context.Context) error {
	if w.err == nil {
		w.err = ctx.Err()
	}
	if err := w.finish(); w.err == nil {
		w.err = err
	}
	return w.err
}

// finish waits for all that is on its way.
func (w *Writer) finish() error {
	w.writers.Wait()
	if w.order == nil {
		return nil
	}
	close(w.order)
	err := <-w.placed
	w.order, w.placed = nil, nil
	return err
}

// Close gives up what was not published. The staged files are the owner's to remove.
func (w *Writer) Close() {
	_ = w.finish() // a failure is of no interest any more
	w.err = errors.New("the store is closed")
}

// rename makes the folder of the object's prefix with the first that needs it.
func (w *Writer) rename(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, gone := os.Lstat(from); gone != nil {
		return err // the staging was taken away
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	return os.Rename(from, to)
}

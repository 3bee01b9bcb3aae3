package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"backy/pkg/durable"
	"backy/pkg/object"
)

// A batch is what is made durable and visible together. Its files are open until then.
const (
	batchFiles = 64
	batchBytes = 64 << 20
	syncers    = 8 // fdatasync in flight
)

// Writer is a pool that objects can be put into. They are staged in a directory on the same file system, made durable
// there, and renamed into place, batch by batch: one batch is filled while the one before is on its way. What is in
// place is whole after a power cut; that its name is there too takes a syncfs, which is the owner's to do.
type Writer struct {
	*Pool
	staging string
	ops     durable.Ops
	staged  int // names given so far
	batch   []staged
	bytes   int
	flush   chan error // of the batch on its way; nil when there is none
	err     error      // the first failure; nothing is put after it
}

type staged struct {
	key  object.Key
	file *os.File
}

var _ object.Store = (*Writer)(nil)

// Writer stages in the directory named, always by its path: a writer whose staging was taken away cannot go on.
func (p *Pool) Writer(staging string, ops durable.Ops) *Writer {
	return &Writer{Pool: p, staging: staging, ops: ops}
}

// Put implements object.Putter.
func (w *Writer) Put(ctx context.Context, key object.Key, frame []byte) error {
	if w.err == nil {
		w.err = ctx.Err()
	}
	if w.err == nil {
		w.err = w.stage(key, frame)
	}
	if w.err == nil && (len(w.batch) >= batchFiles || w.bytes >= batchBytes) {
		w.err = w.send()
	}
	return w.err
}

func (w *Writer) stage(key object.Key, frame []byte) error {
	w.staged++ // a name of its own, also for an object that is put again while it is on its way
	f, err := os.OpenFile(filepath.Join(w.staging, strconv.Itoa(w.staged)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return fmt.Errorf("stage %s: %w", key, err)
	}
	w.batch = append(w.batch, staged{key, f})
	w.bytes += len(frame)
	if _, err := f.Write(frame); err != nil {
		return fmt.Errorf("stage %s: %w", key, err)
	}
	// Let the disk begin now; the fdatasync to come waits for what is left. That it is refused says nothing.
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	return nil
}

// Publish implements object.Putter.
func (w *Writer) Publish(ctx context.Context) error {
	if w.err == nil {
		w.err = ctx.Err()
	}
	if w.err == nil {
		w.err = w.send()
	}
	if err := w.wait(); w.err == nil {
		w.err = err
	}
	return w.err
}

// Close gives up what was not published. The staged files are the owner's to remove.
func (w *Writer) Close() {
	_ = w.wait() // a failure is of no interest any more
	for _, s := range w.batch {
		s.file.Close()
	}
	w.batch, w.err = nil, errors.New("the store is closed")
}

// send starts the batch on its way as soon as the one before has arrived.
func (w *Writer) send() error {
	if err := w.wait(); err != nil {
		return err
	}
	batch := w.batch
	w.batch, w.bytes = nil, 0
	w.flush = make(chan error, 1)
	go func() { w.flush <- w.publish(batch) }()
	return nil
}

func (w *Writer) wait() error {
	if w.flush == nil {
		return nil
	}
	err := <-w.flush
	w.flush = nil
	return err
}

// publish makes a batch durable, then visible, in its order.
func (w *Writer) publish(batch []staged) error {
	var group errgroup.Group
	group.SetLimit(syncers)
	for _, s := range batch {
		group.Go(func() error {
			err := w.ops.File(s.file)
			if cerr := s.file.Close(); err == nil {
				err = cerr
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("make objects durable: %w", err)
	}
	for _, s := range batch {
		if err := w.rename(s.file.Name(), w.Path(s.key)); err != nil {
			return fmt.Errorf("put %s in place: %w", s.key, err)
		}
	}
	return nil
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

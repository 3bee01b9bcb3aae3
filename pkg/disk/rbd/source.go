//go:build ceph

package rbd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk"
)

// Image is an image, or a snapshot of one, as a source. It is a disk.Disk, and all that
// package disk has for sources beyond that, but a disk.Splicer.
type Image struct {
	cluster *cluster
	img     *rbd.Image // for all but reads
	reader  *reader
	size    int64
	was     version // of the snapshot; without one, none

	open  sync.RWMutex // held by each call, and for good by Close: under a call the library must not lose the image
	done  atomic.Bool  // Close was called
	given atomic.Int32 // the calls that were given up, and are still within the library

	mu     sync.Mutex // of what follows
	mapper *mapper
}

var (
	_ disk.Disk        = (*Image)(nil)
	_ disk.Mapper      = (*Image)(nil)
	_ disk.Stater      = (*Image)(nil)
	_ disk.Deep        = (*Image)(nil)
	_ disk.Snapshotter = (*Image)(nil)
	_ disk.Fixed       = (*Image)(nil)
	_ disk.Differ      = (*Image)(nil)
)

// version is what tells a snapshot from another one of its name.
type version struct {
	id   uint64
	time time.Time
}

// Open opens an image to be read. Of one without a snapshot the reads are of no single moment if somebody writes to it.
// fs.ErrNotExist: the pool, the namespace, the image or the snapshot is not there.
func Open(a Address) (*Image, error) {
	c, err := connect(a)
	if err != nil {
		return nil, fmt.Errorf("open rbd:%s: %w", a, err)
	}
	d := &Image{cluster: c}
	if d.img, err = c.look(); err == nil {
		d.size, d.was, err = c.see(d.img)
	}
	if err == nil {
		d.reader, err = c.reader()
	}
	if err == nil && d.size == 0 {
		err = errors.New("is empty: there is no disk in it")
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("open rbd:%s: %w", a, err)
	}
	return d, nil
}

// see tells the size of an open image, and which snapshot that is.
func (c *cluster) see(img *rbd.Image) (int64, version, error) {
	size, err := img.GetSize()
	if err != nil || c.Snapshot == "" {
		return int64(size), version{}, cause(err)
	}
	id, err := img.GetSnapID(c.Snapshot)
	if err != nil {
		return 0, version{}, cause(err)
	}
	at, err := img.GetSnapTimestamp(id)
	return int64(size), version{id, time.Unix(at.Sec, at.Nsec)}, cause(err)
}

// Depth is how many reads keep the cluster busy: as many as Ceph's own tools have in flight.
func (d *Image) Depth() int { return depth }

const depth = 10

// Size is the size in bytes, as it was when the image was opened.
func (d *Image) Size() int64 { return d.size }

// enter begins a call, which leave ends.
func (d *Image) enter() error {
	if d.done.Load() { // who closes may not have the lock yet
		return fs.ErrClosed
	}
	d.open.RLock()
	if d.done.Load() {
		d.open.RUnlock()
		return fs.ErrClosed
	}
	return nil
}

func (d *Image) leave() { d.open.RUnlock() }

// Close closes the image and the connection, once all calls have come back. For one that was given up, as the cluster is
// silent, it does not wait: that may take as long as the library has patience. Then all is closed later, or by the end of the
// process.
func (d *Image) Close() error {
	if d.done.Swap(true) {
		return nil
	}
	if d.given.Load() > 0 {
		go d.close()
		return nil
	}
	return d.close()
}

func (d *Image) close() error {
	d.open.Lock()
	defer d.open.Unlock()
	defer d.cluster.Close()
	var err error
	if d.reader != nil {
		err = d.reader.Close()
	}
	if d.img != nil {
		err = errors.Join(err, cause(d.img.Close()))
	}
	if err != nil {
		return fmt.Errorf("close rbd:%s: %w", d.cluster.Address, err)
	}
	return nil
}

// Stat tells the size as it is now; of a snapshot also its time, as it never changes. It fails if the snapshot is not there
// any more: what is read of one that was removed may be of any time.
func (d *Image) Stat() (disk.State, error) {
	if err := d.enter(); err != nil {
		return disk.State{}, fmt.Errorf("look at rbd:%s: %w", d.cluster.Address, err)
	}
	defer d.leave()
	size, now, err := d.now()
	if err == nil && now != d.was {
		err = errors.New("the snapshot was removed, and made anew, while it was read")
	}
	if err != nil {
		return disk.State{}, fmt.Errorf("look at rbd:%s: %w", d.cluster.Address, err)
	}
	return disk.State{Size: size, Modified: now.time, Changed: now.time}, nil
}

// now looks at the image anew: one that is open for reading is not told of changes.
func (d *Image) now() (int64, version, error) {
	img, err := d.cluster.look()
	if err != nil {
		return 0, version{}, err
	}
	defer img.Close()
	return d.cluster.see(img)
}

// ReadAt reads as disk.Disk says.
func (d *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read rbd:%s at byte %d: negative offset", d.cluster.Address, off)
	}
	if err := d.enter(); err != nil {
		return 0, fmt.Errorf("read rbd:%s: %w", d.cluster.Address, err)
	}
	defer d.leave()
	if off >= d.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), d.size-off)]
	n, err := d.read(want, off)
	switch {
	case err != nil:
		return n, fmt.Errorf("read rbd:%s at byte %d: %w", d.cluster.Address, off+int64(n), err)
	case len(want) < len(p):
		return n, io.EOF
	}
	return n, nil
}

// tail is what of a read is looked at to see whether the image may have ended before it.
var tail [512]byte

// read fills p.
func (d *Image) read(p []byte, off int64) (int, error) {
	n, err := d.reader.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return n, disk.ErrShrunk
	}
	if err != nil || n == 0 || d.cluster.Snapshot != "" {
		return n, err
	}
	// What was cut off an image reads as zero.
	end := p[max(0, n-len(tail)):n]
	if !bytes.Equal(end, tail[:len(end)]) {
		return n, nil
	}
	size, err := int64(0), error(nil)
	if d.reader.header != "" {
		size, err = d.reader.sizeNow()
	} else {
		size, _, err = d.now()
	}
	if err == nil && size < off+int64(n) {
		return int(max(0, size-off)), disk.ErrShrunk
	}
	return n, err
}

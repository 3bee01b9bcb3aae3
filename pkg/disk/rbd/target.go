//go:build ceph

package rbd

import (
	"fmt"
	"io/fs"
	"math"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk"
)

// Target is an image as a target. It is a disk.Writer. It holds the image's exclusive lock, if the image has that feature.
type Target struct {
	cluster *cluster // its Address is that of what is written
	img     *rbd.Image
	size    int64
	period  int64 // bytes; what is aligned to it can be discarded
	fresh   bool  // reads as zero where nothing was written

	open sync.RWMutex // as in Image
	done bool

	mu     sync.Mutex
	broken error // a failed flush: what it lost is not reported again
}

// NewImage is a Target that does not exist under its name before Commit. It is a disk.Committer.
type NewImage struct {
	Target
	name string // what it is to be called
	kept bool   // it is not to be removed any more
}

var (
	_ disk.Writer    = (*Target)(nil)
	_ disk.Writer    = (*NewImage)(nil)
	_ disk.Committer = (*NewImage)(nil)
)

// Exists says whether there is such an image.
func Exists(a Address) (bool, error) {
	c, err := connectTarget(a)
	if err != nil {
		return false, err
	}
	defer c.Close()
	there, err := c.exists(a.Image)
	if err != nil {
		return false, fmt.Errorf("open rbd:%s: %w", a, err)
	}
	return there, nil
}

// connectTarget connects to where an image is written, which a snapshot never is.
func connectTarget(a Address) (*cluster, error) {
	if a.Snapshot != "" {
		return nil, fmt.Errorf("open rbd:%s: a snapshot cannot be written to; leave @%s away", a, a.Snapshot)
	}
	c, err := connect(a)
	if err != nil {
		return nil, fmt.Errorf("open rbd:%s: %w", a, err)
	}
	return c, nil
}

func (c *cluster) exists(image string) (bool, error) {
	img, err := rbd.OpenImageReadOnly(c.pool, image, rbd.NoSnapshot)
	switch {
	case err == nil:
		return true, cause(img.Close())
	case number(err) == syscall.ENOENT:
		return false, nil
	}
	return false, c.explain(err)
}

// Create begins a new image of size bytes, with the features and in the data pool that Ceph's configuration says. It is
// written beside its place, as IMAGE.partial. Both that and the image must not exist (fs.ErrExist).
func Create(a Address, size int64) (*NewImage, error) {
	c, err := connectTarget(a)
	if err != nil {
		return nil, err
	}
	n := &NewImage{Target: Target{cluster: c, size: size, fresh: true}, name: a.Image, kept: true}
	if err := n.create(); err != nil {
		n.Close()
		return nil, fmt.Errorf("create rbd:%s: %w", a, err)
	}
	return n, nil
}

func (n *NewImage) create() error {
	c := n.cluster
	if there, err := c.exists(n.name); err != nil {
		return err
	} else if there {
		return fs.ErrExist
	}
	c.Image += ".partial"
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	err := rbd.CreateImage(c.pool, c.Image, uint64(n.size), options)
	switch number(err) {
	case syscall.EEXIST:
		return fmt.Errorf("%s is there already: a restore is at work on it, or was killed; if so, remove it (rbd rm %s): %w", c.Image, c.Address, fs.ErrExist)
	case syscall.ENOENT:
		return c.notFound()
	}
	if err != nil {
		return c.explain(err)
	}
	n.kept = false
	return n.begin()
}

// OpenTarget opens an existing image to be written over, for a disk of size bytes. One that is smaller is refused, as is
// one that somebody has open, other than to read; of a larger one the rest stays as it is. fs.ErrNotExist: there is none.
func OpenTarget(a Address, size int64) (*Target, error) {
	c, err := connectTarget(a)
	if err != nil {
		return nil, err
	}
	t := &Target{cluster: c, size: size}
	if err = t.fit(); err == nil {
		err = t.begin()
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("open rbd:%s: %w", a, err)
	}
	return t, nil
}

// fit says why an image cannot be written over.
func (t *Target) fit() error {
	img, err := t.cluster.look()
	if err != nil {
		return err
	}
	defer img.Close()
	have, err := img.GetSize()
	if err != nil {
		return cause(err)
	}
	if int64(have) < t.size {
		return fmt.Errorf("has %d bytes, too few for a disk of %d bytes", have, t.size)
	}
	watchers, err := img.ListWatchers()
	if err != nil {
		return t.cluster.explain(err)
	}
	if len(watchers) > 0 {
		return fmt.Errorf("is in use by client.%d at %s; one that died is forgotten after half a minute", watchers[0].Id, watchers[0].Addr)
	}
	return nil
}

// begin opens the image to be written and locks it: without the lock a client that comes later would get it for the asking.
func (t *Target) begin() error {
	img, err := rbd.OpenImage(t.cluster.pool, t.cluster.Image, rbd.NoSnapshot)
	if err != nil {
		return t.cluster.explain(err)
	}
	t.img = img
	if t.period, err = period(img); err != nil {
		return err
	}
	features, err := img.GetFeatures()
	if err != nil {
		return cause(err)
	}
	if features&rbd.FeatureExclusiveLock == 0 {
		return nil
	}
	if err := img.LockAcquire(rbd.LockModeExclusive); err != nil {
		return fmt.Errorf("lock it: %w", t.cluster.explain(err))
	}
	return nil
}

// enter begins a call on a range, which leave ends.
func (t *Target) enter(off, length int64) error {
	if off < 0 || length < 0 || off > math.MaxInt64-length || off+length > t.size {
		return fmt.Errorf("write rbd:%s at byte %d, length %d: not within its %d bytes", t.cluster.Address, off, length, t.size)
	}
	t.open.RLock()
	if t.done {
		t.open.RUnlock()
		return fmt.Errorf("write rbd:%s: %w", t.cluster.Address, fs.ErrClosed)
	}
	return nil
}

func (t *Target) leave() { t.open.RUnlock() }

// WriteAt writes p at byte off.
func (t *Target) WriteAt(p []byte, off int64) (int, error) {
	if err := t.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer t.leave()
	n, err := t.img.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write rbd:%s at byte %d: %w", t.cluster.Address, off+int64(n), t.cluster.explain(err))
	}
	return n, nil
}

// Sync makes all durable that was written. Once it has failed it always does.
func (t *Target) Sync() error {
	if err := t.enter(0, 0); err != nil {
		return err
	}
	defer t.leave()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken == nil {
		if err := t.img.Flush(); err != nil {
			t.broken = fmt.Errorf("flush rbd:%s: %w", t.cluster.Address, t.cluster.explain(err))
		}
	}
	return t.broken
}

// Close closes the image, without a sync.
func (t *Target) Close() error { return t.close(func() error { return nil }) }

// close closes the image, does the last that needs the connection, and ends that.
func (t *Target) close(last func() error) error {
	t.open.Lock()
	defer t.open.Unlock()
	if t.done {
		return nil
	}
	t.done = true
	defer t.cluster.Close()
	if t.img != nil {
		if err := t.img.Close(); err != nil {
			return fmt.Errorf("close rbd:%s: %w", t.cluster.Address, cause(err))
		}
	}
	return last()
}

// Commit makes the image durable and gives it its name, unless another has taken that meanwhile (fs.ErrExist); where it
// fails, IMAGE.partial stays.
func (n *NewImage) Commit() error {
	if err := n.Sync(); err != nil {
		return err
	}
	n.kept = true
	return n.close(func() error {
		if err := rbd.GetImage(n.cluster.pool, n.cluster.Image).Rename(n.name); err != nil {
			return fmt.Errorf("rename rbd:%s to %s: %w", n.cluster.Address, n.name, n.cluster.explain(err))
		}
		return nil
	})
}

// Close removes the image, unless it was committed.
func (n *NewImage) Close() error {
	return n.close(func() error {
		if n.kept {
			return nil
		}
		n.kept = true
		if err := rbd.RemoveImage(n.cluster.pool, n.cluster.Image); err != nil {
			return fmt.Errorf("remove rbd:%s, which is not whole: %w", n.cluster.Address, n.cluster.explain(err))
		}
		return nil
	})
}

//go:build ceph

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk"
)

// Fixed says whether it is a snapshot that was opened.
func (d *Image) Fixed() bool { return d.cluster.Snapshot != "" }

// Snapshot makes a snapshot as disk.Snapshotter says. Who has the image's lock, as a running virtual machine does, keeps it:
// the library has him make the snapshot, between two of his writes.
func (d *Image) Snapshot(ctx context.Context, name string) error {
	a, err := d.at(name)
	if err == nil {
		_, err = d.await(ctx, func() (*Image, error) {
			return nil, d.cluster.change(func(img *rbd.Image) error {
				_, err := img.CreateSnapshot(name)
				return err
			})
		})
	}
	if err != nil {
		return fmt.Errorf("make the snapshot rbd:%s: %w", a, err)
	}
	return nil
}

// OpenSnapshot opens a snapshot as disk.Snapshotter says, by a connection of its own.
func (d *Image) OpenSnapshot(ctx context.Context, name string) (disk.Disk, error) {
	a, err := d.at(name)
	if err != nil {
		return nil, fmt.Errorf("open rbd:%s: %w", a, err)
	}
	s, err := d.await(ctx, func() (*Image, error) { return Open(a) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// RemoveSnapshot removes a snapshot as disk.Snapshotter says. Where the image is gone, so are its snapshots.
func (d *Image) RemoveSnapshot(ctx context.Context, name string) error {
	a, err := d.at(name)
	if err == nil {
		_, err = d.await(ctx, func() (*Image, error) {
			return nil, d.cluster.change(func(img *rbd.Image) error {
				snap := img.GetSnapshot(name)
				err := snap.Remove()
				if number(err) != syscall.EBUSY {
					return err
				}
				if protected, e := snap.IsProtected(); e == nil && protected {
					return fmt.Errorf("it is protected; `rbd snap unprotect %s` allows it", a)
				}
				return fmt.Errorf("somebody uses it: %w", cause(err))
			})
		})
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("remove the snapshot rbd:%s: %w", a, err)
}

// at is the address of one of the image's snapshots.
func (d *Image) at(name string) (Address, error) {
	a := d.cluster.Address
	if a.Snapshot != "" {
		return a, errors.New("it is of a snapshot, and only an image has some")
	}
	a.Snapshot = name
	if name == "" || strings.ContainsAny(name, "/@\x00") {
		return a, fmt.Errorf("%q is no name for a snapshot", name)
	}
	return a, nil
}

// await makes a call that nothing but the library's own limits of time can end, and returns when ctx ends. The call goes on
// then, so what it does may be done all the same; what it opens is closed. Close does not wait for it.
func (d *Image) await(ctx context.Context, call func() (*Image, error)) (*Image, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := d.enter(); err != nil {
		return nil, err
	}
	type result struct {
		opened *Image
		err    error
	}
	done, gone := make(chan result), make(chan struct{})
	go func() {
		defer d.leave()
		opened, err := call()
		select {
		case done <- result{opened, err}:
		case <-gone:
			if opened != nil {
				opened.Close()
			}
			d.given.Add(-1)
		}
	}()
	select {
	case r := <-done:
		return r.opened, r.err
	case <-ctx.Done():
		d.given.Add(1)
		close(gone)
		return nil, context.Cause(ctx)
	}
}

// change has something done to the image that only the holder of its lock may do. Where that is another client, the library
// asks him to; where there is none, it has the lock itself until this returns.
func (c *cluster) change(do func(*rbd.Image) error) error {
	img, err := rbd.OpenImage(c.pool, c.Image, rbd.NoSnapshot)
	if number(err) == syscall.ENOENT {
		return c.notFound()
	}
	if err == nil {
		err = do(img)
		if e := img.Close(); err == nil {
			err = e
		}
	}
	if err = cause(err); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w for %s (to make and remove snapshots, its caps need `profile rbd` for pool %s)", err, c.name, c.Address.pool())
	}
	return err
}

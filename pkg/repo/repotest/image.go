package repotest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"backy/pkg/disk"
	"backy/pkg/extent"
)

// Image is a Disk that snapshots can be made of, as of an image of Ceph: a disk.Snapshotter, whose snapshots are disk.Fixed
// and disk.Differ. While it is written to, no snapshot is made or removed.
type Image struct {
	*Disk
	Lie func(extent.Map) (extent.Map, error) // what snapshots say of changes in place of the truth, if set

	mu    sync.Mutex
	snaps map[string]*Snapshot
	count int64 // of all that were made
}

var (
	_ disk.Snapshotter = (*Image)(nil)
	_ disk.Differ      = (*Snapshot)(nil)
	_ disk.Stater      = (*Snapshot)(nil)
)

// NewImage returns an image that holds what the disk does.
func NewImage(d *Disk) *Image { return &Image{Disk: d, snaps: map[string]*Snapshot{}} }

// Snapshot is one of an Image.
type Snapshot struct {
	*Disk
	of     *Image
	made   time.Time
	closed bool
}

// Snapshot implements disk.Snapshotter.
func (i *Image) Snapshot(ctx context.Context, name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.fit(ctx, name); err != nil {
		return err
	}
	if i.snaps[name] != nil {
		return fmt.Errorf("make snapshot %s: %w", name, fs.ErrExist)
	}
	i.count++
	s := &Snapshot{Disk: i.Clone(), of: i, made: time.Unix(i.count, i.count)}
	s.Fail = i.Fail
	i.snaps[name] = s
	return nil
}

// OpenSnapshot implements disk.Snapshotter.
func (i *Image) OpenSnapshot(ctx context.Context, name string) (disk.Disk, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.fit(ctx, name); err != nil {
		return nil, err
	}
	if i.snaps[name] == nil {
		return nil, fmt.Errorf("open snapshot %s: %w", name, fs.ErrNotExist)
	}
	opened := *i.snaps[name]
	return &opened, nil
}

// RemoveSnapshot implements disk.Snapshotter.
func (i *Image) RemoveSnapshot(ctx context.Context, name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.fit(ctx, name); err != nil {
		return err
	}
	delete(i.snaps, name)
	return nil
}

// fit refuses what is no snapshot's name, and who was told to stop.
func (i *Image) fit(ctx context.Context, name string) error {
	if name == "" || strings.ContainsAny(name, "/@\x00") {
		return fmt.Errorf("%q is no name of a snapshot", name)
	}
	return context.Cause(ctx)
}

// Snapshots are the names of the snapshots that there are, in order.
func (i *Image) Snapshots() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Sorted(maps.Keys(i.snaps))
}

// Fixed implements disk.Fixed.
func (s *Snapshot) Fixed() bool { return true }

// Stat implements disk.Stater: no two snapshots were made at the same time.
func (s *Snapshot) Stat() (disk.State, error) {
	return disk.State{Size: s.size, Modified: s.made, Changed: s.made}, nil
}

// Close implements io.Closer.
func (s *Snapshot) Close() error {
	s.closed = true
	return nil
}

// ReadAt implements io.ReaderAt.
func (s *Snapshot) ReadAt(p []byte, off int64) (int, error) {
	if s.closed {
		return 0, fs.ErrClosed
	}
	return s.Disk.ReadAt(p, off)
}

// Changes implements disk.Differ, by looking: it is exact, or what Lie makes of that.
func (s *Snapshot) Changes(ctx context.Context, from string, _ int64) (extent.Map, error) {
	s.of.mu.Lock()
	old := s.of.snaps[from]
	s.of.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case old == nil:
		return nil, fmt.Errorf("what has changed since snapshot %s: %w", from, fs.ErrNotExist)
	}
	size := min(old.size, s.size)
	var list []extent.Extent
	for i := range (size + piece - 1) / piece {
		a, b := old.pieces[i], s.pieces[i]
		length := min(piece, size-i*piece)
		zero := b == nil && length == min(piece, s.size-i*piece)
		if a == nil && b == nil || a != nil && b != nil && bytes.Equal(a[:length], b[:length]) {
			continue
		}
		list = append(list, extent.Extent{Offset: i * piece, Length: length, Zero: zero})
	}
	m, err := extent.NewMap(list, size)
	if err == nil && s.of.Lie != nil {
		return s.of.Lie(m)
	}
	return m, err
}

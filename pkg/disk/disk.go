// Package disk says what a disk is to the rest: something with a size that is read by offset, and a target that is written
// by offset. What a kind of disk can do beyond that is a second interface, found by type assertion. Drivers are the leaves
// below; package disktest is the contract as a test.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"backy/pkg/extent"
)

// Disk is a source. ReadAt may be called by several goroutines at once and does not keep p. It reads up to Size and no
// further, even where the disk has grown meanwhile: the end is io.EOF, as io.ReaderAt says. Where the disk no longer reaches
// as far as Size, it fails with ErrShrunk. After Close every read fails.
type Disk interface {
	io.ReaderAt
	io.Closer
	Size() int64 // in bytes, as it was when the disk was opened; more than 0
}

// Mapper is a Disk that knows where it has never been written. NextData gives the first run of data at or after byte off, from
// start up to but without end; what lies before start is zero. A run may hold zeroes, and may end where another begins. There
// is no further data: io.EOF. It may be called while others read.
type Mapper interface {
	NextData(off int64) (start, end int64, err error)
}

// Stater is a Disk that can tell whether it changes while it is read.
type Stater interface {
	Stat() (State, error)
}

// Snapshotter is a Disk that snapshots can be made of: what it is at one moment, to be read for as long as that takes. A
// snapshot is made in no time and costs what changes on the disk while it is kept.
type Snapshotter interface {
	// Snapshot makes a snapshot, and no more: somebody may be waiting, frozen. Where one of that name is there, it fails with
	// fs.ErrExist.
	Snapshot(ctx context.Context, name string) error

	// OpenSnapshot opens a snapshot, whoever made it. Where there is none of that name, it fails with fs.ErrNotExist.
	OpenSnapshot(ctx context.Context, name string) (Disk, error)

	// RemoveSnapshot removes a snapshot. Where there is none of that name, there is nothing to be done.
	RemoveSnapshot(ctx context.Context, name string) error
}

// Fixed is a Disk that never changes while it is there, as a snapshot: what is read of it later is what it was at first.
type Fixed interface {
	Fixed() bool
}

// Differ is a Disk that knows what has changed since an earlier snapshot of the same disk. Changes returns all that may
// differ between that snapshot and this disk, which is clipped to what both have: where they differ in size, the caller
// knows what that means. grain, a power of two in bytes, is what the caller reads at least: the map need be no finer, so
// that its size does not grow with the number of small changes. Where there is no such snapshot, it fails with
// fs.ErrNotExist. What it says is a hint: it has been wrong in the field. Where the disk itself finds a part of it wrong, or
// so it seems, it returns what it has with a *DoubtError.
type Differ interface {
	Changes(ctx context.Context, from string, grain int64) (extent.Map, error)
}

// DoubtError says of a change map that something that it calls unchanged seems to have changed, so that nothing in it is worth
// much.
type DoubtError struct {
	Offset, Length int64 // bytes
	Why            string
}

func (e *DoubtError) Error() string {
	return fmt.Sprintf("the %d bytes from byte %d on, which it calls unchanged, seem to have changed: %s", e.Length, e.Offset, e.Why)
}

// Deep is a Disk that is read fastest with many reads in flight, because each of them waits for a network: Depth is how many.
type Deep interface {
	Depth() int
}

// Splicer is a Disk that can pass bytes into a pipe without copying them (splice(2)), which is worth it where they are in
// memory already.
type Splicer interface {
	Cached(off, length int64) bool // whether the whole range is in memory
	// Splice passes a range into a pipe and returns how much of it went in, which may be less than length, or none.
	Splice(pipe *os.File, off, length int64) (int64, error)
}

// State is what there is to see of a disk from outside, now.
type State struct {
	Size              int64     // in bytes
	Modified, Changed time.Time // its content; anything of it. Zero where no such time is kept, as for a block device
}

// Still says that a disk that was in state s and is in state now is sure not to have been written to in between, as far as
// times can tell. It is false where no times are kept.
func (s State) Still(now State) bool {
	return !s.Modified.IsZero() && s.Size == now.Size && s.Modified.Equal(now.Modified) && s.Changed.Equal(now.Changed)
}

// Writer is a target of a fixed size. WriteAt and Zero may be called by several goroutines at once, for ranges that do not
// overlap; no byte is given twice, and ranges past the end are refused. What was given is on the disk only after Sync has
// returned nil; an error of Sync is for good. Close does not sync.
type Writer interface {
	io.WriterAt
	io.Closer
	Zero(off, length int64) error // makes the range read as zero, whatever was there
	Sync() error
}

// Committer is a Writer that becomes visible only with Commit, which syncs it first; Close without Commit removes it.
type Committer interface {
	Commit() error
}

// ErrShrunk says that a disk ends before the size that it had when it was opened.
var ErrShrunk = errors.New("the disk has become smaller while it was read")

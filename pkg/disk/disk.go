// Package disk says what a disk is to the rest: something with a size that is read by offset, and a target that is written
// by offset. What a kind of disk can do beyond that is a second interface, found by type assertion. Drivers are the leaves
// below; package disktest is the contract as a test.
package disk

import (
	"errors"
	"io"
	"os"
	"time"
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

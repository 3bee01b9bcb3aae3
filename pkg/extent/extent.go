// Package extent holds the words in which all parts speak of a disk: an Extent, the stream of extents that one stage
// hands to the next, and the maps that say which parts of a disk are worth reading.
//
// The stream is that of `rbd export-diff`, version 1, so rbd itself can stand at either end of a pipe. All integers are
// little-endian:
//
//	"rbd diff v1\n"
//	f  u32 length, name       the snapshot that the stream builds on; without it, what is not mentioned is zero
//	t  u32 length, name       the snapshot that the stream leads to
//	s  u64 size               of the disk, in bytes; required
//	w  u64 offset, u64 length, data
//	z  u64 offset, u64 length zero
//	e                         the end, and nothing after it
//
// f, t and s come at most once, in any order, before the first w or z. The w and z records ascend and do not overlap; they
// need no alignment, and may be empty.
package extent

import (
	"bytes"
	"errors"
	"fmt"
)

// Magic is how a stream begins.
const Magic = "rbd diff v1\n"

// MaxName is the longest name of a snapshot in a stream, in bytes.
const MaxName = 4096

// Extent is a run of a disk: Length bytes from byte Offset on, known to be zero or (possibly) not.
type Extent struct {
	Offset, Length int64
	Zero           bool
}

// End is the offset of the first byte after the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Header is what a stream says before its extents.
type Header struct {
	From string // the snapshot that the stream builds on; "" is none: what is not mentioned is zero
	To   string // the snapshot that the stream leads to; "" is none
	Size int64  // of the disk, in bytes
}

// ErrTruncated says that a stream stopped before its end record; the error around it says where.
var ErrTruncated = errors.New("stream ends before its end record; the command that writes it may have failed")

// FormatError says what is wrong with a stream, and where.
type FormatError struct {
	Record int64  // number of the record from 1 on; 0 is the magic
	Offset int64  // where that record begins in the stream, in bytes
	Reason string // "z record passes the size 1024: offset 1000, length 25"
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("extent stream, record %d at byte %d: %s", e.Record, e.Offset, e.Reason)
}

// order checks that extents ascend, do not overlap and stay within the disk.
type order struct {
	size, end int64 // of the disk; of the last extent
}

// next checks the extent that follows, from numbers that may be anything, and says what is wrong with it, or "".
func (o *order) next(kind byte, offset, length uint64) string {
	switch {
	case offset > uint64(o.size) || length > uint64(o.size)-offset:
		return fmt.Sprintf("%c record passes the size %d: offset %d, length %d", kind, o.size, offset, length)
	case offset < uint64(o.end):
		return fmt.Sprintf("%c record at offset %d comes after one that ends at %d: records must ascend and not overlap", kind, offset, o.end)
	}
	o.end = int64(offset + length)
	return ""
}

var zeroes [64 << 10]byte

// IsZero reports whether all of p is zero. It compares piece by piece: most data differs in the first.
func IsZero(p []byte) bool {
	for len(p) > len(zeroes) {
		if !bytes.Equal(p[:len(zeroes)], zeroes[:]) {
			return false
		}
		p = p[len(zeroes):]
	}
	return bytes.Equal(p, zeroes[:len(p)])
}

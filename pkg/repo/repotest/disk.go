package repotest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"

	"backy/pkg/disk"
)

// piece is how fine a Disk keeps its holes, in bytes.
const piece = 64 << 10

// Disk is a disk in memory, as simple as can be: pieces of bytes, and holes between them that read as zero. It is a
// disk.Disk and a disk.Mapper. A huge one with few data costs little.
type Disk struct {
	size   int64
	pieces map[int64][]byte
	Fail   func(off int64) error // asked before each read, if set
}

var (
	_ disk.Disk   = (*Disk)(nil)
	_ disk.Mapper = (*Disk)(nil)
)

// NewDisk returns a disk of size bytes, all of it a hole.
func NewDisk(size int64) *Disk { return &Disk{size: size, pieces: map[int64][]byte{}} }

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// Close does nothing.
func (d *Disk) Close() error { return nil }

// Clone is a copy.
func (d *Disk) Clone() *Disk {
	c := NewDisk(d.size)
	for i, p := range d.pieces {
		c.pieces[i] = bytes.Clone(p)
	}
	return c
}

// each calls f for the parts of a range in each piece.
func each(off, length int64, f func(index, from, to int64)) {
	for end := off + length; off < end; {
		index, from := off/piece, off%piece
		to := min(piece, from+end-off)
		f(index, from, to)
		off += to - from
	}
}

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if d.Fail != nil {
		if err := d.Fail(off); err != nil {
			return 0, err
		}
	}
	n := max(0, min(int64(len(p)), d.size-off))
	at := p
	each(off, n, func(index, from, to int64) {
		if b, ok := d.pieces[index]; ok {
			copy(at, b[from:to])
		} else {
			clear(at[:to-from])
		}
		at = at[to-from:]
	})
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WriteAt implements io.WriterAt. What passes the end is lost.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	at := p
	each(off, min(int64(len(p)), d.size-off), func(index, from, to int64) {
		if d.pieces[index] == nil {
			d.pieces[index] = make([]byte, piece)
		}
		copy(d.pieces[index][from:to], at)
		at = at[to-from:]
	})
	return len(p), nil
}

// Punch makes a range zero; what is covered whole becomes a hole.
func (d *Disk) Punch(off, length int64) {
	first, end := (off+piece-1)/piece, (off+length)/piece
	for i, b := range d.pieces {
		if i >= first && i < end {
			delete(d.pieces, i)
		} else if from, to := max(0, off-i*piece), min(piece, off+length-i*piece); from < to {
			clear(b[from:to])
		}
	}
}

// Resize cuts the disk, or lets it grow by a hole.
func (d *Disk) Resize(size int64) {
	if size < d.size {
		d.Punch(size, d.size-size+piece)
	}
	d.size = size
}

// NextData implements disk.Mapper.
func (d *Disk) NextData(off int64) (start, end int64, err error) {
	first := int64(-1)
	for i := range d.pieces {
		if i >= off/piece && i*piece < d.size && (first < 0 || i < first) {
			first = i
		}
	}
	if off >= d.size || first < 0 {
		return 0, 0, io.EOF
	}
	next := first + 1
	for d.pieces[next] != nil {
		next++
	}
	return max(off, first*piece), min(next*piece, d.size), nil
}

// Diff says where the disks differ, or "".
func (d *Disk) Diff(want *Disk) string {
	if d.size != want.size {
		return fmt.Sprintf("the disk has %d bytes, want %d", d.size, want.size)
	}
	all := map[int64]bool{}
	for _, m := range []map[int64][]byte{d.pieces, want.pieces} {
		for i := range m {
			all[i] = true
		}
	}
	zero := make([]byte, piece)
	for _, i := range slices.Sorted(maps.Keys(all)) {
		a, b := d.pieces[i], want.pieces[i]
		if a == nil {
			a = zero
		}
		if b == nil {
			b = zero
		}
		if bytes.Equal(a, b) {
			continue
		}
		at := 0
		for a[at] == b[at] {
			at++
		}
		off := i*piece + int64(at)
		return fmt.Sprintf("byte %d (block %d) is %#x, want %#x", off, off/Block, a[at], b[at])
	}
	return ""
}

// Noise are n bytes of which no two calls give the same.
func Noise(r *rand.Rand, n int64) []byte {
	b := make([]byte, n)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	rand.NewChaCha8(seed).Read(b)
	return b
}

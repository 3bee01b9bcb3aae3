package repotest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/extent"
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

// Mutate changes a disk here and there, parts of blocks too: data, holes, written zeroes. It returns where.
func (d *Disk) Mutate(r *rand.Rand) (touched []extent.Extent) {
	for range r.IntN(4) {
		off := r.Int64N(d.Size())
		length := min(d.Size()-off, 1+r.Int64N(2*Block))
		switch r.IntN(4) {
		case 0:
			d.Punch(off, length)
		case 1:
			d.WriteAt(make([]byte, length), off)
		default:
			d.WriteAt(Noise(r, length), off)
		}
		touched = append(touched, extent.Extent{Offset: off, Length: length})
	}
	return touched
}

// ChangeMap is what was touched as a tool would tell it: sorted, joined, within the disk, and what is zero as zero, now
// and then.
func (d *Disk) ChangeMap(r *rand.Rand, touched []extent.Extent) []extent.Extent {
	touched = slices.Clone(touched)
	slices.SortFunc(touched, func(a, b extent.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var list []extent.Extent
	for _, e := range touched {
		if e.Length = min(e.Length, d.Size()-e.Offset); e.Length <= 0 {
			continue
		}
		if n := len(list); n > 0 && e.Offset <= list[n-1].End() {
			list[n-1].Length = max(list[n-1].End(), e.End()) - list[n-1].Offset
			continue
		}
		list = append(list, e)
	}
	for i, e := range list {
		b := make([]byte, e.Length)
		d.ReadAt(b, e.Offset)
		list[i].Zero = extent.IsZero(b) && r.IntN(2) == 0
	}
	return list
}

// AllocationMap is where the disk has no holes.
func (d *Disk) AllocationMap() (list []extent.Extent) {
	for off := int64(0); ; off = list[len(list)-1].End() {
		start, end, err := d.NextData(off)
		if err != nil {
			return list
		}
		list = append(list, extent.Extent{Offset: start, Length: end - start})
	}
}

// RBD is a map as rbd diff --format=json writes it.
func RBD(extents ...extent.Extent) io.Reader {
	list := []map[string]any{}
	for _, e := range extents {
		list = append(list, map[string]any{"offset": e.Offset, "length": e.Length, "exists": fmt.Sprint(!e.Zero)})
	}
	text, _ := json.Marshal(list)
	return bytes.NewReader(text)
}

// WriteFile makes an image file of the disk, with its holes.
func (d *Disk) WriteFile(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(d.Size()); err != nil {
		t.Fatal(err)
	}
	for _, e := range d.AllocationMap() {
		b := make([]byte, e.Length)
		d.ReadAt(b, e.Offset)
		if _, err := f.WriteAt(b, e.Offset); err != nil {
			t.Fatal(err)
		}
	}
}

package extent

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
)

// Map is a list of extents that ascend and do not overlap, neighbours of one kind merged, none of them empty. It holds what
// a tool has mentioned: in a change map all that may have changed, in an allocation map all that may hold data. An extent
// with Zero is known to read as zero. A map is a hint, not truth: every tool's has lied in the field.
type Map []Extent

// NewMap makes a map of a disk of size bytes from extents in any order. It keeps and sorts the slice. Extents that overlap or
// pass the size are an error; empty ones are dropped.
func NewMap(extents []Extent, size int64) (Map, error) {
	slices.SortFunc(extents, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	m := extents[:0]
	for _, e := range extents {
		if e.Offset < 0 || e.Length < 0 || e.Offset > size || e.Length > size-e.Offset {
			return nil, fmt.Errorf("extent at offset %d, length %d, passes the size of the disk, %d", e.Offset, e.Length, size)
		}
		if e.Length == 0 {
			continue
		}
		if len(m) == 0 {
			m = append(m, e)
			continue
		}
		last := &m[len(m)-1]
		switch {
		case e.Offset < last.End():
			return nil, fmt.Errorf("extent at offset %d, length %d, overlaps the one at %d, length %d", e.Offset, e.Length, last.Offset, last.Length)
		case e.Offset == last.End() && e.Zero == last.Zero:
			last.Length += e.Length
		default:
			m = append(m, e)
		}
	}
	return m, nil
}

// Run is a run of Count blocks from block number First on.
type Run struct {
	First, Count int64
	Zero         bool // all of them are known to be zero
}

// Blocks yields the blocks of blockSize bytes that the map touches, on a disk of size bytes: in order, each at most once,
// neighbours of one kind merged. Every block that an extent of data touches is data. A block is zero only when a zero extent
// covers it whole (the short last block, up to the disk's end); touched in part, it is data, that is, to be read.
func (m Map) Blocks(size, blockSize int64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		var last Run // not yet yielded; Count 0 is none
		add := func(first, end int64, zero bool) bool {
			first = max(first, last.First+last.Count) // a block that two extents touch is data for both
			switch {
			case first >= end:
				return true
			case last.Count > 0 && last.First+last.Count == first && last.Zero == zero:
				last.Count += end - first
				return true
			case last.Count > 0 && !yield(last):
				return false
			}
			last = Run{first, end - first, zero}
			return true
		}
		for _, e := range m {
			first, end := e.Offset/blockSize, ceil(e.End(), blockSize) // touched
			if !e.Zero {
				if !add(first, end, false) {
					return
				}
				continue
			}
			inFirst, inEnd := ceil(e.Offset, blockSize), e.End()/blockSize // covered whole
			if e.End() >= size {
				inEnd = end
			}
			if inFirst >= inEnd {
				inFirst, inEnd = end, end
			}
			if !add(first, inFirst, false) || !add(inFirst, inEnd, true) || !add(inEnd, end, false) {
				return
			}
		}
		if last.Count > 0 {
			yield(last)
		}
	}
}

// ceil is a/b rounded up, for numbers near the largest too.
func ceil(a, b int64) int64 {
	n := a / b
	if a%b != 0 {
		n++
	}
	return n
}

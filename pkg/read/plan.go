package read

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"

	"backy/pkg/blockmap"
	"backy/pkg/disk"
	"backy/pkg/extent"
	"backy/pkg/object"
)

// blocks is the number of blocks of the disk.
func (s *stage) blocks() int64 {
	return blockmap.Map{Size: s.Size, BlockSize: s.block}.Blocks()
}

// limit is the number of bytes of a block that are the disk's.
func (s *stage) limit(block int64) int64 { return min(s.block, s.Size-block*s.block) }

// data yields the runs of blocks, from one on, that may hold data: what the allocation map names, what lies between
// holes, or all.
func (s *stage) data(from int64) iter.Seq2[extent.Run, error] {
	mapper, ok := s.Disk.(disk.Mapper)
	switch {
	case s.alloc != nil:
		return func(yield func(extent.Run, error) bool) {
			for r := range s.alloc.Blocks(s.Size, s.block) {
				if r = clip(r, from, s.blocks()); r.Count > 0 && !r.Zero && !yield(r, nil) {
					return
				}
			}
		}
	case ok && !s.NoHoles:
		return s.betweenHoles(mapper, from)
	}
	return func(yield func(extent.Run, error) bool) {
		if n := s.blocks(); from < n {
			yield(extent.Run{First: from, Count: n - from}, nil)
		}
	}
}

func (s *stage) betweenHoles(m disk.Mapper, from int64) iter.Seq2[extent.Run, error] {
	return func(yield func(extent.Run, error) bool) {
		for block := from; block < s.blocks(); {
			start, end, err := m.NextData(block * s.block)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(extent.Run{}, err)
				return
			}
			r := extent.Run{First: max(block, start/s.block)}
			block = min(s.blocks(), (end-1)/s.block+1)
			if r.Count = block - r.First; r.Count > 0 && !yield(r, nil) {
				return
			}
		}
	}
}

// toRead is what a backup by map reads, or takes for zero, below the block where base and disk end to differ in size:
// what the map names, and what the base has lost.
func (s *stage) toRead(ctx context.Context) ([]extent.Run, error) {
	end := s.common()
	var runs []extent.Run
	for r := range s.change.Blocks(s.Size, s.block) {
		if r = clip(r, 0, end); r.Count > 0 {
			runs = append(runs, r)
		}
	}
	lost, err := s.lost(ctx)
	for _, r := range lost {
		if r = clip(r, 0, end); r.Count > 0 {
			runs = append(runs, r)
		}
	}
	return union(runs), err
}

// common is the number of blocks that mean the same in the base and now. Where the disk grew or shrank, the block in
// which the smaller one ends does not.
func (s *stage) common() int64 {
	if s.base.Size == s.Size {
		return s.blocks()
	}
	return min(s.base.Size, s.Size) / s.block
}

// lost is where the base reaches objects that are marked as bad.
func (s *stage) lost(ctx context.Context) ([]extent.Run, error) {
	if len(s.marks) == 0 {
		return nil, nil
	}
	pages, err := blockmap.NewPages(s.Repo.Objects())
	if err != nil {
		return nil, err
	}
	var runs []extent.Run
	err = blockmap.Walk(ctx, pages, s.base.Map(), blockmap.Visitor{
		Page: func(level int, name object.Name) (bool, error) { return true, nil },
		Block: func(block int64, _, name object.Name) error {
			if s.marks[object.Key{Kind: object.Chunk, Name: name}] {
				runs = append(runs, extent.Run{First: block, Count: 1})
			}
			return nil
		},
		Lost: func(e *blockmap.PageError) error {
			runs = append(runs, extent.Run{First: e.From, Count: e.To - e.From})
			return nil
		},
	})
	return runs, err
}

// clip is the part of a run from one block up to, but not with, another.
func clip(r extent.Run, from, to int64) extent.Run {
	first := max(r.First, from)
	return extent.Run{First: first, Count: max(0, min(r.First+r.Count, to)-first), Zero: r.Zero}
}

// union sorts runs and takes the overlaps out: a block that is to be read and also called zero is read.
func union(runs []extent.Run) []extent.Run {
	byFirst := func(a, b extent.Run) int { return cmp.Compare(a.First, b.First) }
	slices.SortFunc(runs, byFirst)
	var data, zero, out []extent.Run
	for _, r := range runs {
		if r.Zero {
			zero = join(zero, r)
		} else {
			data = join(data, r)
		}
	}
	next := 0 // the first of data that may touch what is zero
	for _, z := range zero {
		at, end := z.First, z.First+z.Count
		for next < len(data) && data[next].First+data[next].Count <= at {
			next++
		}
		for _, d := range data[next:] {
			if d.First >= end {
				break
			}
			if d.First > at {
				out = append(out, extent.Run{First: at, Count: d.First - at, Zero: true})
			}
			at = max(at, d.First+d.Count)
		}
		if at < end {
			out = append(out, extent.Run{First: at, Count: end - at, Zero: true})
		}
	}
	out = append(out, data...)
	slices.SortFunc(out, byFirst)
	return out
}

// join appends a run to others of its kind that begin before it, and makes one of it and the last where they touch.
func join(list []extent.Run, r extent.Run) []extent.Run {
	if n := len(list); n > 0 && r.First <= list[n-1].First+list[n-1].Count {
		list[n-1].Count = max(list[n-1].Count, r.First+r.Count-list[n-1].First)
		return list
	}
	return append(list, r)
}

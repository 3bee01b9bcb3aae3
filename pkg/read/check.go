package read

import (
	"context"
	"errors"
	"slices"

	"backy/pkg/blockmap"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

// checkMap reads some of the blocks that a map calls unchanged or zero and compares them with the base, or with zero.
// If the map lies, everything is read in place of it: maps are hints, not truth. And if it is a change map, and the disk is
// one that does not change, those made by such maps before are distrusted. With k of N blocks wrong and n read, it finds out
// with probability 1-(1-k/N)^n: this finds a broken map, not one lost write.
func (s *stage) checkMap(ctx context.Context) error {
	if s.Check == 0 && s.doubt == nil || s.Stream != nil || s.mode != repo.ReadMap && s.alloc == nil {
		return nil
	}
	var named []extent.Run
	from := int64(0) // of the blocks of which the allocation map speaks
	if s.mode == repo.ReadMap {
		var err error
		if named, err = s.toRead(ctx); err != nil {
			return err
		}
		from = s.common()
	}
	end := from
	if s.alloc != nil {
		end = s.blocks()
		for r := range s.alloc.Blocks(s.Size, s.block) {
			if r = clip(r, from, end); r.Count > 0 {
				named = append(named, r)
			}
		}
	}
	l, err := s.compare(ctx, s.doubted(s.sample(named, end), named), named, from)
	if err != nil || l.first < 0 && s.doubt == nil {
		return err
	}
	if s.mode == repo.ReadMap {
		s.mode = repo.ReadCompare
	}
	if l.first < 0 {
		s.Log.Warn("what has changed is in doubt; everything is read and compared", "source", s.Source, "error", s.doubt)
		return nil
	}
	s.alloc, s.NoHoles = nil, true
	if l.count > 0 && fixed(s.Disk) {
		return s.distrust(ctx, l)
	}
	s.Log.Warn("the map is wrong: a block that it leaves out is not as it says; everything is read in place of it", "source", s.Source, "offset", l.first)
	return nil
}

// sample picks blocks below end that are in no run of data: half of them at random, half by a cursor that comes round.
// It moves the cursor.
func (s *stage) sample(named []extent.Run, end int64) []int64 {
	var free []extent.Run // what is not read
	total, at := int64(0), int64(0)
	for _, r := range append(slices.Clone(named), extent.Run{First: end}) {
		if r.Zero {
			continue
		}
		if first := min(r.First, end); first > at {
			free = append(free, extent.Run{First: at, Count: first - at})
			total += first - at
		}
		at = max(at, r.First+r.Count)
	}
	nth := func(n int64) int64 {
		for _, r := range free {
			if n < r.Count {
				return r.First + n
			}
			n -= r.Count
		}
		return -1
	}
	rank := int64(0) // of the cursor among them
	for _, r := range free {
		if r.First+r.Count <= s.next {
			rank += r.Count
		} else if r.First < s.next {
			rank += s.next - r.First
		}
	}
	picked := map[int64]bool{}
	for i := range min(int64(s.Check), total) {
		if i%2 == 0 || total <= int64(s.Check) {
			block := nth(rank % total)
			picked[block] = true
			s.next = block + 1
			rank++
		} else {
			picked[nth(s.Random(total))] = true
		}
	}
	blocks := make([]int64, 0, len(picked))
	for b := range picked {
		blocks = append(blocks, b)
	}
	slices.Sort(blocks)
	return blocks
}

// doubted adds to a sample what the disk itself thinks that its map is wrong about.
func (s *stage) doubted(blocks []int64, named []extent.Run) []int64 {
	if s.doubt == nil {
		return blocks
	}
	for block := s.doubt.Offset / s.block; block < s.common() && block*s.block < s.doubt.Offset+s.doubt.Length; block++ {
		if !slices.ContainsFunc(named, func(r extent.Run) bool { return clip(r, block, block+1).Count > 0 }) {
			blocks = append(blocks, block)
		}
	}
	slices.Sort(blocks)
	return slices.Compact(blocks)
}

// compare reads blocks and finds those that are not what the base has, or not zero where a change map says so, or where,
// from a block on, an allocation map does.
func (s *stage) compare(ctx context.Context, blocks []int64, named []extent.Run, from int64) (*lies, error) {
	l := &lies{stage: s, first: -1, read: len(blocks)}
	if s.Repo != nil {
		l.evidence = s.Repo.NewQuarantine()
	}
	feed := func(ctx context.Context, yield func(*piece) bool) error {
		return s.feeding(ctx, yield, func(f feeder) error {
			for _, block := range blocks {
				b, err := s.pool.get(ctx, block)
				if err != nil {
					return err
				}
				zero := slices.ContainsFunc(named, func(r extent.Run) bool { return r.Zero && clip(r, block, block+1).Count > 0 })
				if block < from && !zero {
					name, err := s.cursor.At(ctx, block)
					if page := (*blockmap.PageError)(nil); errors.As(err, &page) && lostPage(err) {
						b.unknown = true
					} else if err != nil {
						return err
					}
					b.base = name
				}
				if err := f.pass(b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	work := func(ctx context.Context, b *piece) error {
		if err := s.pool.read(ctx, b); err != nil {
			return err
		}
		if b.zero = extent.IsZero(b.buf); b.zero {
			b.same = b.base.IsZero()
		} else {
			b.same = object.Sum(b.buf) == b.base
		}
		return nil
	}
	return l, parallel.Ordered(ctx, s.pool.workers, cap(s.pool.pieces), feed, work, func(b *piece) error {
		defer s.pool.put(b)
		if !b.same && !b.unknown {
			l.note(ctx, b, from)
		}
		return nil
	})
}

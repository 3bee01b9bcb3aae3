//go:build ceph

package rbd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk"
	"backy/pkg/extent"
)

// Changes tells what has changed since an earlier snapshot, as disk.Differ says: by the maps that the cluster keeps of the
// objects of all snapshots from that one to this, if it vouches for each, else by asking each object. Of the maps, some is
// checked.
func (d *Image) Changes(ctx context.Context, from string, grain int64) (extent.Map, error) {
	m, err := d.changes(ctx, from, grain)
	if err != nil {
		return m, fmt.Errorf("ask what differs between rbd:%s and its snapshot %s: %w", d.cluster.Address, from, err)
	}
	return m, nil
}

func (d *Image) changes(ctx context.Context, from string, grain int64) (extent.Map, error) {
	switch {
	case !d.Fixed():
		return nil, errors.New("it is no snapshot, so it may change meanwhile")
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.leave()
	list, err := d.since(from)
	if err != nil {
		return nil, err
	}
	p, err := d.differ(list, grain)
	if err != nil {
		return nil, err
	}
	for at := int64(0); at < p.end; at += p.window {
		if err := p.ask(ctx, d.img, at, min(at+p.window, p.end)); err != nil {
			return nil, err
		}
	}
	doubt := d.doubt(ctx, p)
	if doubt != nil && !errors.As(doubt, new(*disk.DoubtError)) {
		return nil, doubt
	}
	// Without the earlier snapshot, what was discarded since then seems never to have been there.
	again, err := d.since(from)
	if err == nil && again[0].Id != list[0].Id {
		err = errors.New("the earlier one was removed, and made anew, meanwhile")
	}
	if err != nil {
		return nil, err
	}
	return p.changes, doubt
}

// since lists the snapshots from an earlier one to the one that is read, by age.
func (d *Image) since(from string) ([]rbd.SnapInfo, error) {
	img, err := rbd.OpenImageReadOnly(d.cluster.pool, d.cluster.Image, rbd.NoSnapshot)
	if err != nil {
		return nil, d.cluster.explain(err)
	}
	defer img.Close()
	list, err := img.GetSnapshotNames()
	if err != nil {
		return nil, cause(err)
	}
	slices.SortFunc(list, func(a, b rbd.SnapInfo) int { return cmp.Compare(a.Id, b.Id) })
	first := slices.IndexFunc(list, func(s rbd.SnapInfo) bool { return s.Name == from })
	last := slices.IndexFunc(list, func(s rbd.SnapInfo) bool { return s.Id == d.was.id })
	switch {
	case first < 0:
		return nil, missing("there is no such snapshot")
	case last < 0:
		return nil, errors.New("the snapshot that is read has gone")
	case first > last:
		return nil, errors.New("that is the later one of the two")
	}
	return list[first : last+1], nil
}

// differ finds out what has changed, window by window.
type differ struct {
	from    string
	grain   int64
	end     int64 // where the smaller of the two ends
	whole   rbd.DiffWholeObject
	clone   bool // what is not there may show what the parent has
	unlike  run  // in one of the two this shows what the parent has, in the other it does not
	period  int64
	window  int64 // whole periods
	changes extent.Map
}

// differ decides how to ask what has changed between the first and the last of some snapshots.
func (d *Image) differ(list []rbd.SnapInfo, grain int64) (*differ, error) {
	ids := make([]uint64, len(list))
	for i, s := range list {
		ids[i] = s.Id
	}
	all, err := d.cluster.facts(ids...)
	if err != nil {
		return nil, err
	}
	period, err := period(d.img)
	if err != nil {
		return nil, err
	}
	first, last := all[0], all[len(all)-1]
	end := min(list[0].Size, list[len(list)-1].Size)
	// Of what was cut off, up to a snapshot between the two, and grew again after it, the library's maps tell nothing.
	shrunk := slices.ContainsFunc(list, func(s rbd.SnapInfo) bool { return s.Size < end })
	p := &differ{
		from: list[0].Name, grain: grain, end: int64(end),
		whole: rbd.DisableWholeObject, period: period, window: period * askedObjects,
		clone: last.overlap > 0, unlike: run{last.overlap, first.overlap},
	}
	if !slices.ContainsFunc(all, func(f facts) bool { return !f.mapped }) && !shrunk {
		p.whole, p.window = rbd.EnableWholeObject, period*mappedObjects
	}
	for p.window%p.grain != 0 {
		p.window *= 2
	}
	return p, nil
}

// block is what is known of a piece of the size of the grain.
type block struct {
	touched bool
	zero    int64 // bytes that are known to be zero
}

// ask asks for a part of the disk.
func (p *differ) ask(ctx context.Context, img *rbd.Image, at, end int64) error {
	blocks := make([]block, (end-at-1)/p.grain+1)
	mark := func(r run, zero bool) {
		for r.start, r.end = max(r.start, at), min(r.end, end); r.start < r.end; {
			b := &blocks[(r.start-at)/p.grain]
			next := min(r.end, r.start-r.start%p.grain+p.grain)
			b.touched = true
			if zero {
				b.zero += next - r.start
			}
			r.start = next
		}
	}
	err := img.DiffIterate(rbd.DiffIterateConfig{
		SnapName: p.from, Offset: uint64(at), Length: uint64(end - at), IncludeParent: rbd.IncludeParent, WholeObject: p.whole,
		Callback: func(off, length uint64, exists int, _ any) int {
			if ctx.Err() != nil {
				return -int(syscall.EINTR)
			}
			mark(run{int64(off), int64(off + length)}, exists == 0 && !p.clone)
			return 0
		},
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return cause(err)
	}
	mark(p.unlike, false)
	for i, b := range blocks {
		if b.touched {
			off := at + int64(i)*p.grain
			length := min(p.grain, end-off)
			p.add(extent.Extent{Offset: off, Length: length, Zero: b.zero == length})
		}
	}
	return nil
}

// add appends to what has changed.
func (p *differ) add(e extent.Extent) {
	if n := len(p.changes); n > 0 && p.changes[n-1].End() == e.Offset && p.changes[n-1].Zero == e.Zero {
		p.changes[n-1].Length += e.Length
		return
	}
	p.changes = append(p.changes, e)
}

//go:build ceph

package rbd

import (
	"context"
	"math/rand/v2"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk"
)

// doubted is how many objects are asked themselves, of those that the cluster's maps call unchanged.
const doubted = 256

// doubt asks some of the objects that are there, and that the cluster's maps call unchanged, whether they are. A rollback
// gives an image the map of an older snapshot, which does not know what was undone, and the cluster vouches for it. With k of
// N objects wrong and n asked, it finds out with probability 1-(1-k/N)^n: a *disk.DoubtError. An object tells without being
// read; one that was written, and rolled back to what it was, says that it has changed.
func (d *Image) doubt(ctx context.Context, p *differ) error {
	if p.whole == rbd.DisableWholeObject {
		return nil // all were asked
	}
	list, err := d.unchanged(p)
	if err != nil {
		return err
	}
	for _, at := range list {
		changed := false
		err := d.img.DiffIterate(rbd.DiffIterateConfig{
			SnapName: p.from, Offset: uint64(at), Length: uint64(min(p.period, p.end-at)), IncludeParent: rbd.IncludeParent,
			WholeObject: rbd.DisableWholeObject,
			Callback: func(uint64, uint64, int, any) int {
				changed = true
				return -int(syscall.EINTR)
			},
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case changed:
			return &disk.DoubtError{Offset: at, Length: min(p.period, p.end-at), Why: "the object says so, and the cluster's maps do not; was the image rolled back?"}
		case err != nil:
			return cause(err)
		}
	}
	return nil
}

// unchanged picks at random where there are objects that have not changed as far as is known; where these are striped, sets of
// them. Each is of p.period bytes.
func (d *Image) unchanged(p *differ) (picked []int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.know(0); err != nil {
		return nil, err
	}
	seen, from := int64(0), int64(0) // of such objects; what lies before was looked at
	known := p.changes               // without those that lie before
	for at := int64(0); at < p.end; at += d.mapper.window {
		if err := d.know(at); err != nil {
			return nil, err
		}
		for _, r := range d.mapper.runs {
			for off := max(from, r.start-r.start%p.period); off < min(r.end, p.end); off += p.period {
				from = off + p.period
				for len(known) > 0 && known[0].End() <= off {
					known = known[1:]
				}
				if len(known) > 0 && known[0].Offset < from {
					continue
				}
				if seen++; len(picked) < doubted {
					picked = append(picked, off)
				} else if i := rand.Int64N(seen); i < doubted { // Vitter's algorithm R
					picked[i] = off
				}
			}
		}
	}
	return picked, nil
}

//go:build ceph

package rbd

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/ceph/go-ceph/rbd"
)

// mapper knows where an image holds data, a window at a time, so that memory does not grow with the image.
type mapper struct {
	whole  bool  // by whole objects, from the cluster's map of them; else each object is asked
	window int64 // bytes; whole objects, also where these are striped
	at     int64 // the window that is known; -1 is none
	runs   []run // its data, ascending, without overlap
}

type run struct{ start, end int64 }

// Objects in a window: by the map a run is no smaller than an object; else an object may have many.
const (
	mappedObjects = 1 << 16
	askedObjects  = 1 << 8
)

// NextData finds data as disk.Mapper says, by what the cluster knows of the image's objects and of its parents'. What is
// data to it may have been zeroed, or discarded in part.
func (d *Image) NextData(off int64) (start, end int64, err error) {
	if err := d.enter(); err != nil {
		return 0, 0, fmt.Errorf("look for data in rbd:%s: %w", d.cluster.Address, err)
	}
	defer d.leave()
	d.mu.Lock()
	defer d.mu.Unlock()
	for off < d.size {
		if err := d.know(off); err != nil {
			return 0, 0, fmt.Errorf("look for data in rbd:%s from byte %d on: %w", d.cluster.Address, off, err)
		}
		m := d.mapper
		i, _ := slices.BinarySearchFunc(m.runs, off, func(r run, off int64) int { return cmp.Compare(r.end, off+1) })
		if i < len(m.runs) {
			return max(off, m.runs[i].start), m.runs[i].end, nil
		}
		off = m.at + m.window
	}
	return 0, 0, io.EOF
}

// know finds out what is in the window that byte off is in.
func (d *Image) know(off int64) (err error) {
	if d.mapper == nil {
		if d.mapper, err = d.newMapper(); err != nil {
			return err
		}
	}
	m := d.mapper
	at := off - off%m.window
	if m.at == at {
		return nil
	}
	m.at, m.runs = -1, m.runs[:0]
	whole := rbd.DisableWholeObject
	if m.whole {
		whole = rbd.EnableWholeObject
	}
	end := min(at+m.window, d.size)
	err = d.img.DiffIterate(rbd.DiffIterateConfig{
		Offset: uint64(at), Length: uint64(end - at), IncludeParent: rbd.IncludeParent, WholeObject: whole,
		Callback: func(off, length uint64, exists int, _ any) int {
			r := run{max(at, int64(off)), min(end, int64(off+length))}
			if exists != 0 && r.start < r.end {
				m.runs = append(m.runs, r)
			}
			return 0
		},
	})
	if err != nil {
		return cause(err)
	}
	m.at, m.runs = at, merge(m.runs)
	return nil
}

func (d *Image) newMapper() (*mapper, error) {
	facts, err := d.cluster.facts(d.was.id)
	if err != nil {
		return nil, err
	}
	period, err := period(d.img)
	if err != nil {
		return nil, err
	}
	objects := int64(askedObjects)
	if facts[0].mapped {
		objects = mappedObjects
	}
	return &mapper{whole: facts[0].mapped, window: objects * period, at: -1}, nil
}

// period is the number of bytes after which an image begins a new object, or, where it is striped, a new set of them.
func period(img *rbd.Image) (int64, error) {
	info, err := img.Stat()
	if err != nil {
		return 0, cause(err)
	}
	count, err := img.GetStripeCount()
	if err != nil {
		return 0, cause(err)
	}
	return int64(info.Obj_size * max(1, count)), nil
}

// merge sorts runs, which come in any order, and joins those that touch.
func merge(runs []run) []run {
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.start, b.start) })
	n := 0
	for _, r := range runs {
		if n > 0 && r.start <= runs[n-1].end {
			runs[n-1].end = max(runs[n-1].end, r.end)
			continue
		}
		runs[n] = r
		n++
	}
	return runs[:n]
}

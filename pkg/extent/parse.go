package extent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Kind is what a map is to be used for.
type Kind int

const (
	Change     Kind = iota // which parts may differ from a base; the rest is as in the base
	Allocation             // which parts may hold data; the rest is zero
)

func (k Kind) String() string {
	if k == Allocation {
		return "allocation map"
	}
	return "change map"
}

// ParseMap reads a map of a disk of size bytes, as JSON, from one of the tools that make them, and finds out which:
//
//	rbd diff --format=json                       allocation map
//	rbd diff --from-snap SNAP --format=json      change map
//	qemu-img map --output=json                   allocation map
//	nbdinfo --map --json                         allocation map
//	nbdinfo --map=qemu:dirty-bitmap:NAME --json  change map
//
// rbd's two cannot be told apart: kind decides. An allocation map leaves out what is zero; what reads as unknown is data.
// A foreign, overlapping, incomplete or out-of-range map, one of the wrong kind, and anything after its end are errors. The
// maps of qemu-img and nbdinfo name the whole disk, so a gap in one means that a part is missing. Those of rbd name only
// what there is: `[]` is a disk that did not change, or is zero.
func ParseMap(r io.Reader, kind Kind, size int64) (Map, error) {
	m, err := parseMap(r, kind, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return m, nil
}

func parseMap(r io.Reader, kind Kind, size int64) (Map, error) {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", truncated(err))
	} else if t != json.Delim('[') {
		return nil, errors.New("not the JSON list that rbd diff, qemu-img map or nbdinfo --map make")
	}
	var keep, rest []Extent
	var tool *format
	for n := 1; d.More(); n++ {
		var e element
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("entry %d: %w", n, truncated(err))
		}
		if tool == nil {
			tool = recognise(&e)
		}
		if tool == nil || !tool.fits(&e) {
			return nil, fmt.Errorf("entry %d is none of rbd diff, qemu-img map or nbdinfo --map", n)
		}
		x, what, err := tool.read(&e, kind)
		if err != nil {
			return nil, fmt.Errorf("entry %d of %s: %w", n, tool.name, err)
		}
		x.Zero = what == zero
		if tool.whole {
			x = clip(x, size)
		}
		if what == same || what == zero && kind == Allocation {
			rest = append(rest, x)
		} else {
			keep = append(keep, x)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, truncated(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows after the end of the list")
	}
	return checked(keep, rest, tool, size)
}

// checked makes the map of what is kept, and looks at what is not kept for overlaps and gaps.
func checked(keep, rest []Extent, tool *format, size int64) (Map, error) {
	all := slices.Concat(keep, rest)
	for i := range all {
		all[i].Zero = false
	}
	whole, err := NewMap(all, size)
	if err != nil {
		return nil, err
	}
	if tool != nil && tool.whole && size > 0 && (len(whole) != 1 || whole[0].Length != size) {
		return nil, fmt.Errorf("%s names only a part of the disk's %d bytes: the map is incomplete, or of another disk", tool.name, size)
	}
	return NewMap(keep, size)
}

// clip cuts what passes the size by less than a sector: QEMU rounds the size of a raw image up to 512 bytes.
func clip(x Extent, size int64) Extent {
	const sector = 512
	if over := x.Length - (size - x.Offset); x.Offset <= size && over > 0 && over < sector && size%sector != 0 && over == sector-size%sector {
		x.Length -= over
	}
	return x
}

// truncated gives the end of input in the middle a name.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("ends in the middle; the tool that made it may have failed")
	}
	return err
}

package blockmap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"backy/pkg/object"
)

// Editor makes a new map out of a base, from its first block to its last. Memory is one page a level; what is not set
// stays as in the base, whose pages are read only where something changes.
type Editor struct {
	Map
	// Lost is told of each page of the base that is damaged or missing and below which something was set. Where the page
	// is not complete, the map cannot be right; if Lost returns nil, the editor goes on all the same, with what was set.
	// Without Lost, a page that is complete is made anew, and one that is not ends the edit with its *PageError.
	Lost    func(page *PageError, complete bool) error
	base    *Cursor
	emit    func(name object.Name, text []byte) error
	open    [maxHeight + 1]*page // from the root's level down; a level is open only if all above are
	next    int64                // the first block that may still be set
	changed int64
}

// page is a page at work.
type page struct {
	index int64
	name  object.Name // in the base
	lines Lines       // as long as the page can be
	clean bool        // as in the base
	lost  *PageError  // the base's page cannot be read: all of it has to be set, up to the base's end
	need  int64       // lines up to the base's end, where the page is lost
	set   int64       // of them that are set
}

// NewEditor edits a map for a disk of this size, from a base with the same block size that may be shorter or longer.
// emit gets each page that the base does not have at that place, after the pages that it names.
func NewEditor(base *Cursor, size int64, emit func(name object.Name, text []byte) error) *Editor {
	return &Editor{Map: Map{Size: size, BlockSize: base.BlockSize}, base: base, emit: emit}
}

// Changed is the number of blocks whose names differ from the base's so far. Where a run of blocks under whole pages
// became zero, all of it counts.
func (e *Editor) Changed() int64 { return e.changed }

// Set names a block's chunk, the zero name for an all-zero one. Blocks come in ascending order.
func (e *Editor) Set(ctx context.Context, block int64, name object.Name) error {
	return e.set(ctx, 0, block, name)
}

// Zero makes the blocks from, up to but not with to, zero. Blocks come in ascending order.
func (e *Editor) Zero(ctx context.Context, from, to int64) error {
	for from < to {
		level := 0
		for level+1 < e.Height() && from%span(level+1) == 0 && (from+span(level+1) <= to || to >= e.Blocks()) {
			level++
		}
		if err := e.set(ctx, level, from/span(level), object.Name{}); err != nil {
			return err
		}
		from += span(level)
	}
	return nil
}

// set names what is at a place: a block (level 0), or a page, which can only become zero.
func (e *Editor) set(ctx context.Context, level int, index int64, name object.Name) error {
	block := index * span(level)
	if block < e.next || block >= e.Blocks() {
		return fmt.Errorf("block %d is out of order or beyond the disk's %d blocks", block, e.Blocks())
	}
	if err := e.move(ctx, level+1, index/Fanout); err != nil {
		return err
	}
	e.next = block + span(level)
	p, line := e.open[level+1], index%Fanout
	if p.lines[line] != name || p.lost != nil {
		p.put(line, name)
		e.changed += min(span(level), e.Blocks()-block)
	}
	return nil
}

// Finish makes the last pages and returns the new root.
func (e *Editor) Finish(ctx context.Context) (object.Name, error) {
	if e.Blocks() == 0 {
		return object.Name{}, nil
	}
	height := e.Height()
	level, index := height, int64(0) // the root alone
	if e.base.Blocks() > e.Blocks() {
		level, index = 1, (e.Blocks()-1)/Fanout // the pages over the last block may name blocks beyond it
	}
	if err := e.move(ctx, level, index); err != nil {
		return object.Name{}, err
	}
	for level := 1; level < height; level++ {
		if err := e.close(level); err != nil {
			return object.Name{}, err
		}
	}
	name, err := e.finish(height)
	e.Root = name
	return name, err
}

// move opens the page at a place, and those above it, and closes those that are over.
func (e *Editor) move(ctx context.Context, level int, index int64) error {
	for l := 1; l <= e.Height(); l++ {
		p := e.open[l]
		if p != nil && (l < level || p.index != index>>(10*(l-level))) {
			if err := e.close(l); err != nil {
				return err
			}
		}
	}
	for l := e.Height(); l >= level; l-- {
		if e.open[l] != nil {
			continue
		}
		p, err := e.load(ctx, l, index>>(10*(l-level)))
		if err != nil {
			return err
		}
		e.open[l] = p
	}
	return nil
}

// load copies a page from the base, as far as the new map reaches.
func (e *Editor) load(ctx context.Context, level int, index int64) (*page, error) {
	lines := min(Fanout, (e.Blocks()-index*span(level)+span(level-1)-1)/span(level-1))
	p := &page{index: index, clean: true, lines: make(Lines, lines)}
	old, err := e.base.at(ctx, level, index)
	if bad := (*object.BadError)(nil); errors.As(err, &p.lost) && (errors.As(err, &bad) || errors.Is(err, object.ErrNotExist)) {
		p.clean = false
		p.need = min(lines, max(0, (e.base.Blocks()-index*span(level)+span(level-1)-1)/span(level-1)))
		return p, nil
	} else if err != nil {
		return nil, err
	}
	p.name, p.lost = old.name, nil
	copy(p.lines, old.lines)
	if int64(len(old.lines)) > lines || (p.name.IsZero() && len(old.lines) > 0) {
		p.clean = false
	}
	return p, nil
}

// close names a page in the one above.
func (e *Editor) close(level int) error {
	p := e.open[level]
	if p == nil {
		return nil
	}
	name, err := e.finish(level)
	if err != nil {
		return err
	}
	parent := e.open[level+1]
	if line := p.index % Fanout; parent.lines[line] != name || parent.lost != nil {
		parent.put(line, name)
	}
	return nil
}

// put sets a line.
func (p *page) put(line int64, name object.Name) {
	p.lines[line], p.clean = name, false
	if line < p.need {
		p.set++
	}
}

// finish names a page and gives it away if it is new.
func (e *Editor) finish(level int) (object.Name, error) {
	p := e.open[level]
	e.open[level] = nil
	if p.lost != nil {
		complete := p.set == p.need
		switch {
		case e.Lost != nil:
			if err := e.Lost(p.lost, complete); err != nil {
				return object.Name{}, err
			}
		case !complete:
			return object.Name{}, p.lost
		}
	}
	if p.clean {
		return p.name, nil
	}
	lines := trim(slices.Clone(p.lines))
	if len(lines) == 0 {
		return object.Name{}, nil
	}
	text := lines.Text()
	name := object.Sum(text)
	if name == p.name {
		return name, nil
	}
	return name, e.emit(name, text)
}

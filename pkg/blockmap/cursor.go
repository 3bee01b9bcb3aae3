package blockmap

import (
	"context"
	"errors"
	"fmt"

	"backy/pkg/object"
)

// PageError says which blocks cannot be known because a page cannot be read.
type PageError struct {
	Name     object.Name
	From, To int64 // blocks, To not with them
	Err      error
}

func (e *PageError) Error() string {
	return fmt.Sprintf("the map of blocks %d to %d: %v", e.From, e.To-1, e.Err)
}

// Unwrap gives what came from the store.
func (e *PageError) Unwrap() error { return e.Err }

// Cursor looks blocks up in a map. It keeps one page a level, so going up the blocks reads each page once.
// It is for one goroutine.
type Cursor struct {
	Map
	pages *Pages
	path  [maxHeight + 1]place
}

// place is a page where it hangs in the tree. A page of level l and index i covers the blocks from i·1024^l on.
type place struct {
	known bool
	index int64
	name  object.Name // zero for an empty page, and for one above the root
	lines Lines
}

// NewCursor returns a cursor over the map; pages may be nil for a map whose root is the zero name.
func NewCursor(pages *Pages, m Map) *Cursor { return &Cursor{Map: m, pages: pages} }

// At is the name of a block's chunk, the zero name where it is all zero or beyond the map's end.
func (c *Cursor) At(ctx context.Context, block int64) (object.Name, error) {
	p, err := c.at(ctx, 1, block/Fanout)
	return p.lines.at(block % Fanout), err
}

// Next is the first block from this one on that is not all zero, and its chunk; the number of blocks where there is
// none. After a *PageError the search may go on at its To.
func (c *Cursor) Next(ctx context.Context, block int64) (int64, object.Name, error) {
	for level := 1; block < c.Blocks(); {
		p, err := c.at(ctx, level, block/span(level))
		if err != nil {
			return block, object.Name{}, err
		}
		i := block / span(level-1) % Fanout
		for i < int64(len(p.lines)) && p.lines[i].IsZero() {
			i++
		}
		switch found := i < int64(len(p.lines)); {
		case found && level == 1:
			return block/Fanout*Fanout + i, p.lines[i], nil
		case found: // somewhere below this line
			block = max(block, p.index*span(level)+i*span(level-1))
			level--
		case level <= c.Height(): // nothing more below this page
			block = (p.index + 1) * span(level)
			level++
		default:
			return c.Blocks(), object.Name{}, nil
		}
	}
	return c.Blocks(), object.Name{}, nil
}

// Trimmed fails if the map names anything beyond the disk's end. No editor makes such a map: were the disk to grow, that
// would be in it.
func (c *Cursor) Trimmed(ctx context.Context) error {
	if c.Blocks() == 0 && !c.Root.IsZero() {
		return errors.New("the map of a disk of 0 bytes has a page")
	}
	last := c.Blocks() - 1
	for level := c.Height(); level > 0 && last >= 0; level-- {
		p, err := c.at(ctx, level, last/span(level))
		if err != nil {
			return err
		}
		if most := last/span(level-1)%Fanout + 1; int64(len(p.lines)) > most {
			return fmt.Errorf("page %s names something beyond the disk's %d blocks", p.name, c.Blocks())
		}
	}
	return nil
}

// at is the page at a place, with no lines where there is none. Above the root's level it is as if the map had grown:
// the old root is line 0 of a page that has lines but no name, for it is in no store yet.
func (c *Cursor) at(ctx context.Context, level int, index int64) (*place, error) {
	p := &c.path[level]
	if p.known && p.index == index {
		return p, nil
	}
	*p = place{index: index}
	height := c.Height()
	switch {
	case level > height:
		if index == 0 {
			p.lines = trim(Lines{c.first(level - 1)})
		}
		p.known = true
		return p, nil
	case level == height && index == 0:
		p.name = c.Root
	case level < height:
		parent, err := c.at(ctx, level+1, index/Fanout)
		if err != nil {
			return p, err
		}
		p.name = parent.lines.at(index % Fanout)
	}
	if !p.name.IsZero() {
		lines, err := c.pages.Get(ctx, p.name)
		if err != nil {
			return p, &PageError{p.name, index * span(level), min((index+1)*span(level), c.Blocks()), err}
		}
		p.lines = lines
	}
	p.known = true
	return p, nil
}

// first is the name of the page at index 0 of a level from the height on, as it is or as it would be.
func (c *Cursor) first(level int) object.Name {
	if level == c.Height() || c.Root.IsZero() {
		return c.Root
	}
	return object.Sum(Lines{c.first(level - 1)}.Text())
}

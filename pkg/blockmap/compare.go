package blockmap

import (
	"context"
	"errors"

	"backy/pkg/object"
)

// Visitor is told what a new map has in place of an old one, from the first block to the last. A nil field is passed
// over.
type Visitor struct {
	// Page is told of each page of the new map that differs from the old one's at the same place, before what is
	// below it; level 1 is the lowest. It may keep Compare from going below it.
	Page func(level int, name object.Name) (below bool, err error)
	// Block is told of each block whose chunk differs; the zero name is an all-zero block.
	Block func(block int64, old, new object.Name) error
	// Lost is told of pages of the new map that cannot be read: damaged or missing. The walk goes on behind them
	// unless it returns an error. Without it, they end the walk.
	Lost func(*PageError) error
	// OldLost is told of pages of the old map that cannot be read. They count as empty unless it returns an error;
	// without it, they end the walk.
	OldLost func(*PageError) error
}

// Walk visits all of a map.
func Walk(ctx context.Context, pages *Pages, m Map, v Visitor) error {
	return Compare(ctx, NewCursor(nil, Map{Size: m.Size, BlockSize: m.BlockSize}), NewCursor(pages, m), v)
}

// Compare visits what is in the new map and not in the old one at the same place. Only pages that differ are read.
// Blocks beyond the end of the new map are not visited.
func Compare(ctx context.Context, old, new *Cursor, v Visitor) error {
	if old.Root == new.Root && old.Height() == new.Height() {
		return nil
	}
	c := comparison{old, new, v}
	return c.page(ctx, max(old.Height(), new.Height()), 0)
}

type comparison struct {
	old, new *Cursor
	Visitor
}

func (c comparison) page(ctx context.Context, level int, index int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if index*span(level) >= c.new.Blocks() {
		return nil
	}
	now, err := c.new.at(ctx, level, index)
	if err != nil {
		return lost(err, c.Lost)
	}
	if c.Page != nil && !now.name.IsZero() {
		if below, err := c.Page(level, now.name); err != nil || !below {
			return err
		}
	}
	was, err := c.old.at(ctx, level, index)
	if err != nil {
		if err := lost(err, c.OldLost); err != nil {
			return err
		}
	}
	for i := range int64(max(len(was.lines), len(now.lines))) {
		from, to := was.lines.at(i), now.lines.at(i)
		if from == to {
			continue
		}
		below := index*Fanout + i
		switch {
		case level > 1:
			if err := c.page(ctx, level-1, below); err != nil {
				return err
			}
			// The walk below moved the cursors; their pages at this level are as they were.
		case c.Block != nil && below < c.new.Blocks():
			if err := c.Block(below, from, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// lost tells of a page that is damaged or missing. What is wrong with it otherwise says nothing about the page.
func lost(err error, tell func(*PageError) error) error {
	var page *PageError
	var bad *object.BadError
	if tell != nil && errors.As(err, &page) && (errors.As(err, &bad) || errors.Is(err, object.ErrNotExist)) {
		return tell(page)
	}
	return err
}

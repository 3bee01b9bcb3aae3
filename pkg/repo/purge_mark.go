package repo

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/parallel"
)

// marker marks what revisions and registrations reach. Each page is read once.
type marker struct {
	*purge
	l     *listing
	pages chan *blockmap.Pages // one for each worker
	done  int64                // pages read
	total int64
}

// mark lists the revisions, then the registrations, and marks what they reach.
func (p *purge) mark(ctx context.Context, l *listing) error {
	p.step(StepRevisions, "")
	revisions, err := p.repo.everyRevision(ctx)
	if err != nil {
		return err
	}
	p.step(StepRegistrations, "")
	sessions, err := p.repo.Sessions()
	if err != nil {
		return err
	}
	p.step(StepMark, "")
	m := &marker{purge: p, l: l, pages: make(chan *blockmap.Pages, runtime.GOMAXPROCS(0)), total: l.pageCount()}
	for range cap(m.pages) {
		pages, err := blockmap.NewPages(p.repo.pool)
		if err != nil {
			return err
		}
		m.pages <- pages
	}
	if err := m.revisions(ctx, revisions); err != nil {
		return err
	}
	for _, s := range sessions {
		if p.DryRun && p.over[s.ID] {
			continue // it would have been removed
		}
		if err := m.registration(ctx, s.root); err != nil {
			return fmt.Errorf("%s reads from a damaged page: %w", s, err)
		}
	}
	return nil
}

// reached is a page, and a revision that reaches it.
type reached struct {
	name object.Name
	by   *Revision
}

// unread is a page on its way through the workers.
type unread struct {
	reached
	lines blockmap.Lines
}

// revisions marks what revisions reach, level by level, the roots' level first.
func (m *marker) revisions(ctx context.Context, list []Revision) error {
	var levels [][]reached // by level less 1
	add := func(level int, name object.Name, by *Revision) {
		if name.IsZero() || m.l.markPage(name) {
			return
		}
		for len(levels) < level {
			levels = append(levels, nil)
		}
		levels[level-1] = append(levels[level-1], reached{name, by})
	}
	for i, r := range list {
		add(r.Map().Height(), r.Root, &list[i])
	}
	for level := len(levels); level > 0; level-- {
		pages := levels[level-1]
		levels[level-1] = nil
		workers := cap(m.pages)
		err := parallel.Ordered(ctx, workers, 4*workers, func(_ context.Context, yield func(*unread) bool) error {
			for _, page := range pages {
				if !yield(&unread{reached: page}) {
					break
				}
			}
			return nil
		}, func(ctx context.Context, page *unread) error {
			return m.read(ctx, page, level == 1)
		}, func(page *unread) error {
			for _, name := range page.lines {
				add(level-1, name, page.by)
			}
			m.progress()
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads a page. What a lowest one names is marked at once.
func (m *marker) read(ctx context.Context, page *unread, lowest bool) error {
	pages := <-m.pages
	lines, err := pages.Get(ctx, page.name)
	m.pages <- pages
	if err != nil {
		return fmt.Errorf("revision %s of %s reaches a page that cannot be read, so what else it needs cannot be known; back the disk up again, restore the page, or forget the revision: %w",
			page.by.ID, page.by.Job, err)
	}
	if !lowest {
		page.lines = lines
		return nil
	}
	for _, name := range lines {
		if !name.IsZero() {
			m.l.markChunk(name)
		}
	}
	return nil
}

func (m *marker) progress() {
	m.done++
	if m.Progress != nil {
		m.Progress(m.done, max(m.done, m.total))
	}
}

// registration marks what is below a page that a session works with. Mostly a revision has it, and that is done. Otherwise
// nothing tells how high it is, so a line may name a chunk or a page: both are marked, and a page that is not there is
// passed over, for it may have gone before the session registered.
func (m *marker) registration(ctx context.Context, name object.Name) error {
	if name.IsZero() {
		return nil
	}
	if _, _, marked := m.l.state(object.Key{Kind: object.Page, Name: name}); marked || m.l.late[name] {
		return nil
	}
	pages := <-m.pages
	lines, err := pages.Get(ctx, name)
	m.pages <- pages
	if errors.Is(err, object.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m.l.markPage(name)
	m.progress()
	lowest, err := m.namesChunks(ctx, lines)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if line.IsZero() {
			continue
		}
		m.l.markChunk(line)
		if lowest {
			continue
		}
		if err := m.registration(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// namesChunks reports whether one of the lines, and so each of them, is known to name a chunk. A chunk is never a page:
// its content is longer.
func (m *marker) namesChunks(ctx context.Context, lines blockmap.Lines) (bool, error) {
	tried := 0
	for _, line := range lines {
		key := object.Key{Kind: object.Chunk, Name: line}
		if listed, _, _ := m.l.state(key); line.IsZero() || !listed {
			continue
		}
		if there, err := m.repo.pool.Has(ctx, key); there || err != nil {
			return there, err
		}
		if tried++; tried > 4 {
			break
		}
	}
	return false, nil
}

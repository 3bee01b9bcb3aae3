package scrub

import (
	"context"
	"errors"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/repo"
)

// survey finds out which revisions reach what is bad, and where. A page below which all is right is read once, however
// many revisions share it.
type survey struct {
	*scrub
	pages *blockmap.Pages
	clean map[object.Key]bool // pages that, with all below them, are right
	look  bool                // for objects that are missing, under the prefixes of this run
}

// loss is what a revision lacks at one place.
type loss struct {
	key      object.Key
	from, to int64 // blocks, to not with them
	finding
}

// span is the number of blocks below a page of this level, 1 for level 0.
func span(level int) int64 { return 1 << (10 * level) }

// revision lists what a map lacks, from the first block to the last.
func (v *survey) revision(ctx context.Context, m blockmap.Map) ([]loss, error) {
	var lost []loss
	if m.Root.IsZero() {
		return nil, nil
	}
	err := v.page(ctx, m, m.Height(), 0, m.Root, &lost)
	return lost, err
}

// page surveys what is below a page.
func (v *survey) page(ctx context.Context, m blockmap.Map, level int, block int64, name object.Name, lost *[]loss) error {
	key := object.Key{Kind: object.Page, Name: name}
	if v.clean[key] {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	before := len(*lost)
	if f, err := v.finding(ctx, key); err != nil {
		return err
	} else if f.err != nil {
		*lost = append(*lost, loss{key, block, min(block+span(level), m.Blocks()), f})
		if f.unknown {
			return nil
		}
	}
	lines, err := v.pages.Get(ctx, name)
	if err != nil {
		if len(*lost) == before {
			*lost = append(*lost, loss{key, block, min(block+span(level), m.Blocks()), judge(err)})
		}
		return nil
	}
	if len(*lost) > before { // it was marked, and is good again
		*lost = (*lost)[:before]
		v.cleared = append(v.cleared, key)
	}
	for i, below := range lines {
		at := block + int64(i)*span(level-1)
		if below.IsZero() || at >= m.Blocks() {
			continue
		}
		if level > 1 {
			err = v.page(ctx, m, level-1, at, below, lost)
		} else {
			err = v.chunk(ctx, at, below, lost)
		}
		if err != nil {
			return err
		}
	}
	if len(*lost) == before {
		v.clean[key] = true
	}
	return nil
}

func (v *survey) chunk(ctx context.Context, block int64, name object.Name, lost *[]loss) error {
	key := object.Key{Kind: object.Chunk, Name: name}
	f, err := v.finding(ctx, key)
	if err == nil && f.err != nil {
		*lost = append(*lost, loss{key, block, block + 1, f})
	}
	return err
}

var errMarked = errors.New("it was found bad before")

// finding is what is known of an object, which is looked for if need be.
func (v *survey) finding(ctx context.Context, key object.Key) (finding, error) {
	if f, ok := v.found[key]; ok {
		return f, nil
	}
	if v.marks[key] {
		return finding{errMarked, false}, nil
	}
	if !v.look || key.Kind != object.Chunk || !v.within(key) {
		return finding{}, nil
	}
	there, err := v.Repo.Objects().Has(ctx, key)
	switch {
	case err != nil:
		v.found[key] = judge(err)
	case !there: // in limbo, maybe, where it is as good
		_, err := v.Repo.Objects().Get(ctx, key, nil)
		if err != nil {
			v.found[key] = judge(err)
		}
	}
	return v.found[key], nil
}

// within says whether an object is under the prefixes that this run read.
func (s *scrub) within(key object.Key) bool {
	prefix := int(key.Name[0])<<4 | int(key.Name[1])>>4
	return prefix >= s.from && prefix < s.upTo || prefix+prefixes < s.upTo
}

// damaged is what a revision lost.
type damaged struct {
	repo.Revision
	lost    []repo.Range // what is bad
	unknown bool         // some of it could not be read
	read    bool         // all of it was read in this run
}

// everyone surveys all revisions of the repository. What is missing from one that was forgotten meanwhile is none's loss.
func (s *scrub) everyone(ctx context.Context, look bool) error {
	pages, err := blockmap.NewPages(s.Repo.Objects())
	if err != nil {
		return err
	}
	v := &survey{s, pages, map[object.Key]bool{}, look}
	for job, err := range s.Repo.Jobs(ctx) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.unseen(err)
			continue
		}
		list, broken, err := job.List()
		if err != nil {
			return err
		}
		for _, b := range broken {
			s.unknown(b.Path, b.Err)
		}
		for _, r := range list {
			lost, err := v.revision(ctx, r.Map())
			if err != nil {
				return err
			}
			if len(lost) > 0 {
				if _, err := job.Get(r.ID); errors.Is(err, repo.ErrNoRevision) {
					continue
				}
			}
			s.assign(r, lost)
		}
	}
	return nil
}

// assign notes what a revision lost, with the revision and with the objects.
func (s *scrub) assign(r repo.Revision, lost []loss) {
	d := damaged{Revision: r}
	for _, l := range lost {
		if l.unknown {
			d.unknown = true
			s.found[l.key] = l.finding
			continue
		}
		offset, length := r.Map().Range(l.from, l.to)
		d.lost = repo.AddRange(d.lost, offset, length)
		b := s.places[l.key]
		if b == nil {
			b = &repo.Bad{Key: l.key}
			s.places[l.key] = b
		}
		if !s.marks[l.key] {
			s.found[l.key] = l.finding
		}
		if len(b.Places) < maxPlaces {
			b.Places = append(b.Places, repo.Place{Job: r.Job, Revision: r.ID, Range: repo.Range{Offset: offset, Length: length}})
		} else {
			b.More++
		}
	}
	s.damage = append(s.damage, d)
}

package scrub

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"backy/pkg/object"
	"backy/pkg/repo"
)

// markEarly marks what was found bad so far, who reaches it being found out later: should this run be killed, nobody would
// come by there for a while.
func (s *scrub) markEarly(ctx context.Context) error {
	r, err := newReader(s.Repo.Objects(), 1, s.Repo.BlockSize)
	if err != nil {
		return err
	}
	for _, key := range s.keys(finding.bad) {
		if s.marks[key] || s.limbo[key] || s.early[key] {
			continue
		}
		var bad *object.BadError
		if _, err := r.judge(ctx, key, 0, nil); !errors.As(err, &bad) {
			continue // it is for the end to see
		}
		if err := s.Repo.NoteBad(repo.Bad{Key: key, Reason: bad.Reason, Got: bad.Got}); err != nil {
			return err
		}
		s.early[key] = true
	}
	return nil
}

// tellEarly tells what a run that did not come to its end has marked on the way.
func (s *scrub) tellEarly() {
	for _, key := range s.keys(finding.bad) {
		if s.early[key] && !slices.ContainsFunc(s.report.Bad, func(b Bad) bool { return b.Key == key.String() }) {
			s.tell("%s is bad: %v; it is marked, and the next scrub says which revisions reach it", key, s.found[key].err)
		}
	}
}

// mark marks what is bad, with the places that reach it. What no revision reaches is none of ours if it is missing, or was
// in limbo.
func (s *scrub) mark(ctx context.Context) error {
	old, err := s.Repo.Bads()
	if err != nil {
		return err
	}
	known := map[object.Key]repo.Bad{}
	for _, b := range old {
		known[b.Key] = b
	}
	for _, key := range s.keys(finding.bad) {
		f, places := s.found[key], s.places[key]
		missing := errors.Is(f.err, object.ErrNotExist)
		if (missing || s.limbo[key]) && places == nil && !s.marks[key] {
			delete(s.found, key)
			continue
		}
		b := repo.Bad{Key: key, Reason: f.err.Error(), Found: known[key].Found, By: known[key].By}
		if bad := (*object.BadError)(nil); errors.As(f.err, &bad) {
			b.Got, b.Reason = bad.Got, bad.Reason
		} else if missing {
			b.Reason = "it is missing"
		}
		if places != nil {
			b.Places, b.More = places.Places, places.More
		}
		if err := s.Repo.NoteBad(b); err != nil {
			return err
		}
		s.tellBad(b, !s.marks[key])
	}
	for _, b := range old {
		if _, told := s.found[b.Key]; told || !s.marks[b.Key] {
			continue
		}
		if err := s.remind(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// remind tells of a mark whose object this run has not read. What is missing and was needed by forgotten revisions alone
// loses its mark: nothing would ever heal it.
func (s *scrub) remind(ctx context.Context, b repo.Bad) error {
	places := s.places[b.Key]
	if places == nil && s.sure() {
		if _, err := s.Repo.Objects().Get(ctx, b.Key, nil); errors.Is(err, object.ErrNotExist) {
			delete(s.marks, b.Key)
			return s.Repo.Unmark(b.Key)
		}
		places = &repo.Bad{} // what it lists is gone
	}
	if places != nil && !slices.Equal(places.Places, b.Places) {
		b.Places, b.More = places.Places, places.More
		if err := s.Repo.NoteBad(b); err != nil {
			return err
		}
	}
	if s.Revisions == nil || s.reached(b.Key) {
		s.tellBad(b, false)
	}
	return nil
}

// sure says that the survey found all that revisions reach: there was no page that it could not look below.
func (s *scrub) sure() bool {
	for key := range s.places {
		if key.Kind == object.Page {
			return false
		}
	}
	return len(s.report.Unknown) == 0 && !slices.ContainsFunc(s.damage, func(d damaged) bool { return d.unknown })
}

// reached says whether one of the revisions that were to be read reaches an object.
func (s *scrub) reached(key object.Key) bool {
	b := s.places[key]
	return b != nil && slices.ContainsFunc(b.Places, func(p repo.Place) bool {
		return slices.ContainsFunc(s.Revisions, func(r repo.Revision) bool { return r.ID == p.Revision })
	})
}

func (s *scrub) tellBad(b repo.Bad, isNew bool) {
	bad := Bad{Key: b.Key.String(), Reason: b.Reason, Want: b.Key.Name.String(), New: isNew, Places: b.Places, More: b.More}
	if !b.Got.IsZero() {
		bad.Got = b.Got.String()
	}
	s.report.Bad = append(s.report.Bad, bad)
	where := "no revision reaches it"
	switch n := len(b.Places); {
	case n == 1:
		where = "it is in " + b.Places[0].String()
	case n > 1:
		where = fmt.Sprintf("it is in %s, and at %d places more", b.Places[0], int64(n-1)+b.More)
	}
	s.tell("%s is bad: %s; %s", b.Key, b.Reason, where)
}

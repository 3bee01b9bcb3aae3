package repo

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// history is what a text is about: the revisions of a job, oldest first.
type history struct {
	list []Revision
	zone *time.Location // of dates that do not say theirs
}

// Select returns the revisions that a text names, out of those of a job, oldest first; an empty list where a set has none.
//
// A single one is named by a count back (0 is the newest), last, latest or first, its id, a tag (the newest that has it),
// the start of its id (4 letters or more), or a date (the newest that is not younger), tried in this order. A date is
// 2026-11-21, "2026-11-21 10:00" or the like, with or without a T, seconds and a zone (else it is local time), and means
// all of that day, minute or second.
//
// Sets are all, clean, local, remote, tag:X, trust:X (trusted, verified, distrusted, unknown) and server:X (nothing for
// X: this one). a..b is all from one to the other, both included, in either order; without a or b, from the first or to
// the last. a&b is what of a is in b too, a,b is a and then what of b is not in it; .. binds more than &, and & more than
// the comma. first(a) and last(a) are single ones, reverse(a) is a in the other order, not(a) all but a. Parentheses
// group, and quotes keep operators in a tag from being taken for such.
//
// The order is that of the expression. An error is a *SpecError, or wraps ErrNoRevision for a single one that is not there.
func Select(list []Revision, spec string) ([]Revision, error) {
	h := &history{list, time.Local}
	indexes, err := h.spec(spec)
	if err != nil {
		return nil, err
	}
	selected := make([]Revision, len(indexes))
	for i, at := range indexes {
		selected[i] = list[at]
	}
	return selected, nil
}

func (h *history) spec(text string) ([]int, error) {
	if strings.ContainsAny(text, ",&()") || strings.Contains(text, "..") {
		if i, ok := h.newest(func(r Revision) bool { return slices.Contains(r.State.Tags, text) }); ok {
			return []int{i}, nil // a tag may look like an expression
		}
	}
	e, err := parse(text)
	if err != nil {
		return nil, err
	}
	indexes, err := e.eval(h)
	if mistake := (*SpecError)(nil); errors.As(err, &mistake) && mistake.Spec == "" {
		mistake.Spec = text
	}
	return indexes, err
}

// Between returns the revisions from one to another, both included; "" is the first, or the last.
func Between(list []Revision, from, until string) ([]Revision, error) {
	for _, side := range []string{from, until} {
		if side == "" {
			continue
		}
		e, err := parse(side)
		if err != nil {
			return nil, err
		}
		switch e.(type) {
		case word, call:
		default:
			return nil, &SpecError{side, "one revision or a date is wanted here"}
		}
	}
	return Select(list, from+".."+until)
}

// Select returns the revisions of the job that a text names; see the function Select.
func (j *Job) Select(spec string) ([]Revision, error) {
	list, broken, err := j.List()
	if err != nil {
		return nil, err
	}
	selected, err := Select(list, spec)
	return selected, j.explain(err, list, broken)
}

// Find returns the one revision that a text names; see the function Select.
func (j *Job) Find(spec string) (Revision, error) {
	list, broken, err := j.List()
	if err != nil {
		return Revision{}, err
	}
	r, err := find(list, spec)
	return r, j.explain(err, list, broken)
}

func find(list []Revision, spec string) (Revision, error) {
	found, err := Select(list, spec)
	switch {
	case err != nil:
		return Revision{}, err
	case len(found) == 0:
		return Revision{}, fmt.Errorf("%w: %s is none", ErrNoRevision, spec)
	case len(found) > 1:
		return Revision{}, &SpecError{spec, fmt.Sprintf("these are %d, and one is wanted; last(%s) is the last of them", len(found), spec)}
	}
	return found[0], nil
}

// explain adds to an error what there is.
func (j *Job) explain(err error, list []Revision, broken []Broken) error {
	switch {
	case err == nil || !errors.Is(err, ErrNoRevision):
		return err
	case len(broken) > 0:
		return fmt.Errorf("%w; %d revisions of %s cannot be read: %w", err, len(broken), j.Name, broken[0].Err)
	case len(list) == 0:
		return fmt.Errorf("%w: %s has none yet", ErrNoRevision, j.Name)
	}
	var tags []string
	for _, r := range list {
		for _, tag := range r.State.Tags {
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
	}
	slices.Sort(tags)
	if len(tags) > 10 {
		tags = append(tags[:10], "...")
	}
	have := "no tags"
	if len(tags) > 0 {
		have = "tags " + strings.Join(tags, ", ")
	}
	return fmt.Errorf("%w in %s, which has revisions 0 (the newest, %s) to %d back, and %s; `backy status` lists them", err, j.Name, list[len(list)-1].ID, len(list)-1, have)
}

func (h *history) where(match func(int) bool) []int {
	list := []int{}
	for i := range h.list {
		if match(i) {
			list = append(list, i)
		}
	}
	return list
}

func (h *history) newest(match func(Revision) bool) (int, bool) {
	for i, r := range slices.Backward(h.list) {
		if match(r) {
			return i, true
		}
	}
	return 0, false
}

func (u union) eval(h *history) ([]int, error) {
	all := []int{}
	seen := map[int]bool{}
	for _, e := range u {
		list, err := e.eval(h)
		if err != nil {
			return nil, err
		}
		for _, i := range list {
			if !seen[i] {
				seen[i] = true
				all = append(all, i)
			}
		}
	}
	return all, nil
}

func (b both) eval(h *history) ([]int, error) {
	all, err := b[0].eval(h)
	for _, e := range b[1:] {
		if err != nil {
			return nil, err
		}
		var list []int
		list, err = e.eval(h)
		in := map[int]bool{}
		for _, i := range list {
			in[i] = true
		}
		all = slices.DeleteFunc(slices.Clone(all), func(i int) bool { return !in[i] })
	}
	return all, err
}

func (c call) eval(h *history) ([]int, error) {
	list, err := c.arg.eval(h)
	if err != nil {
		return nil, err
	}
	name := string(c.fn.(word))
	if len(list) == 0 && (name == "first" || name == "last") {
		return nil, fmt.Errorf("%w: %s of none", ErrNoRevision, name)
	}
	return functions[name](h, list), nil
}

// point is a place in a history: a time, and among revisions of that very time, an index.
type point struct {
	t     time.Time
	index int
}

func (p point) compare(q point) int { return cmpOr(p.t.Compare(q.t), p.index-q.index) }

func (s span) eval(h *history) ([]int, error) {
	from, to, open := point{}, point{}, true // of the sides that are there, the least and the most
	for _, side := range []expr{s.a, s.b} {
		if side == nil {
			continue
		}
		a, b, err := h.side(side)
		if err != nil {
			return nil, err
		}
		if open || a.compare(from) < 0 {
			from = a
		}
		if open || b.compare(to) > 0 {
			to = b
		}
		open = false
	}
	return h.where(func(i int) bool {
		p := point{h.list[i].Time, i}
		return (s.a == nil || from.compare(p) <= 0) && (s.b == nil || p.compare(to) <= 0)
	}), nil
}

// side is where a side of a range begins and ends: a date is all of that day, minute or second.
func (h *history) side(e expr) (from, to point, err error) {
	if w, ok := e.(word); ok {
		if _, err := h.named(string(w)); errors.Is(err, errNotNamed) {
			if a, b, ok := parseDate(string(w), h.zone); ok {
				return point{a, -1}, point{b, math.MaxInt}, nil
			}
		}
	}
	list, err := e.eval(h)
	switch {
	case err != nil:
		return from, to, err
	case len(list) == 0:
		return from, to, fmt.Errorf("%w: %s, at the end of a range, is none", ErrNoRevision, e)
	case len(list) > 1:
		return from, to, &SpecError{Reason: fmt.Sprintf("%s is %d revisions, and one is wanted at the end of a range", e, len(list))}
	}
	p := point{h.list[list[0]].Time, list[0]}
	return p, p, nil
}

func (w word) eval(h *history) ([]int, error) {
	text := string(w)
	kind, value, _ := strings.Cut(text, ":")
	state := func(want string) []int {
		return h.where(func(i int) bool { return h.list[i].Info().Trust == want })
	}
	switch {
	case text == "all" || text == "clean" || text == "local" || text == "server:":
		return h.where(func(int) bool { return true }), nil
	case text == "remote" || kind == "server":
		return []int{}, nil // all revisions are this server's
	case kind == "tag":
		return h.where(func(i int) bool { return slices.Contains(h.list[i].State.Tags, value) }), nil
	case kind == "trust":
		value = strings.ToLower(value)
		states := []string{Trusted, Verified, Distrusted, Unknown}
		if !slices.Contains(states, value) {
			return nil, &SpecError{Reason: fmt.Sprintf("%q is no trust; there are: %s", value, strings.Join(states, ", "))}
		}
		return state(value), nil
	}
	i, err := h.named(text)
	if errors.Is(err, errNotNamed) {
		i, err = h.dated(text)
	}
	if err != nil {
		return nil, err
	}
	return []int{i}, nil
}

var errNotNamed = errors.New("not a name")

// named finds a single revision by anything but a date; errNotNamed where there is none and it may be one.
func (h *history) named(text string) (int, error) {
	if n, err := strconv.ParseInt(text, 10, 32); err == nil && len(text) < 8 {
		switch {
		case n < 0:
			return 0, &SpecError{Reason: text + " is negative; revisions are counted from the newest, 0, back"}
		case int(n) >= len(h.list):
			return 0, fmt.Errorf("%w: there are %d, so %s back is too far", ErrNoRevision, len(h.list), text)
		}
		return len(h.list) - 1 - int(n), nil
	}
	switch {
	case text != "last" && text != "latest" && text != "first":
	case len(h.list) == 0:
		return 0, ErrNoRevision
	case text == "first":
		return 0, nil
	default:
		return len(h.list) - 1, nil
	}
	if i, ok := h.newest(func(r Revision) bool { return r.ID == text }); ok {
		return i, nil
	}
	if i, ok := h.newest(func(r Revision) bool { return slices.Contains(r.State.Tags, text) }); ok {
		return i, nil
	}
	if len(text) < 4 {
		return 0, errNotNamed
	}
	i, ok := h.newest(func(r Revision) bool { return strings.HasPrefix(r.ID, text) })
	if !ok {
		return 0, errNotNamed
	}
	if other, two := h.newest(func(r Revision) bool { return strings.HasPrefix(r.ID, text) && r.ID != h.list[i].ID }); two {
		return 0, fmt.Errorf("%w: %q is the start of %s and %s", ErrNoRevision, text, h.list[i].ID, h.list[other].ID)
	}
	return i, nil
}

func (h *history) dated(text string) (int, error) {
	_, end, ok := parseDate(text, h.zone)
	if !ok {
		return 0, fmt.Errorf("%w: %q names none", ErrNoRevision, text)
	}
	i, ok := h.newest(func(r Revision) bool { return !r.Time.After(end) })
	if !ok {
		return 0, fmt.Errorf("%w from before %s", ErrNoRevision, text)
	}
	return i, nil
}

// parseDate reads a date; it is all of the time from a to b.
func parseDate(text string, zone *time.Location) (a, b time.Time, ok bool) {
	for _, form := range []struct {
		layout string
		unit   time.Duration // 0: a day
	}{
		{time.DateOnly, 0},
		{"2006-01-02 15:04", time.Minute}, {"2006-01-02T15:04", time.Minute}, {"2006-01-02T15:04Z07:00", time.Minute},
		{time.DateTime, time.Second}, {"2006-01-02T15:04:05", time.Second}, {time.RFC3339, time.Second},
	} {
		t, err := time.ParseInLocation(form.layout, text, zone)
		switch {
		case err != nil:
			continue
		case form.unit == 0:
			b = t.AddDate(0, 0, 1) // which may be 23 or 25 hours on
		case t.Nanosecond() != 0:
			return t, t, true // to the microsecond
		default:
			b = t.Add(form.unit)
		}
		return t, b.Add(-time.Nanosecond), true
	}
	return a, b, false
}

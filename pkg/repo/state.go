package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"backy/pkg/schedule"
)

// Guard says how careful Forget is. Protected revisions are never forgotten.
type Guard struct {
	// Force forgets also the last good revision of a job, its last revision, one that is younger than MinAge, one whose
	// state cannot be read, and one that cannot be read itself.
	Force bool
	// MinAge is the age that a revision has to have, 0 for none. One that is ahead of the clock has none.
	MinAge time.Duration
}

// Edit is a change of a job's revisions in the making. Nobody else changes them meanwhile; a backup may add one.
type Edit struct {
	Revisions []Revision // as they are now, oldest first
	Broken    []Broken   // .rev files that cannot be read

	job    *Job
	states map[string]State // by id, those to write
	forget map[string]bool  // ids
	why    map[string]string
}

// Because notes why something becomes of a revision, for the event that tells of it.
func (e *Edit) Because(id, why string) { e.why[id] = why }

// Change notes a change of a revision's state. It fails where the state cannot be read or change fails. A second change
// of one revision builds on the first.
func (e *Edit) Change(id string, change func(*State) error) error {
	r, err := e.find(id)
	if err != nil {
		return err
	}
	if r.StateErr != nil {
		return fmt.Errorf("%w; all that can be done is to forget it, with --force", r.StateErr)
	}
	s, ok := e.states[id]
	if !ok {
		s = r.State
		s.Tags, s.Damage = slices.Clone(s.Tags), slices.Clone(s.Damage)
	}
	if err := change(&s); err != nil {
		return err
	}
	for _, tag := range s.Tags {
		if err := CheckTag(tag); err != nil {
			return err
		}
	}
	if _, err := ParseState(s.Bytes()); err != nil {
		return fmt.Errorf("the new state of %s would not be readable: %w", id, err)
	}
	e.states[id] = s
	return nil
}

// Select returns the revisions that a text names; see the function Select.
func (e *Edit) Select(spec string) ([]Revision, error) {
	list, err := Select(e.Revisions, spec)
	return list, e.job.explain(err, e.Revisions, e.Broken)
}

// Between returns the revisions from one to another; see the function Between.
func (e *Edit) Between(from, until string) ([]Revision, error) {
	list, err := Between(e.Revisions, from, until)
	return list, e.job.explain(err, e.Revisions, e.Broken)
}

// Forget notes that a revision is to be forgotten. Whether it may be is decided at the end, with all others.
func (e *Edit) Forget(id string) error {
	if _, err := e.find(id); err != nil && !e.broken(id) {
		return err
	}
	e.forget[id] = true
	return nil
}

func (e *Edit) find(id string) (Revision, error) {
	i := slices.IndexFunc(e.Revisions, func(r Revision) bool { return r.ID == id })
	if i < 0 {
		return Revision{}, fmt.Errorf("%w: %s; it may have been forgotten meanwhile", ErrNoRevision, id)
	}
	return e.Revisions[i], nil
}

func (e *Edit) broken(id string) bool {
	return slices.ContainsFunc(e.Broken, func(b Broken) bool { return strings.HasSuffix(b.Path, "/"+id+revSuffix) })
}

// RefusedError says why revisions are not forgotten.
type RefusedError struct {
	Job    string
	ID     string // "" where it is about all of them
	Reason string // as in "it is protected"
	More   int    // how many others are refused, for some reason
	Force  bool   // with force it is done all the same
}

func (e *RefusedError) Error() string {
	what := "revision " + e.ID + " of " + e.Job
	if e.ID == "" {
		what = "revisions of " + e.Job
	}
	more := ""
	if e.More > 0 {
		more = fmt.Sprintf(" (and %d more are refused)", e.More)
	}
	hint := ""
	if e.Force {
		hint = "; `backy forget --force` does it all the same"
	}
	return fmt.Sprintf("nothing was changed: %s: %s%s%s", what, e.Reason, more, hint)
}

// check decides whether what is to be forgotten may be.
func (e *Edit) check(job string, g Guard, now time.Time) error {
	var refused []*RefusedError
	refuse := func(force bool, id, format string, args ...any) {
		refused = append(refused, &RefusedError{Job: job, ID: id, Reason: fmt.Sprintf(format, args...), Force: force})
	}
	good, left, goodLeft := 0, 0, 0
	for _, r := range e.Revisions {
		if r.Good() {
			good++
		}
		if s, ok := e.states[r.ID]; ok {
			r.State = s
		}
		if !e.forget[r.ID] {
			left++
			if r.Good() {
				goodLeft++
			}
			continue
		}
		switch age := now.Sub(r.Time); {
		case r.StateErr == nil && r.State.Protected:
			refuse(false, r.ID, "it is protected; unprotect it first")
		case g.Force:
		case r.StateErr != nil:
			refuse(true, r.ID, "its state cannot be read, so it may be protected")
		case age < g.MinAge && age < 0:
			refuse(true, r.ID, "it is ahead of the clock, so its age is not known, and it has to be %s old", schedule.FormatDuration(g.MinAge))
		case age < g.MinAge:
			refuse(true, r.ID, "it is only %s old, and the job keeps all that is younger than %s", age.Round(time.Second), schedule.FormatDuration(g.MinAge))
		}
	}
	for id := range e.forget {
		if e.broken(id) && !g.Force {
			refuse(true, id, "it cannot be read")
		}
	}
	switch {
	case len(refused) > 0 || g.Force || len(e.forget) == 0:
	case left == 0 && len(e.Revisions) > 0:
		refuse(true, "", "none would be left")
	case good > 0 && goodLeft == 0:
		refuse(true, "", "no good one would be left, only distrusted ones")
	}
	if len(refused) == 0 {
		return nil
	}
	slices.SortStableFunc(refused, func(a, b *RefusedError) int { // what force does not help first
		return map[bool]int{true: 1}[a.Force] - map[bool]int{true: 1}[b.Force]
	})
	refused[0].More = len(refused) - 1
	return refused[0]
}

// Edit changes states and forgets revisions, all or, if f or the guard refuses, nothing. f is called with the job's state
// lock held, and says what to do by the methods of Edit. What Edit returns nil for is durable. A failure or a power cut on
// the way leaves some of it done, each revision either as before or as wanted.
func (j *Job) Edit(ctx context.Context, g Guard, f func(*Edit) error) error {
	reserve := j.repo.OpenReserve()
	defer reserve.Close() // what lacks of it, a purge will tell
	var lock *Lock
	err := reserve.Do(func() (err error) {
		lock, err = j.repo.await(ctx, lockName(j.Name, "state"), "the state of "+j.Name)
		return err
	})
	if err != nil {
		return err
	}
	defer lock.Unlock()
	e := Edit{job: j, states: map[string]State{}, forget: map[string]bool{}, why: map[string]string{}}
	if e.Revisions, e.Broken, err = j.List(); err != nil {
		return err
	}
	if err := f(&e); err != nil {
		return err
	}
	if err := e.check(j.Name, g, j.repo.Now()); err != nil {
		return err
	}
	return j.apply(ctx, &e, reserve)
}

// apply writes the states, then forgets.
func (j *Job) apply(ctx context.Context, e *Edit, reserve *Reserve) error {
	var wrote []Revision
	for _, r := range e.Revisions { // in their order, so that it is the same each time
		s, ok := e.states[r.ID]
		if !ok || e.forget[r.ID] || string(s.Bytes()) == string(r.State.Bytes()) {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := reserve.Do(func() error { return j.writeState(r.ID, s) }); err != nil {
			return fmt.Errorf("change the state of %s: %w", r.ID, err)
		}
		wrote = append(wrote, r)
	}
	if len(wrote) > 0 {
		if err := j.repo.Ops.DirPath(j.Dir()); err != nil {
			return fmt.Errorf("make the changes durable: %w", err)
		}
	}
	for _, r := range wrote {
		j.changed(r, e.states[r.ID], e.why[r.ID])
	}
	ids := slices.Sorted(maps.Keys(e.forget))
	if err := j.unlink(ctx, ids, reserve); err != nil {
		return err
	}
	for _, id := range ids {
		j.forgotten(e, id)
	}
	return nil
}

// writeState puts a new state in the old one's place. Its content is durable before its name is.
func (j *Job) writeState(id string, s State) error {
	temp, path := j.file("."+id+stateSuffix), j.file(id+stateSuffix)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a change that was killed
		return err
	}
	err := j.repo.Ops.WriteFile(temp, s.Bytes(), 0o640)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp) // the next change would do it too
	}
	return err
}

// unlink takes the .rev files away, durably, before the states: without its state a revision could not be told from a
// protected one.
func (j *Job) unlink(ctx context.Context, ids []string, reserve *Reserve) error {
	if len(ids) == 0 {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, suffix := range []string{revSuffix, stateSuffix} {
		for _, id := range ids {
			err := reserve.Do(func() error { return os.Remove(j.file(id + suffix)) })
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forget %s: %w", id, err)
			}
		}
		if err := j.repo.Ops.DirPath(j.Dir()); err != nil {
			return fmt.Errorf("forget revisions durably: %w", err)
		}
	}
	return nil
}

// Change replaces the state of a revision by what change makes of it, durably. Nobody else changes it meanwhile. Where
// change fails, nothing is done and its error is returned.
func (j *Job) Change(ctx context.Context, id string, change func(*State) error) error {
	return j.Edit(ctx, Guard{}, func(e *Edit) error { return e.Change(id, change) })
}

// Forget removes revisions, all or, where one may not be forgotten (*RefusedError) or is not there (ErrNoRevision), none.
// The space that they took is freed by purges. ids are full ones; with force, also those of .rev files that cannot be read.
func (j *Job) Forget(ctx context.Context, ids []string, g Guard) error {
	return j.Edit(ctx, g, func(e *Edit) error {
		for _, id := range ids {
			if err := e.Forget(id); err != nil {
				return err
			}
		}
		return nil
	})
}

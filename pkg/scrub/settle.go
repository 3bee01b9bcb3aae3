package scrub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"backy/pkg/object"
	"backy/pkg/repo"
)

const (
	prefixes  = repo.Prefixes
	maxPlaces = 1000
	maxRanges = 20000 // in a state, which has at most 1 MiB
)

// settle draws the consequences: marks first, so that a scrub that is killed here is taken up by the next one.
func (s *scrub) settle(ctx context.Context) error {
	s.report.Complete = s.report.Complete && !s.over.Load()
	if err := s.clear(); err != nil {
		return err
	}
	if err := s.confirm(ctx); err != nil {
		return err
	}
	look := s.Revisions == nil && s.upTo > s.from
	if err := s.survey(ctx, look); err != nil {
		return err
	}
	if err := s.mark(ctx); err != nil {
		return err
	}
	if s.HealFrom != nil {
		if err := s.heal(ctx); err != nil {
			return err
		}
		if err := s.survey(ctx, false); err != nil {
			return err
		}
	}
	for _, key := range s.keys(func(f finding) bool { return f.unknown }) {
		s.unknown(key.String(), s.found[key].err)
	}
	return s.judgeRevisions(ctx)
}

// keys are the objects with such a finding, in their order.
func (s *scrub) keys(want func(finding) bool) []object.Key {
	var keys []object.Key
	for key, f := range s.found {
		if want(f) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b object.Key) int { return cmp.Compare(a.String(), b.String()) })
	return keys
}

// clear takes the marks of objects away that are good.
func (s *scrub) clear() error {
	if len(s.cleared) > 0 { // a backup beside this may have put the good copy there, and not have made it durable yet
		if err := s.Repo.Sync(); err != nil {
			return err
		}
	}
	for _, key := range s.cleared {
		if !s.marks[key] {
			continue
		}
		if err := s.Repo.Unmark(key); err != nil {
			return err
		}
		delete(s.marks, key)
		s.report.Healed = append(s.report.Healed, key.String())
	}
	s.cleared = nil
	return nil
}

// confirm reads again what was found bad and was not known before: somebody may have replaced it meanwhile.
func (s *scrub) confirm(ctx context.Context) error {
	r, err := newReader(s.Repo.Objects(), 1, s.Repo.BlockSize)
	if err != nil {
		return err
	}
	for _, key := range s.keys(finding.bad) {
		if s.marks[key] {
			continue
		}
		length := int64(0)
		if key.Kind == object.Chunk && len(s.Revisions) > 0 {
			length = s.Revisions[0].Block
		}
		switch _, err := r.judge(ctx, key, length, nil); {
		case err == nil:
			s.Log.Info(key.String() + " was bad when it was read first, and is good now")
			delete(s.found, key)
			if s.early[key] {
				s.marks[key] = true
				s.cleared = append(s.cleared, key)
			}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			s.found[key] = judge(err)
		}
	}
	return nil
}

// survey finds the losses of all revisions, if there can be any.
func (s *scrub) survey(ctx context.Context, look bool) error {
	s.damage, s.places = nil, map[object.Key]*repo.Bad{}
	if look || len(s.found)+len(s.marks) > 0 {
		if err := s.everyone(ctx, look); err != nil {
			return err
		}
	} else {
		for _, r := range s.Revisions {
			s.damage = append(s.damage, damaged{Revision: r})
		}
	}
	read := map[string]bool{}
	if s.whole() {
		for _, r := range s.Revisions {
			read[r.ID] = true
		}
		maps.Copy(read, s.there)
	}
	for i := range s.damage {
		s.damage[i].read = read[s.damage[i].ID]
	}
	return s.clear()
}

// heal takes good copies of what is bad from another repository.
func (s *scrub) heal(ctx context.Context) error {
	keys := s.keys(finding.bad)
	for key := range s.marks {
		if _, ok := s.found[key]; !ok {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	h, err := s.Repo.NewHealer()
	if err != nil {
		return err
	}
	defer h.Close()
	var frame []byte
	var healed []object.Key
	for _, key := range keys {
		if frame, err = s.HealFrom.Objects().Get(ctx, key, frame); err == nil {
			err = h.Put(ctx, key, frame)
		}
		switch {
		case err == nil:
			healed = append(healed, key)
		case judge(err).unknown:
			return fmt.Errorf("heal %s from %s: %w", key, s.HealFrom.Base, err)
		default:
			s.Log.Warn("there is no good copy of "+key.String()+" in "+s.HealFrom.Base, "reason", err)
		}
	}
	if err := h.Finish(ctx); err != nil {
		return err
	}
	for _, key := range healed {
		delete(s.found, key)
		delete(s.marks, key)
		s.report.Healed = append(s.report.Healed, key.String())
		s.Log.Info(key.String() + " is healed by the copy in " + s.HealFrom.Base)
	}
	return nil
}

// judgeRevisions changes the trust in revisions, those of a job at once.
func (s *scrub) judgeRevisions(ctx context.Context) error {
	for list := s.damage; len(list) > 0; {
		n := 1
		for n < len(list) && list[n].Job == list[0].Job {
			n++
		}
		if err := s.judgeJob(ctx, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (s *scrub) judgeJob(ctx context.Context, list []damaged) error {
	if !slices.ContainsFunc(list, func(d damaged) bool {
		now := d.State
		s.decide(d, &now)
		return d.StateErr == nil && string(now.Bytes()) != string(d.State.Bytes())
	}) {
		for _, d := range list {
			s.verdict(d, d.State)
		}
		return nil
	}
	job, err := s.Repo.Job(list[0].Job)
	if err != nil {
		return err
	}
	now := map[string]repo.State{}
	err = job.Edit(ctx, repo.Guard{}, func(e *repo.Edit) error {
		for _, d := range list {
			if d.StateErr != nil {
				continue // its trust is unknown, and stays so
			}
			err := e.Change(d.ID, func(state *repo.State) error {
				s.decide(d, state)
				now[d.ID] = *state
				return nil
			})
			if err != nil && !errors.Is(err, repo.ErrNoRevision) {
				s.Log.Warn("the trust in "+d.ID+" stays as it is", "reason", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range list {
		if state, ok := now[d.ID]; ok {
			s.verdict(d, state)
		}
	}
	return nil
}

// verdict lists a revision in the report if there is something to say about it.
func (s *scrub) verdict(d damaged, now repo.State) {
	if d.read && !d.unknown && len(d.lost) == 0 && now.Trust == repo.Distrusted && s.Source == nil {
		how := "compare it with its source: backy scrub -s SOURCE"
		if now.Why == repo.WhyOperator {
			how = "backy verify lifts what an operator spoke"
		}
		s.Log.Warn("revision "+d.ID+" of "+d.Job+" reads back whole and stays distrusted, for what it holds may not be what the disk held; "+how, "why", now.Why)
	}
	if d.State.Trust == now.Trust && len(d.lost) == 0 && !(s.Source != nil && len(s.differs) > 0) {
		return
	}
	s.report.Revisions = append(s.report.Revisions, Verdict{Job: d.Job, ID: d.ID, Time: d.Time, Was: d.State.Trust, Trust: now.Trust, Why: now.Why, Damage: now.Damage})
}

// decide makes of a revision's state what follows from what was read of it.
func (s *scrub) decide(d damaged, now *repo.State) {
	was := now.Trust
	source := s.Source != nil && s.Revisions[0].ID == d.ID // it was compared, in whole or in part
	switch {
	case source && len(s.differs) > 0 && s.report.NoVerdict == "":
		if now.Trust != repo.Distrusted || now.Why == repo.WhyDamage {
			now.Why = repo.WhySource
		}
		now.Trust, now.Damage = repo.Distrusted, merge(now.Damage, d.lost, s.differs)
	case len(d.lost) > 0:
		if now.Trust != repo.Distrusted {
			now.Trust, now.Why = repo.Distrusted, repo.WhyDamage
		}
		if now.Why == repo.WhyDamage {
			now.Damage = merge(d.lost)
		} else {
			now.Damage = merge(now.Damage, d.lost)
		}
	case !d.read || d.unknown || now.Trust != d.State.Trust || now.Why != d.State.Why || now.Trust == repo.Verified:
		return
	case source && s.report.NoVerdict == "" && !s.sourceLost,
		now.Trust == repo.Trusted,
		now.Why == repo.WhyDamage,
		now.Why == repo.WhyOperator && s.Lift:
		now.Trust, now.Why, now.Damage = repo.Verified, "", nil
	}
	switch {
	case d.read && !d.unknown:
		now.Checked = s.start
	case was != now.Trust:
		now.Checked = time.Time{}
	}
}

// merge joins lists of ranges to one, in order, without overlap. Where there are too many, those are joined that are
// nearest to each other.
func merge(lists ...[]repo.Range) []repo.Range {
	all := slices.Concat(lists...)
	slices.SortFunc(all, func(a, b repo.Range) int { return cmp.Compare(a.Offset, b.Offset) })
	for gap := int64(0); ; gap = max(1<<20, 2*gap) {
		merged := all[:0:0]
		for _, r := range all {
			n := len(merged)
			if n > 0 && r.Offset-gap <= merged[n-1].Offset+merged[n-1].Length {
				merged[n-1].Length = max(merged[n-1].Length, r.Offset+r.Length-merged[n-1].Offset)
			} else {
				merged = append(merged, r)
			}
		}
		if all = merged; len(all) <= maxRanges {
			return all
		}
	}
}

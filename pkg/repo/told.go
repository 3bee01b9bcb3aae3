package repo

import (
	"slices"

	"backy/pkg/event"
)

// changed tells what became of a revision whose new state is durable.
func (j *Job) changed(r Revision, now State, why string) {
	e := event.Event{Job: j.Name, Revision: r.ID, Tags: now.Tags, Message: why}
	if lost := without(r.State.Tags, now.Tags); len(lost) > 0 {
		e.Kind, e.Lost = event.Expired, lost
		j.repo.Events.Emit(e)
		e.Lost = nil
	}
	was := r.State
	switch {
	case now.Trust == Distrusted && (was.Trust != Distrusted || was.Why != now.Why):
		e.Kind, e.Message = event.Distrusted, now.Reason()
		if why != "" {
			e.Message = why
		}
		j.repo.Events.Emit(e)
	case now.Trust == Verified && was.Trust != Verified:
		e.Kind = event.Verified
		j.repo.Events.Emit(e)
	}
}

// Reason is why a revision is distrusted, in words; "" for one that is not.
func (s State) Reason() string { return reasons[s.Why] }

var reasons = map[string]string{
	WhyOperator: "an operator said so",
	WhyDamage:   "objects that it needs are bad",
	WhySource:   "it differs from its source",
	WhyMap:      "it was made by a change map that was wrong",
}

// forgotten tells that a revision is gone.
func (j *Job) forgotten(e *Edit, id string) {
	r, _ := e.find(id) // of one that cannot be read nothing more is known
	j.repo.Events.Emit(event.Event{Kind: event.Expired, Job: j.Name, Revision: id, Gone: true, Lost: r.State.Tags, Message: e.why[id]})
}

// without are the words of a list that are not in another one.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}

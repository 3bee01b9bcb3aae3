package scrub

import (
	"fmt"
	"slices"

	"backy/pkg/event"
	"backy/pkg/repo"
)

// tellRight tells of the revisions that were to be read and are right, as far as the change of their trust does not tell.
func (s *scrub) tellRight() {
	if s.Share == 0 || !s.report.Complete || s.report.Skipped != "" || s.report.NoVerdict != "" || len(s.differs) > 0 || s.sourceLost {
		return
	}
	for _, r := range s.Revisions {
		at := slices.IndexFunc(s.damage, func(d damaged) bool { return d.ID == r.ID && d.Job == r.Job })
		if at < 0 || len(s.damage[at].lost) > 0 || s.damage[at].unknown || r.State.Trust == repo.Distrusted ||
			slices.ContainsFunc(s.report.Revisions, func(v Verdict) bool { return v.ID == r.ID && v.Was != v.Trust }) {
			continue
		}
		e := event.Event{Kind: event.Verified, Job: r.Job, Revision: r.ID, Tags: r.State.Tags, Read: s.report.Read}
		switch {
		case s.whole():
		case s.report.Objects+s.report.Blocks == 0: // the sample is empty, for nothing changed
			continue
		case s.Source != nil:
			e.Message = fmt.Sprintf("of a sample: %d blocks are as in %s", s.report.Blocks, s.SourceName)
		default:
			e.Message = fmt.Sprintf("of a sample: %d objects are right", s.report.Objects)
		}
		s.Events.Emit(e)
	}
}

package repo

import "backy/pkg/schedule"

// Good reports whether the revision is known and believed to be what the disk was: its state can be read, and it is not
// distrusted.
func (r Revision) Good() bool { return r.StateErr == nil && r.State.Trust != Distrusted }

// Scheduled are revisions as the schedule sees them.
func Scheduled(list []Revision) []schedule.Revision {
	all := make([]schedule.Revision, len(list))
	for i, r := range list {
		all[i] = schedule.Revision{ID: r.ID, Time: r.Time, Tags: r.State.Tags, Known: r.StateErr == nil, Good: r.Good(),
			Protected: r.State.Protected, Duration: r.Duration, Read: r.Read, Compared: r.WholeRead()}
	}
	return all
}

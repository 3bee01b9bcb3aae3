package scrub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"backy/pkg/event"
	"backy/pkg/repo"
)

// A report is the repository's: the check of a change map leaves such, too.
type (
	Report   = repo.Report
	Bad      = repo.BadObject
	Unknown  = repo.Unread
	Mismatch = repo.Mismatch
	Verdict  = repo.Verdict
)

const maxUnknown = 100

// unseen notes a directory whose revisions are not looked at: nobody says what these have lost.
func (s *scrub) unseen(err error) {
	var stray *repo.StrayError
	var path *fs.PathError
	switch {
	case errors.As(err, &stray):
		if s.noteUnknown(stray.Path, err) {
			s.Log.Warn(err.Error())
		}
	case errors.As(err, &path):
		s.unknown(path.Path, err)
	default:
		s.unknown("a directory", err)
	}
}

// unknown notes what could not be read.
func (s *scrub) unknown(what string, err error) {
	if s.noteUnknown(what, err) {
		s.Log.Warn("cannot read "+what+", which says nothing about it", "error", err)
	}
}

// noteUnknown reports whether there is something new to tell.
func (s *scrub) noteUnknown(what string, err error) bool {
	if slices.ContainsFunc(s.report.Unknown, func(u Unknown) bool { return u.What == what }) {
		return false // it was met twice
	}
	if len(s.report.Unknown) >= maxUnknown {
		s.report.UnknownMore++
		return false
	}
	s.report.Unknown = append(s.report.Unknown, Unknown{What: what, Reason: err.Error()})
	return true
}

// tell says that data is damaged, while it goes on.
func (s *scrub) tell(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.Log.Error(text)
	s.Events.Emit(event.Event{Kind: event.Damaged, Message: text})
}

// About lists the jobs that the report of an id, kept in the repository, is about: those with a revision that it found
// damaged, or whose trust it changed.
func About(r *repo.Repo, id string) ([]string, error) {
	q, err := r.Quarantine(id)
	if err != nil {
		return nil, err
	}
	text, err := q.Read()
	if err != nil {
		return nil, err
	}
	var report struct {
		Revisions []struct {
			Job string `json:"job"`
		} `json:"revisions"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("report %s: %w", id, err)
	}
	var jobs []string
	for _, r := range report.Revisions {
		if !slices.Contains(jobs, r.Job) {
			jobs = append(jobs, r.Job)
		}
	}
	return jobs, nil
}

// keep keeps the report if anything was found.
func (s *scrub) keep() error {
	r := &s.report
	if len(r.Bad)+len(r.Differs)+len(r.Unknown) == 0 {
		return nil
	}
	return s.quarantine.Keep(r)
}

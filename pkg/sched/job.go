package sched

import (
	"slices"
	"time"

	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

// lanes are those of package schedule.
var lanes = []string{schedule.Fast, schedule.Slow}

// job is what the daemon knows of a job. All of it is guarded by Daemon.mu.
type job struct {
	name   string
	config *config.ScheduledJob // nil of a dead one: a directory with revisions that the configuration does not have
	spread time.Duration
	since  time.Time // it exists; zero where that is not known
	history

	changed bool         // there is news since it was planned
	next    schedule.Run // what is planned; At is zero where that is to be thought out anew
	wanted  time.Time    // somebody asked for it to run; zero where nobody does
	queued  string       // the lane of its work in the queue; "" where there is none
	run     *run         // what is under way; nil where nothing is

	heard *event.Event // the last of its kind committed that is kept; nil where there is none
	told  time.Time    // of the newest revision that events have told of; zero where that is not known yet

	failures int       // in a row
	failed   time.Time // the last of them
	message  string    // of the last of them
	total    uint64    // failures since the start
	late     bool
}

// history is what a job's directory says.
type history struct {
	seen       stamp
	revisions  []schedule.Revision // oldest first
	manual     []string            // tags
	distrusted int                 // how many
	last       figures             // of the newest revision
}

// figures are those of a revision that are shown.
type figures struct {
	duration              time.Duration
	read, changed, stored int64
}

// run is a backup that is under way, ours or another process's.
type run struct {
	lane   string
	since  time.Time
	holder *repo.Holder // of another process; nil of ours
	queued bool         // it was begun for the queue, by a daemon that is no more; its failure counts
	ending bool         // it is being ended
}

// plan thinks out when the job runs next. What was planned for a time that has come stays planned, so that a tick is not
// lost to those who come a second late; and what failed is tried again after a while, whenever that is.
func (j *job) plan(now time.Time) {
	j.changed = false
	next := j.config.Schedule.Plan(j.revisions, now, j.spread)
	if j.failures > 0 {
		j.failed = clamp(j.failed, now)
		next.At, next.Missed = j.failed.Add(schedule.Backoff(j.failures)), true
	} else if !j.next.At.IsZero() && !j.next.At.After(now) {
		if next.At.After(now) {
			next.Tags = nil // those of a tick that is still to come
		}
		next.At, next.Tags = j.next.At, j.config.Schedule.Sort(union(j.next.Tags, next.Tags))
	}
	j.next = next
}

// clamp is t, or now where t is ahead of the clock: the clock was set back.
func clamp(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, tag := range b {
		if !slices.Contains(all, tag) {
			all = append(all, tag)
		}
	}
	return all
}

// recent is how old revisions are, at most, that are told of where no event about the job is kept.
const recent = schedule.Day

// heardOf is the time of the newest revision that events have told of.
func (j *job) heardOf(list []repo.Revision, now time.Time) time.Time {
	e := j.heard
	if e == nil {
		return now.Add(-recent)
	}
	for _, r := range list {
		if r.ID == e.Revision {
			return r.Time
		}
	}
	return e.Time.Add(-time.Duration(e.Duration * float64(time.Second))) // about when it was begun; it is gone
}

// due says whether the job's work is to be queued now, and since when it is due. tags are for which tags.
func (j *job) due(now time.Time) (since time.Time, manual, ok bool) {
	if j.config == nil || j.queued != "" || j.run != nil {
		return since, false, false
	}
	if !j.wanted.IsZero() {
		return clamp(j.wanted, now), true, true
	}
	return j.next.At, false, !j.next.At.After(now)
}

// serve judges how well the job is served, and returns the event of a change of that; nil where there is none.
func (j *job) serve(now time.Time) *event.Event {
	v := j.config.Schedule.Serve(j.revisions, j.since, now)
	if v.Late == j.late {
		return nil
	}
	e := &event.Event{Kind: event.Recovered, Time: now, Job: j.name, Age: v.Age.Seconds()}
	switch j.late = v.Late; {
	case !v.Late:
		e.Message = "there is a revision that is young enough again"
	case v.Newest == nil:
		e.Kind, e.Message = event.Late, "there is no good revision, and the job exists for more than "+schedule.FormatDuration(v.Limit)
	default:
		e.Kind, e.Message = event.Late, "the newest good revision is older than "+schedule.FormatDuration(v.Limit)
	}
	if v.Newest != nil {
		e.Revision = v.Newest.ID
	}
	return e
}

// made looks for a good revision that was begun between two times.
func (j *job) made(since, now time.Time) (id string, ok bool) {
	for _, r := range j.revisions {
		if r.Known && r.Good && !r.Time.Before(since) && !r.Time.After(now) {
			return r.ID, true
		}
	}
	return "", false
}

// succeeded notes that a revision was made.
func (j *job) succeeded() {
	j.failures, j.failed, j.message = 0, time.Time{}, ""
	j.next.At, j.changed = time.Time{}, true
}

// fail notes a failure, and returns the event that tells of it.
func (j *job) fail(now time.Time, stage, message string) event.Event {
	message = brief(message)
	j.failures++
	j.total++
	j.failed, j.message, j.changed = now, message, true
	return event.Event{Kind: event.Failed, Time: now, Job: j.name, Stage: stage, Attempt: j.failures, Message: message}
}

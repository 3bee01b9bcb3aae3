package schedule

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// Spread is how far behind the beginning of each interval something with that name begins: whole seconds, 0 or more and
// less than the interval, the same on every host and for good. Many names are spread evenly.
func Spread(name string, interval time.Duration) time.Duration {
	seconds := uint64(interval / time.Second)
	if seconds == 0 {
		return 0
	}
	sum := sha256.Sum256([]byte(name))
	return time.Duration(binary.BigEndian.Uint64(sum[:])%seconds) * time.Second
}

// Spread is the job's, over the largest interval of the schedule, so that a tag that is due once a week falls on each day
// for as many jobs. Tick takes it modulo each interval: where intervals divide each other, the ticks of all tags coincide.
func (s Schedule) Spread(job string) time.Duration {
	var largest time.Duration
	for _, rule := range s.rules() {
		largest = max(largest, rule.Interval)
	}
	return Spread(job, largest)
}

func (s Schedule) rules() Schedule {
	if s == nil {
		return Default()
	}
	return s
}

// Run is the next backup of a job.
type Run struct {
	At     time.Time
	Tags   []string // by their intervals, the shortest first
	Missed bool     // it makes up for what was missed, and waits for no tick
}

// patience is how near a tick has to be for missed tags to wait for it.
const patience = 5 * time.Minute

// Plan says when a job's next backup is, and its tags: at the next tick, with the tags that have one then and those that
// are missed by then. A tag is missed once no good revision that has it is younger than its interval. Where a tag is
// missed more than 5 minutes before the tick, the backup is at once, with the tags that are missed and no others: now, or
// as soon as the first of them will be.
//
// A job without revisions misses all tags, and yet waits for its tick: many jobs that are new at the same time should not
// run at the same time. Revisions that are distrusted, or whose state is not known, make nothing less missed, but the job is not new.
// Those further ahead of the clock than Ahead count for nothing.
//
// The answer depends on its arguments alone, so it is the same after a restart; and while it lies ahead, it stays the same.
func (s Schedule) Plan(revisions []Revision, now time.Time, spread time.Duration) Run {
	s = s.rules()
	tick, tags := s.Next(now, spread)
	last, history := newest(revisions, now)
	missed := func(tag string) time.Time { // since when, or from when on
		if t, ok := last[tag]; ok {
			return t.Add(s[tag].Interval)
		}
		return now
	}
	if first := tick; history {
		for tag := range s {
			if t := missed(tag); t.Before(first) {
				first = t
			}
		}
		if first.Before(now) {
			first = now
		}
		if tick.Sub(first) > patience {
			return Run{first, slices.DeleteFunc(s.Tags(), func(tag string) bool { return missed(tag).After(first) }), true}
		}
	}
	return Run{tick, slices.DeleteFunc(s.Tags(), func(tag string) bool {
		return !slices.Contains(tags, tag) && missed(tag).After(tick)
	}), false}
}

// newest are the times of the newest good revision with each tag. history tells that there is any revision, though it be
// a bad one.
func newest(revisions []Revision, now time.Time) (last map[string]time.Time, history bool) {
	last = map[string]time.Time{}
	for i := range revisions {
		r := &revisions[i]
		if r.ahead(now) {
			continue
		}
		history = true
		if !r.Known || !r.Good {
			continue
		}
		for _, tag := range r.Tags {
			if r.Time.After(last[tag]) {
				last[tag] = r.Time
			}
		}
	}
	return last, history
}

// maxBackoff is the longest wait after a failure.
const maxBackoff = 6 * time.Hour

// Backoff is how long a job waits after so many failures in a row: 2, 4, 8, ... minutes, and 6 hours at most.
func Backoff(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	return min(time.Minute<<min(failures, 10), maxBackoff)
}

// Lanes, in which jobs wait for a worker. Each has workers of its own, so that short jobs do not wait for long ones.
const (
	Fast = "fast"
	Slow = "slow"

	fast = 10 * time.Minute // and longer is slow
)

// Lane is that of a job: Fast if its newest good revision took less than 10 minutes, else Slow, as a first one is.
func Lane(revisions []Revision) string {
	var last *Revision
	for i := range revisions {
		if r := &revisions[i]; r.Known && r.Good && (last == nil || r.later(last)) {
			last = r
		}
	}
	if last != nil && last.Duration < fast {
		return Fast
	}
	return Slow
}

// later orders revisions by time, and by id where that is the same.
func (r *Revision) later(than *Revision) bool {
	return cmp.Or(r.Time.Compare(than.Time), cmp.Compare(r.ID, than.ID)) > 0
}

package schedule

import (
	"math"
	"time"
)

// SLA is how old a job's newest good revision may be: 1.5 times the smallest interval of the schedule.
func (s Schedule) SLA() time.Duration {
	smallest := time.Duration(math.MaxInt64)
	for _, rule := range s.rules() {
		smallest = min(smallest, rule.Interval)
	}
	if smallest > math.MaxInt64/3*2 {
		return math.MaxInt64
	}
	return smallest + smallest/2
}

// Service is how well a job is served.
type Service struct {
	Age    time.Duration // of the newest good revision; of the job, where it has none
	Newest *Revision     // the newest good one; nil where there is none
	Limit  time.Duration // the SLA
	Late   bool          // Age is more than Limit
}

// Serve judges a job by its newest good revision. A job that has none is as old as it exists: since is when it came to
// be; where that is the zero time, it is not known, and the age is 0. Revisions that are further ahead of the clock than Ahead have
// an unknown age, and are none.
func (s Schedule) Serve(revisions []Revision, since, now time.Time) Service {
	v := Service{Limit: s.SLA()}
	for i := range revisions {
		if r := &revisions[i]; r.succeeded(now) && (v.Newest == nil || r.later(v.Newest)) {
			v.Newest = r
		}
	}
	switch {
	case v.Newest != nil:
		v.Age = now.Sub(v.Newest.Time)
	case !since.IsZero():
		v.Age = now.Sub(since)
	}
	v.Age = max(v.Age, 0)
	v.Late = v.Age > v.Limit
	return v
}

// readForeign is how a revision's disk was read that another tool read.
const readForeign = "foreign"

// CompareDue reports whether a job's next backup should compare the whole disk instead of trusting a change map: where
// all of it was not read since the last tick of that interval, as far as good revisions tell, and where another tool read the
// newest one. spread keeps jobs apart that began together, as with Tick: many comparisons in one night take more time than there
// is. A job without revisions has nothing to compare with; an interval of 0 is never over.
func CompareDue(revisions []Revision, every time.Duration, now time.Time, spread time.Duration) bool {
	if every < time.Second {
		return false
	}
	last := Tick(now, every, spread).Add(-every)
	var newest *Revision
	due := true
	for i := range revisions {
		r := &revisions[i]
		if !r.succeeded(now) {
			continue
		}
		if newest == nil || r.later(newest) {
			newest = r
		}
		if r.Compared.After(last) && r.Compared.Sub(now) <= Ahead {
			due = false
		}
	}
	return newest != nil && (due || newest.Read == readForeign)
}

// ahead tells that the revision's age is not known: it lies further ahead of the clock than clocks differ.
func (r *Revision) ahead(now time.Time) bool { return r.Time.Sub(now) > Ahead }

// succeeded tells that the revision is good, and its age known.
func (r *Revision) succeeded(now time.Time) bool { return r.Known && r.Good && !r.ahead(now) }

// Package schedule says when a backup is due and which revisions may go: pure functions of rules, revisions and the
// time. It reads no clock and no file.
//
// Durations are elapsed time, the same in every time zone: a day is 24 hours. Only Calendar knows days that people know,
// and it is told their time zone.
package schedule

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Rule says how often revisions with a tag are made, and how many of them stay.
type Rule struct {
	Interval time.Duration // more than 0
	Keep     int           // 1 or more
}

// Check refuses a rule that makes no sense.
func (r Rule) Check() error {
	if r.Interval <= 0 {
		return fmt.Errorf("interval: %s is none; want more, as in 1d", FormatDuration(r.Interval))
	}
	if r.Keep < 1 {
		return fmt.Errorf("keep: %d; want 1 or more", r.Keep)
	}
	return nil
}

// age is how old a revision gets before its tag may go.
func (r Rule) age() time.Duration {
	if int64(r.Keep) > int64(math.MaxInt64)/int64(r.Interval) {
		return math.MaxInt64
	}
	return r.Interval * time.Duration(r.Keep)
}

// Schedule has a rule for each tag. A nil one stands for a job that has none: it takes any tag, what is due goes by
// Default, and nothing ever expires.
type Schedule map[string]Rule

// Default is what a backup without tags goes by where the job has no schedule. Nothing expires by it.
func Default() Schedule {
	return Schedule{"daily": {Day, 8}, "weekly": {Week, 5}, "monthly": {30 * Day, 3}}
}

// Tags are the schedule's, by their intervals, the shortest first.
func (s Schedule) Tags() []string {
	return s.Sort(slices.Collect(maps.Keys(s)))
}

// Sort sorts tags by their intervals, the shortest first; those that are not in the schedule come before them.
func (s Schedule) Sort(tags []string) []string {
	tags = slices.Clone(tags)
	slices.SortFunc(tags, func(a, b string) int {
		return cmp.Or(cmp.Compare(s[a].Interval, s[b].Interval), strings.Compare(a, b))
	})
	return tags
}

const manual = "manual:"

// IsManual reports whether a tag was given by a person for good: it begins with manual:, is never checked against a
// schedule, and never expires.
func IsManual(tag string) bool { return strings.HasPrefix(tag, manual) }

// Check refuses tags that the schedule does not have, but for those that begin with manual:.
func (s Schedule) Check(tags []string) error {
	if s == nil {
		return nil
	}
	for _, tag := range tags {
		if _, ok := s[tag]; !ok && !IsManual(tag) {
			return fmt.Errorf("tag %q is not in the job's schedule, which has: %s; a tag that begins with %s is always taken", tag, strings.Join(s.Tags(), ", "), manual)
		}
	}
	return nil
}

// Revision is what this package needs to know of one.
type Revision struct {
	ID        string
	Time      time.Time
	Tags      []string
	Known     bool // its state could be read; else its Tags, Good and Protected mean nothing, and it never goes
	Good      bool // it is not distrusted
	Protected bool
	Duration  time.Duration // of the backup
	Read      string        // how its disk was read: full, compare, map, foreign
	Compared  time.Time     // when all of the disk was last read, for it or for what it was built on; zero is unknown
}

// Ahead is how far a revision may lie ahead of the clock and still count as made just now. What is further ahead has an
// unknown age.
const Ahead = 5 * time.Minute

// slack is how much earlier than its interval a tag is due: a job that runs each night does not start at the same second,
// and should not have to wait for the next night.
func slack(interval time.Duration) time.Duration { return min(interval/8, 3*time.Hour) }

// Due returns the tags that a backup made now should have, by their intervals, the shortest first: those that no good
// revision of the last interval has. Revisions far ahead of the clock count for nothing. An interval is over a little
// early, by an eighth but no more than 3 hours, so that a job that starts at about the same time each day gets its daily
// tag each day.
func (s Schedule) Due(revisions []Revision, now time.Time) []string {
	return s.missing(revisions, now, slack)
}

// Missed is Due to the second: the tags that no good revision younger than the interval has.
func (s Schedule) Missed(revisions []Revision, now time.Time) []string {
	return s.missing(revisions, now, func(time.Duration) time.Duration { return 0 })
}

func (s Schedule) missing(revisions []Revision, now time.Time, slack func(time.Duration) time.Duration) []string {
	s = s.rules()
	due := []string{}
	for _, tag := range s.Tags() {
		interval := s[tag].Interval
		since := now.Add(-interval + slack(interval))
		if !slices.ContainsFunc(revisions, func(r Revision) bool {
			return r.succeeded(now) && slices.Contains(r.Tags, tag) && r.Time.After(since)
		}) {
			due = append(due, tag)
		}
	}
	return due
}

package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Calendar keeps the newest good revision of each of the last hours, days, weeks (from Monday), months and years that
// have one, as they are in a time zone, and the last few whatever their dates. Tags do not matter to it, but for the
// manual ones.
//
// The hour that comes twice when a summer time ends is two hours; days are as long as they are. Periods without a
// revision do not count, so that a job that rests for a month has after it what it had before.
type Calendar struct {
	Keep map[string]int // of last, hourly, daily, weekly, monthly, yearly
	Zone *time.Location // nil is UTC
}

// periods names, for each word, the period that a local time lies in. The first has none: each revision is its own.
var periods = []struct {
	word string
	of   func(time.Time) string
}{
	{"last", func(t time.Time) string { return t.Format(time.RFC3339Nano) }},
	{"hourly", func(t time.Time) string { return t.Format("2006-01-02 15h -0700") }},
	{"daily", func(t time.Time) string { return t.Format(time.DateOnly) }},
	{"weekly", func(t time.Time) string {
		year, week := t.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, week)
	}},
	{"monthly", func(t time.Time) string { return t.Format("2006-01") }},
	{"yearly", func(t time.Time) string { return t.Format("2006") }},
}

// ParseCalendar reads "last=3,hourly=24,daily=7,weekly=4,monthly=12,yearly=2": some of these words, each once, each with
// a number of 1 or more.
func ParseCalendar(text string, zone *time.Location) (Calendar, error) {
	c := Calendar{map[string]int{}, zone}
	for part := range strings.SplitSeq(text, ",") {
		word, number, _ := strings.Cut(strings.TrimSpace(part), "=")
		var words []string
		for _, p := range periods {
			words = append(words, p.word)
		}
		if !slices.Contains(words, word) {
			return c, fmt.Errorf("%.60q is not understood: want some of %s, each with a number, as in last=3,daily=7", part, strings.Join(words, ", "))
		}
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil || n == 0 || number[0] == '+' {
			return c, fmt.Errorf("%.60q: want a number of 1 or more, as in %s=3", part, word)
		}
		if c.Keep[word] != 0 {
			return c, fmt.Errorf("%s is there twice", word)
		}
		c.Keep[word] = int(n)
	}
	return c, nil
}

// Expire keeps what the calendar keeps, and lets the rest go.
func (c Calendar) Expire(revisions []Revision, now time.Time, minAge time.Duration) ([]Verdict, error) {
	zone := cmp.Or(c.Zone, time.UTC)
	have := map[string]int{}
	latest := map[string]string{} // the period that was filled last
	return expire(revisions, now, minAge, func(r Revision) Verdict {
		v := Verdict{Revision: r, Left: slices.Clone(r.Tags)}
		for _, p := range periods {
			if !r.Good || have[p.word] >= c.Keep[p.word] {
				continue
			}
			period := p.of(r.Time.In(zone))
			if period == latest[p.word] && p.word != "last" {
				continue
			}
			have[p.word]++
			latest[p.word] = period
			if p.word == "last" {
				period = "whenever it was"
			}
			v.Why = append(v.Why, fmt.Sprintf("%s %d of %d: %s", p.word, have[p.word], c.Keep[p.word], period))
		}
		for _, tag := range r.Tags {
			if IsManual(tag) {
				v.Why = append(v.Why, tag+" stays: it is manual")
			}
		}
		switch {
		case len(v.Why) > 0:
		case r.Good:
			v.Goes, v.Why = true, []string{"no period needs it"}
		default:
			v.Goes, v.Why = true, []string{"it is distrusted, and counts for no period"}
		}
		if v.Goes {
			v.Left, v.Lost = []string{}, slices.Clone(r.Tags)
		}
		return v
	})
}

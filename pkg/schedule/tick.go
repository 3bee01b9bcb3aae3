package schedule

import "time"

// epoch is where ticks are counted from. It is a Monday, so those of a week fall on Mondays.
var epoch = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// Tick is the first time after now that is a whole number of intervals, and spread, from the beginning of the year 1 in
// UTC. spread keeps jobs with the same interval apart; it may be longer than the interval. Both are whole seconds.
func Tick(now time.Time, interval, spread time.Duration) time.Time {
	every := int64(interval / time.Second)
	since := now.Unix() - epoch - int64(spread/time.Second)%every // a Duration would end after 292 years
	n := since / every
	if since < 0 && since%every != 0 {
		n--
	}
	return time.Unix(now.Unix()-since+(n+1)*every, 0).UTC()
}

// Next is when the schedule's next tick is, for a job with that spread, and the tags that have one just then, by their
// intervals. The schedule has to have a tag.
func (s Schedule) Next(now time.Time, spread time.Duration) (next time.Time, tags []string) {
	for _, tag := range s.Tags() {
		switch t := Tick(now, s[tag].Interval, spread); {
		case next.IsZero() || t.Before(next):
			next, tags = t, []string{tag}
		case t.Equal(next):
			tags = append(tags, tag)
		}
	}
	return next, tags
}

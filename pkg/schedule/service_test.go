package schedule

import (
	"math"
	"testing"
	"time"
)

func TestSLA(t *testing.T) {
	for _, test := range []struct {
		s    Schedule
		want time.Duration
	}{
		{daily, 36 * time.Hour}, {both, 36 * time.Hour}, {nil, 36 * time.Hour}, {Schedule{"a": {time.Second, 1}}, 1500 * time.Millisecond},
		{Schedule{"a": {math.MaxInt64, 1}}, math.MaxInt64}, {Schedule{"a": {math.MaxInt64/3*2 + 1, 1}}, math.MaxInt64}, {Schedule{"a": {math.MaxInt64 / 3 * 2, 1}}, math.MaxInt64 - 1},
	} {
		if got := test.s.SLA(); got != test.want {
			t.Errorf("%v: %s, want %s", test.s, got, test.want)
		}
	}
}

func TestServe(t *testing.T) {
	now := at("2026-11-21 10:00")
	ago := func(d time.Duration) Revision { return good(now.Add(-d), "daily") }
	bad := func(d time.Duration) Revision { return distrusted(now.Add(-d), "daily") }
	hour := time.Hour
	long := now.Add(-100 * Day)
	for _, test := range []struct {
		name      string
		revisions []Revision
		since     time.Time
		age       time.Duration
		late      bool
	}{
		{"6 hours", []Revision{ago(6 * hour)}, long, 6 * hour, false},
		{"24 hours", []Revision{ago(24 * hour)}, long, 24 * hour, false},
		{"32 hours", []Revision{ago(32 * hour)}, long, 32 * hour, false},
		{"36 hours", []Revision{ago(36 * hour)}, long, 36 * hour, false},
		{"a second more", []Revision{ago(36*hour + time.Second)}, long, 36*hour + time.Second, true},
		{"a day too many", []Revision{ago(48 * hour)}, long, 48 * hour, true},
		{"the newest counts, in any order", []Revision{ago(6 * hour), ago(48 * hour)}, long, 6 * hour, false},
		{"a bad one is none", []Revision{ago(48 * hour), bad(hour)}, long, 48 * hour, true},
		{"nor one of unknown state", []Revision{ago(48 * hour), {Time: now}}, long, 48 * hour, true},
		{"any tag will do", []Revision{good(now.Add(-hour), "manual:x")}, long, hour, false},
		{"a new job", nil, now.Add(-36 * hour), 36 * hour, false},
		{"a job that never succeeded", nil, now.Add(-36*hour - 1), 36*hour + 1, true},
		{"nor did this one", []Revision{bad(hour)}, now.Add(-48 * hour), 48 * hour, true},
		{"who knows since when", nil, time.Time{}, 0, false},
		{"a clock that was set back", nil, now.Add(hour), 0, false},
		{"a little ahead of the clock", []Revision{ago(-Ahead)}, long, 0, false},
		{"far ahead of the clock: no success", []Revision{ago(-Ahead - 1), ago(48 * hour)}, long, 48 * hour, true},
		{"far ahead of the clock, and no other", []Revision{ago(-Ahead - 1)}, now.Add(-40 * hour), 40 * hour, true},
	} {
		got := daily.Serve(test.revisions, test.since, now)
		if got.Age != test.age || got.Late != test.late || got.Limit != 36*hour {
			t.Errorf("%s: %+v, want age %s, late %t", test.name, got, test.age, test.late)
		}
		if n := got.Newest; n != nil && now.Sub(n.Time) != test.age && n.Time.Before(now) {
			t.Errorf("%s: the newest is of %s", test.name, n.Time)
		}
	}
}

func TestCompareDue(t *testing.T) {
	month := 30 * Day
	tick := Tick(at("2026-11-01 10:00"), month, 3*Day) // one of the job's, and the next is a month later
	read := func(how string, after time.Duration) Revision {
		r := good(tick.Add(after), "daily")
		r.Read = how
		if how == "full" || how == "compare" {
			r.Compared = r.Time
		}
		return r
	}
	built := func(after, compared time.Duration) Revision {
		r := read("map", after)
		r.Compared = tick.Add(compared)
		return r
	}
	bad := read("compare", time.Hour)
	bad.Good = false
	for _, test := range []struct {
		name      string
		every     time.Duration
		revisions []Revision
		after     time.Duration // since the tick
		want      bool
	}{
		{"there is nothing to compare with", month, nil, Day, false},
		{"compared since", month, []Revision{read("compare", time.Hour), read("map", Day)}, 2 * Day, false},
		{"compared before", month, []Revision{read("compare", -time.Hour), read("map", Day)}, 2 * Day, true},
		{"read in full since", month, []Revision{read("full", time.Hour)}, 2 * Day, false},
		{"at the end of the month", month, []Revision{read("full", time.Hour)}, month - 1, false},
		{"at the next tick", month, []Revision{read("full", time.Hour)}, month, true},
		{"only ever by a map", month, []Revision{read("map", time.Hour)}, 2 * Day, true},
		{"compared, but distrusted", month, []Revision{bad, read("map", 2*time.Hour)}, 2 * Day, true},
		{"the newest is another tool's", month, []Revision{read("compare", time.Hour), read("foreign", 2*time.Hour)}, Day, true},
		{"another tool's before", month, []Revision{read("foreign", time.Hour), read("compare", 2*time.Hour)}, Day, false},
		{"compared in the future", month, []Revision{read("compare", 3*Day), read("map", time.Hour)}, Day, true},
		{"on what was compared since, and has expired", month, []Revision{built(9*Day, time.Hour)}, 10 * Day, false},
		{"on what was compared before, and has expired", month, []Revision{built(Day, -time.Hour)}, 2 * Day, true},
		{"on what was compared in the future", month, []Revision{built(time.Hour, 3*Day)}, Day, true},
		{"never", 0, []Revision{read("foreign", time.Hour)}, Day, false},
	} {
		if got := CompareDue(test.revisions, test.every, tick.Add(test.after), 3*Day); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

// Jobs that all begin on one day do not all compare on one day, ever after; and none of them waits for longer than a month.
func TestCompareIsSpread(t *testing.T) {
	const jobs = 600
	days := map[int]int{}
	for job := range jobs {
		spread := Spread(string(rune('a'+job%26))+string(rune('a'+job/26)), 30*Day)
		var list []Revision
		last := 0
		for day := range 120 {
			r := good(at("2026-11-21 03:00").Add(time.Duration(day) * Day))
			r.Read = "map"
			if day == 0 || CompareDue(list, 30*Day, r.Time, spread) {
				r.Read, r.Compared = "compare", r.Time
				if day > 0 {
					days[day]++
				}
				if day-last > 30 {
					t.Fatalf("job %d compared after %d days", job, day-last)
				}
				last = day
			}
			list = append(list, r)
		}
	}
	for day := 1; day < 120; day++ {
		if days[day] > 3*jobs/30 {
			t.Errorf("on day %d compare %d of %d jobs", day, days[day], jobs)
		}
	}
}

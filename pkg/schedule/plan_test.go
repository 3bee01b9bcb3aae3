package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	daily = Schedule{"daily": {Day, 9}}
	both  = Schedule{"daily": {Day, 9}, "weekly": {Week, 5}}
)

func good(t time.Time, tags ...string) Revision {
	return Revision{Time: t, Tags: tags, Known: true, Good: true}
}

func distrusted(t time.Time, tags ...string) Revision {
	return Revision{Time: t, Tags: tags, Known: true}
}

// The examples of how it always was. 2015-09-01 is a Tuesday.
func TestPlan(t *testing.T) {
	t0 := at("2015-09-01 07:06:47")
	old := t0.Add(-Day * 16 / 10)
	for _, test := range []struct {
		name      string
		s         Schedule
		now       time.Time
		spread    time.Duration
		revisions []Revision
		want      string
	}{
		{"served: the next tick", daily, t0, time.Second, []Revision{good(at("2015-09-01 00:00:05"), "daily")}, "2015-09-02 00:00:01 daily"},
		{"a day later, another spread", daily, t0.Add(Day), 5 * time.Second, []Revision{good(at("2015-09-02 00:00:05"), "daily")}, "2015-09-03 00:00:05 daily"},
		{"25 hours later", daily, t0.Add(25 * time.Hour), 5 * time.Second, []Revision{good(at("2015-09-02 00:00:05"), "daily")}, "2015-09-03 00:00:05 daily"},
		{"missed: now", daily, t0, time.Second, []Revision{good(old, "daily")}, "2015-09-01 07:06:47 daily missed"},
		{"missed, and the tick is in 5 minutes and a second", daily, at("2015-09-01 23:55:00"), time.Second, []Revision{good(old, "daily")}, "2015-09-01 23:55:00 daily missed"},
		{"missed, and the tick is in 5 minutes", daily, at("2015-09-01 23:55:01"), time.Second, []Revision{good(old, "daily")}, "2015-09-02 00:00:01 daily"},
		{"a new job waits, and takes all tags along", both, t0, time.Second, nil, "2015-09-02 00:00:01 daily,weekly"},
		{"only what is missed", both, t0, time.Second, []Revision{good(old, "daily", "weekly")}, "2015-09-01 07:06:47 daily missed"},
		{"a tag that there never was", both, t0, time.Second, []Revision{good(t0.Add(-time.Hour), "daily")}, "2015-09-01 07:06:47 weekly missed"},
		{"tags of others are nothing", daily, t0, time.Second, []Revision{good(t0.Add(-time.Hour), "weekly", "manual:daily")}, "2015-09-01 07:06:47 daily missed"},
		{"ticks that coincide", both, at("2015-09-06 12:00"), 5 * time.Second, []Revision{good(at("2015-09-06 00:00:05"), "daily", "weekly")}, "2015-09-07 00:00:05 daily,weekly"},
		{"a tag missed by the tick", both, at("2015-09-01 23:58"), time.Second, []Revision{good(at("2015-09-01 10:00"), "daily"), good(at("2015-08-25 23:59"), "weekly")}, "2015-09-02 00:00:01 daily,weekly"},
		{"distrusted: missed, but not new", daily, t0, time.Second, []Revision{distrusted(t0.Add(-time.Hour), "daily")}, "2015-09-01 07:06:47 daily missed"},
		{"of unknown state: the same", daily, t0, time.Second, []Revision{{Time: t0.Add(-time.Hour)}}, "2015-09-01 07:06:47 daily missed"},
		{"ahead of the clock by less than clocks differ", daily, t0, time.Second, []Revision{good(t0.Add(Ahead), "daily")}, "2015-09-02 00:00:01 daily"},
		{"far ahead of the clock: as if there was none", daily, t0, time.Second, []Revision{good(t0.Add(Ahead+1), "daily")}, "2015-09-02 00:00:01 daily"},
		{"far ahead of the clock, and an old one", daily, t0, time.Second, []Revision{good(t0.Add(Day), "daily"), good(old, "daily")}, "2015-09-01 07:06:47 daily missed"},
		{"a tick went by, and the last revision is not a day old: when it is", daily, at("2015-09-01 00:10"), time.Second, []Revision{good(at("2015-08-31 02:00"), "daily")}, "2015-09-01 02:00:00 daily missed"},
		{"a schedule of a minute has nothing to catch up", Schedule{"minutely": {time.Minute, 5}}, t0, 10 * time.Second, []Revision{good(old, "minutely")}, "2015-09-01 07:07:10 minutely"},
		{"without a schedule it goes by the default", nil, t0, 0, nil, "2015-09-02 00:00:00 daily,weekly,monthly"},
	} {
		if got := show(test.s.Plan(test.revisions, test.now, test.spread)); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func show(r Run) string {
	text := r.At.UTC().Format(time.DateTime) + " " + strings.Join(r.Tags, ",")
	if r.Missed {
		text += " missed"
	}
	return text
}

// Against a model that goes on second by second and looks, at each, whether there is something to do.
func TestPlanAgainstNaiveModel(t *testing.T) {
	intervals := []time.Duration{time.Minute, 4 * time.Minute, 7 * time.Minute, 10 * time.Minute, 30 * time.Minute, 50 * time.Minute, time.Hour, 2 * time.Hour}
	seen := map[string]int{}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := Schedule{}
		for _, tag := range []string{"a", "b", "c"}[:1+r.IntN(3)] {
			s[tag] = Rule{intervals[r.IntN(len(intervals))], 1}
		}
		now := at("2026-11-21 10:00").Add(time.Duration(r.IntN(100000)) * time.Second)
		spread := time.Duration(r.IntN(7200)) * time.Second
		var list []Revision
		for range r.IntN(5) {
			v := good(now.Add(-time.Duration(r.IntN(9000)-400)*time.Second), slices.DeleteFunc([]string{"a", "b", "c", "d"}, func(string) bool { return r.IntN(2) == 0 })...)
			v.Known, v.Good = r.IntN(6) > 0, r.IntN(6) > 0
			list = append(list, v)
		}
		want, got := show(naivePlan(s, list, now, spread)), show(s.Plan(list, now, spread))
		if got != want {
			t.Fatalf("seed %d, at %s by %v, spread %s, of %v:\ngot  %s\nwant %s", seed, now, s, spread, list, got, want)
		}
		seen[fmt.Sprint(strings.HasSuffix(want, "missed"), strings.HasPrefix(want, now.Format(time.DateTime)))]++
	}
	for _, kind := range []string{"true true", "true false", "false false"} {
		if seen[kind] < 50 {
			t.Errorf("too few to believe: %v", seen)
		}
	}
}

func naivePlan(s Schedule, list []Revision, now time.Time, spread time.Duration) Run {
	tick := func(t time.Time, tag string) bool {
		return (t.Unix()-epoch-int64(spread.Seconds()))%int64(s[tag].Interval.Seconds()) == 0
	}
	missed := func(t time.Time) (tags []string) {
		for _, tag := range s.Tags() {
			if !slices.ContainsFunc(list, func(r Revision) bool {
				return r.Good && r.Known && slices.Contains(r.Tags, tag) && r.Time.After(t.Add(-s[tag].Interval)) && !r.Time.After(now.Add(Ahead))
			}) {
				tags = append(tags, tag)
			}
		}
		return tags
	}
	history := slices.ContainsFunc(list, func(r Revision) bool { return !r.Time.After(now.Add(Ahead)) })
	soon := func(t time.Time) bool { // a tick in the next 5 minutes
		for i := range 300 {
			for tag := range s {
				if tick(t.Add(time.Duration(i+1)*time.Second), tag) {
					return true
				}
			}
		}
		return false
	}
	for t := now; ; t = t.Add(time.Second) {
		tags := missed(t)
		ideal := false
		for tag := range s {
			if t.After(now) && tick(t, tag) {
				ideal = true
				if !slices.Contains(tags, tag) {
					tags = append(tags, tag)
				}
			}
		}
		if ideal {
			return Run{t, s.Sort(tags), false}
		}
		if history && len(tags) > 0 && !soon(t) {
			return Run{t, tags, true}
		}
	}
}

// A restart asks again; as long as nothing happened, it gets the same answer.
func TestPlanStaysTheSame(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 4))
		now := at("2026-11-21 10:00").Add(time.Duration(r.IntN(100000)) * time.Second)
		list := []Revision{good(now.Add(-time.Duration(r.IntN(86400))*time.Second), "daily"), good(now.Add(-time.Duration(r.IntN(604800))*time.Second), "weekly")}
		spread := Spread(fmt.Sprint(seed), Week)
		first := both.Plan(list, now, spread)
		for range 20 {
			later := now.Add(time.Duration(r.Int64N(int64(first.At.Sub(now)))))
			if again := both.Plan(list, later, spread); show(again) != show(first) {
				t.Fatalf("seed %d: at %s %s, at %s %s", seed, now, show(first), later, show(again))
			}
		}
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		job  string
		s    Schedule
		want time.Duration
	}{ // for good: another value would move all backups
		{"vm1", daily, 70319 * time.Second}, {"vm2", daily, 3691 * time.Second}, {"vm1", both, 415919 * time.Second}, {"vm1", Schedule{"second": {time.Second, 1}}, 0},
	} {
		if got := test.s.Spread(test.job); got != test.want {
			t.Errorf("%s by %v: %d s, want %d s", test.job, test.s, got/time.Second, test.want/time.Second)
		}
	}
	hours, days := map[int]int{}, map[int]int{}
	for i := range 10000 {
		spread := both.Spread(fmt.Sprintf("customer%d/vm%02d", i/100, i%100))
		if spread < 0 || spread >= Week || spread%time.Second != 0 {
			t.Fatal(spread)
		}
		hours[int(spread%Day/time.Hour)]++
		days[int(spread/Day)]++
	}
	for hour := range 24 {
		if hours[hour] < 340 || hours[hour] > 500 { // 417, and four times its standard deviation
			t.Errorf("hour %d has %d of 10000 jobs", hour, hours[hour])
		}
	}
	for day := range 7 {
		if days[day] < 1290 || days[day] > 1570 { // 1429, and the same
			t.Errorf("day %d has %d of 10000 jobs", day, days[day])
		}
	}
}

func TestBackoff(t *testing.T) {
	var got []string
	for failures := range 12 {
		got = append(got, FormatDuration(Backoff(failures)))
	}
	if s := strings.Join(got, " "); s != "0s 2m 4m 8m 16m 32m 64m 128m 256m 6h 6h 6h" {
		t.Error(s)
	}
	if Backoff(1<<40) != 6*time.Hour || Backoff(-1) != 0 {
		t.Error("far away it is something else")
	}
}

func TestLane(t *testing.T) {
	t0 := at("2026-11-21 10:00")
	took := func(r Revision, d time.Duration) Revision { r.Duration = d; return r }
	for _, test := range []struct {
		name      string
		revisions []Revision
		want      string
	}{
		{"a new job", nil, Slow},
		{"9 minutes and 59 seconds", []Revision{took(good(t0), 599*time.Second)}, Fast},
		{"10 minutes", []Revision{took(good(t0), 600*time.Second)}, Slow},
		{"the newest counts", []Revision{took(good(t0), time.Second), took(good(t0.Add(-1)), time.Hour)}, Fast},
		{"wherever it stands", []Revision{took(good(t0.Add(-1)), time.Second), took(good(t0), time.Hour)}, Slow},
		{"but a good one", []Revision{took(good(t0.Add(-1)), time.Second), took(distrusted(t0), time.Hour)}, Fast},
	} {
		if got := Lane(test.revisions); got != test.want {
			t.Errorf("%s: %s", test.name, got)
		}
	}
}

package simulate

import (
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"backy/pkg/schedule"
)

var (
	jobs = flag.Int("sched.jobs", 600, "how many jobs are simulated")
	days = flag.Int("sched.days", 16, "for how many days")
)

var (
	usual    = schedule.Schedule{"daily": {Interval: schedule.Day, Keep: 9}, "weekly": {Interval: schedule.Week, Keep: 5}, "monthly": {Interval: 4 * schedule.Week, Keep: 5}}
	frequent = schedule.Schedule{"hourly": {Interval: time.Hour, Keep: 25}, "daily": {Interval: schedule.Day, Keep: 8}, "weekly": {Interval: schedule.Week, Keep: 12}}
	weekly   = schedule.Schedule{"weekly": {Interval: schedule.Week, Keep: 10}}
)

// scenarios: each has enough workers for 10,000 jobs, and with fewer jobs as many for each.
var scenarios = []scenario{
	{name: "daily", workers: 44, fails: 0.05, mix: allDaily},
	{name: "daily, 12 hours off", workers: 44, fails: 0.05, mix: allDaily, off: halfADay},
	{name: "mixed, restarts, 12 hours off", workers: 52, fails: 0.03, off: halfADay, restart: 29 * time.Hour,
		mix: func(i int) (schedule.Schedule, time.Duration) {
			switch {
			case i < 20:
				return frequent, 30 * time.Second
			case i < 40:
				return weekly, 30 * time.Minute
			}
			return allDaily(i)
		}},
}

var halfADay = [2]time.Duration{10 * schedule.Day, 10*schedule.Day + 12*time.Hour}

// allDaily are small disks and, one in twenty, large ones.
func allDaily(i int) (schedule.Schedule, time.Duration) {
	if i%20 == 11 {
		return usual, time.Hour
	}
	return usual, 2 * time.Minute
}

// No promise is broken that a free worker could have kept, and the load is even: in no hour begin more than 1.3 times as
// many backups as on average, but for the day after the scheduler was off. An hour has too few of few jobs, so that
// several hours are taken together then.
func TestSimulation(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			s.workers = max(3, s.workers**jobs/10000+2)
			begun := time.Now()
			m := newSim(t, s, *jobs, *days)
			m.run()
			peak := m.peak()
			tell(t, map[string]any{"scenario": s.name, "jobs": *jobs, "days": *days, "workers": s.workers, "seconds": time.Since(begun).Seconds(), "runs": m.Runs, "failed": m.Failed,
				"queue": m.Longest, "peak": peak, "broken": m.Broken, "by_failures": m.ByFailures, "by_busy": m.ByBusy})
			if m.Broken > 0 {
				t.Errorf("%d promises are broken for no reason, as that of %s", m.Broken, m.example)
			}
			if m.ByBusy > 0 && s.off[1] == 0 {
				t.Errorf("%d promises are broken because workers were busy, of which there are enough", m.ByBusy)
			}
			if m.ByFailures > *jobs/50 {
				t.Errorf("%d promises are broken by failures; only a tenth of a percent of the jobs never succeeds, and others are tried again soon enough", m.ByFailures)
			}
			if peak > 1.3 {
				t.Errorf("the peak is %.2f times the mean", peak)
			}
			if least := *jobs * *days; m.Runs < least/2 || m.Failed < least/100 || m.ByFailures == 0 {
				t.Errorf("only %d runs, %d failed: that proves nothing", m.Runs, m.Failed)
			}
		})
	}
}

// peak is how many times as many backups as on average begin in the busiest hour.
func (m *sim) peak() float64 {
	width := 1
	for total := len(m.jobs); total*width < 24*100 && width < 12; {
		width *= 2
	}
	var counts []int
	for i := 0; i+width <= len(m.starts); i += width {
		sum := 0
		for _, n := range m.starts[i : i+width] {
			sum += n
		}
		from, to := time.Duration(i)*time.Hour, time.Duration(i+width)*time.Hour
		if m.off[1] == 0 || to <= m.off[0] || from >= m.off[1]+schedule.Day {
			counts = append(counts, sum)
		}
	}
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(slices.Max(counts)) * float64(len(counts)) / float64(sum)
}

// After a cold start it is decided for each job when it runs next, in which lane, whether it is late and whether it compares.
func TestColdStart(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	m := newSim(t, scenarios[0], 0, 1)
	m.start = now
	var all []*job
	for i := range *jobs {
		j := &job{name: fmt.Sprintf("vm%d", i), schedule: usual, usual: 5 * time.Minute}
		j.spread = j.schedule.Spread(j.name)
		for n := range 50 {
			tick, tags := j.schedule.Next(now.Add(time.Duration(n-50)*schedule.Day), j.spread)
			j.revisions = append(j.revisions, schedule.Revision{Time: tick, Tags: tags, Known: true, Good: true, Duration: m.takes(j), Read: "map"})
		}
		all = append(all, j)
	}
	begun := time.Now()
	lanes, hours := map[string]int{}, map[int]int{}
	for _, j := range all {
		run := j.schedule.Plan(j.revisions, now, j.schedule.Spread(j.name))
		v := j.schedule.Serve(j.revisions, now, now)
		lanes[schedule.Lane(j.revisions)]++
		hours[int(run.At.Sub(now)/time.Hour)]++
		if v.Late || v.Newest == nil || run.At.Sub(v.Newest.Time) != schedule.Day || !slices.Contains(run.Tags, "daily") || !schedule.CompareDue(j.revisions, 30*schedule.Day, now, schedule.Spread(j.name, 30*schedule.Day)) {
			t.Fatalf("%s: %+v, %+v", j.name, run, v)
		}
	}
	tell(t, map[string]any{"scenario": "cold start", "jobs": *jobs, "seconds": time.Since(begun).Seconds()})
	if lanes[schedule.Fast] == 0 || lanes[schedule.Slow] == 0 || len(hours) != 24 {
		t.Errorf("lanes %v, hours %v", lanes, hours)
	}
}

// tell writes a line for scripts/bench.
func tell(t *testing.T, figures map[string]any) {
	text, err := json.Marshal(figures)
	if err != nil {
		t.Fatal(err)
	}
	if testing.Verbose() {
		fmt.Printf("figures %s\n", text)
	}
}

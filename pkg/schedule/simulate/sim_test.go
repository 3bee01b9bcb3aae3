package simulate

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/pkg/schedule"
)

// job is one of many.
type job struct {
	name      string
	schedule  schedule.Schedule
	spread    time.Duration
	since     time.Time
	usual     time.Duration // of a backup, the median
	fails     float64       // how likely an attempt fails
	revisions []schedule.Revision

	failures int
	next     schedule.Run
	plans    int // how often it was planned; an event of an earlier plan is void
	queued   time.Time
	running  bool
	failed   time.Time // when the last attempt began, if it failed

	// Since the newest good revision: how long it waited for a busy worker or a scheduler that was off, and how long for
	// the end of attempts that failed and of the wait after them. Nobody could have made use of that time.
	blocked, failing time.Duration

	restarts int // since then: after each it may wait a little for a tick that is near
}

// event is something that happens to a job, or, where there is none, to the scheduler.
type event struct {
	at   time.Time
	job  *job
	what func()
	plan int // of the job, for which this is; -1 for any
	seq  int
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if e[i].at.Equal(e[j].at) {
		return e[i].seq < e[j].seq
	}
	return e[i].at.Before(e[j].at)
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// lane has workers, and jobs that wait for them.
type lane struct {
	busy  int
	queue []*job
}

// scenario is what is simulated.
type scenario struct {
	name    string
	workers int                                            // in each lane
	mix     func(i int) (schedule.Schedule, time.Duration) // of the i-th of 100 jobs: its schedule, and how long its backups take
	fails   float64                                        // how many attempts fail
	off     [2]time.Duration                               // when the scheduler is off; both 0: never
	restart time.Duration                                  // how often it is restarted; 0 is never
}

// sim is a simulation under way.
type sim struct {
	t testing.TB
	scenario
	start, now, end time.Time
	rand            *rand.Rand
	jobs            []*job
	events          events
	seq             int
	down            bool
	lanes           map[string]*lane
	result
}

// result is what came of it.
type result struct {
	Runs, Failed int   // attempts, and those of them that failed
	starts       []int // in each hour
	Longest      int   // queue

	// Promises that were broken: a newest good revision that was older than the schedule's SLA. Broken ones are those that
	// neither failures nor busy workers explain.
	Broken, ByFailures, ByBusy int // the latter also where the scheduler was off
	example                    string
}

func newSim(t testing.TB, s scenario, jobs int, days int) *sim {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	m := &sim{t: t, scenario: s, start: start, now: start, end: start.Add(time.Duration(days) * schedule.Day), rand: rand.New(rand.NewPCG(1, 2)),
		lanes: map[string]*lane{schedule.Fast: {}, schedule.Slow: {}}}
	m.starts = make([]int, days*24)
	for i := range jobs {
		j := &job{name: fmt.Sprintf("customer%d/vm%d", i/20, i%20), fails: s.fails, since: start}
		j.schedule, j.usual = s.mix(i % 100)
		j.spread = j.schedule.Spread(j.name)
		if i%1000 == 7 {
			j.fails = 1 // as if its disk was gone
		}
		if i%10 != 3 { // which are new
			j.since = start.Add(-schedule.Week)
			m.past(j)
		}
		m.jobs = append(m.jobs, j)
	}
	m.wake()
	if s.off[1] > 0 {
		m.at(start.Add(s.off[0]), nil, m.sleep)
		m.at(start.Add(s.off[1]), nil, m.wake)
	}
	if s.restart > 0 {
		m.at(start.Add(s.restart), nil, m.again)
	}
	return m
}

// past gives a job the revisions of the weeks before.
func (m *sim) past(j *job) {
	for t := m.start.Add(-5 * schedule.Week); ; {
		next, tags := j.schedule.Next(t, j.spread)
		if !next.Before(m.start) {
			break
		}
		t = next
		j.add(schedule.Revision{Time: t.Add(time.Duration(m.rand.IntN(300)) * time.Second), Tags: tags, Known: true, Good: true, Duration: m.takes(j)})
	}
}

// takes is how long a backup takes: mostly about as long as usual, seldom much longer.
func (m *sim) takes(j *job) time.Duration {
	d := time.Duration(float64(j.usual) * math.Exp(m.rand.NormFloat64()*0.6))
	if len(j.revisions) == 0 {
		d *= 3
	}
	return min(d.Round(time.Second)+time.Second, 8*time.Hour)
}

var known = map[string][]string{}

// same is one list for all that are alike, so that a million of them stay in the processor's cache.
func same(tags []string) []string {
	text := strings.Join(tags, " ")
	if known[text] == nil {
		known[text] = tags
	}
	return known[text]
}

// add adds a revision, and lets go of those that no tag keeps.
func (j *job) add(r schedule.Revision) {
	r.Tags = same(r.Tags)
	j.revisions = append(j.revisions, r)
	if len(j.revisions) < 64 {
		return
	}
	have := map[string]int{}
	keep := make([]bool, len(j.revisions))
	for i, r := range slices.Backward(j.revisions) {
		for _, tag := range r.Tags {
			have[tag]++
			keep[i] = keep[i] || have[tag] <= j.schedule[tag].Keep
		}
	}
	left := j.revisions[:0]
	for i, r := range j.revisions {
		if keep[i] {
			left = append(left, r)
		}
	}
	j.revisions = left
}

func (m *sim) at(t time.Time, j *job, what func()) {
	plan := -1
	if j != nil {
		plan = j.plans
	}
	m.seq++
	heap.Push(&m.events, event{t, j, what, plan, m.seq})
}

func (m *sim) run() {
	for len(m.events) > 0 && m.events[0].at.Before(m.end) {
		e := heap.Pop(&m.events).(event)
		if e.plan >= 0 && e.plan != e.job.plans {
			continue
		}
		if e.at.Before(m.now) {
			m.t.Fatalf("%s: time goes back from %s to %s", m.name, m.now, e.at)
		}
		m.now = e.at
		e.what()
		for name, l := range m.lanes {
			if !m.down && len(l.queue) > 0 && l.busy < m.workers {
				m.t.Fatalf("%s: a worker of the lane %s is free, and %s waits", m.name, name, l.queue[0].name)
			}
		}
	}
	m.now = m.end
	for _, j := range m.jobs {
		if !j.queued.IsZero() {
			j.blocked += m.now.Sub(j.queued)
		}
		m.judge(j, 0)
	}
}

// plan thinks out when the job runs next, as the scheduler does.
func (m *sim) plan(j *job) {
	if m.down || j.running || !j.queued.IsZero() {
		return
	}
	j.next = j.schedule.Plan(j.revisions, m.now, j.spread)
	if j.failures > 0 {
		j.next.At = m.now.Add(schedule.Backoff(j.failures))
	}
	if j.next.At.Before(m.now) {
		m.t.Fatalf("%s: %s is planned for the past", m.name, j.name)
	}
	j.plans++
	m.at(j.next.At, j, func() { m.due(j) })
}

func (m *sim) due(j *job) {
	if !j.failed.IsZero() {
		j.failing += m.now.Sub(j.failed)
		j.failed = time.Time{}
	}
	if j.failures > 0 { // tags are thought out anew
		j.next = j.schedule.Plan(j.revisions, m.now, j.spread)
	}
	j.queued = m.now
	l := m.lanes[schedule.Lane(j.revisions)]
	l.queue = append(l.queue, j)
	m.Longest = max(m.Longest, len(l.queue))
	m.work(l)
}

// work gives the lane's free workers what is queued.
func (m *sim) work(l *lane) {
	for !m.down && l.busy < m.workers && len(l.queue) > 0 {
		j := l.queue[0]
		l.queue = l.queue[1:]
		l.busy++
		j.blocked += m.now.Sub(j.queued)
		j.queued, j.running = time.Time{}, true
		m.Runs++
		m.starts[int(m.now.Sub(m.start)/time.Hour)]++
		begun, takes, tags := m.now, m.takes(j), j.next.Tags
		if len(tags) == 0 {
			m.t.Fatalf("%s: %s runs without tags", m.name, j.name)
		}
		good := m.rand.Float64() >= j.fails
		if !good {
			takes = time.Duration(m.rand.Int64N(int64(takes))) + 1
		}
		j.plans++
		m.at(begun.Add(takes), nil, func() { m.done(j, l, begun, tags, good) })
	}
}

func (m *sim) done(j *job, l *lane, begun time.Time, tags []string, good bool) {
	l.busy--
	j.running = false
	if good {
		m.judge(j, m.now.Sub(begun))
		j.add(schedule.Revision{Time: begun, Tags: tags, Known: true, Good: true, Duration: m.now.Sub(begun)})
		j.failures, j.blocked, j.failing, j.restarts = 0, 0, 0, 0
	} else {
		m.Failed++
		j.failures++
		j.failed = begun
	}
	m.plan(j)
	m.work(l)
}

// patience is how near a tick has to be for a job that missed one to wait for it.
const patience = 5 * time.Minute

// judge counts a broken promise, at the moment in which a backup that took so long has ended.
func (m *sim) judge(j *job, took time.Duration) {
	v := j.schedule.Serve(j.revisions, j.since, m.now)
	if !v.Late {
		return
	}
	if !j.failed.IsZero() {
		j.failing += m.now.Sub(j.failed)
	}
	smallest := v.Limit / 3 * 2
	switch {
	case v.Age-j.blocked-j.failing > smallest+took+patience*time.Duration(1+j.restarts):
		m.Broken++
		m.example = fmt.Sprintf("%s at %s: %s old, of which it was blocked for %s, failing for %s; a backup took %s", j.name, m.now, v.Age, j.blocked, j.failing, took)
	case v.Age-j.blocked <= v.Limit: // that alone explains it
		m.ByBusy++
	default:
		m.ByFailures++
	}
}

// sleep is a scheduler that goes off. What runs goes on; what is queued, and how often jobs have failed, is forgotten.
func (m *sim) sleep() {
	m.down = true
	for _, l := range m.lanes {
		l.queue = nil
	}
	for _, j := range m.jobs {
		if !j.failed.IsZero() {
			j.failing += m.now.Sub(j.failed)
		}
		if !j.queued.IsZero() {
			j.blocked += m.now.Sub(j.queued)
		}
		j.queued, j.failed, j.failures = time.Time{}, time.Time{}, 0
		j.plans++
		j.restarts++
	}
}

// wake is a scheduler that comes up: it knows the revisions, and nothing else.
func (m *sim) wake() {
	m.down = false
	if m.now.After(m.start) && m.off[1] > 0 && m.now.Equal(m.start.Add(m.off[1])) {
		for _, j := range m.jobs {
			j.blocked += m.off[1] - m.off[0]
		}
	}
	for _, j := range m.jobs {
		if !j.failed.IsZero() { // meanwhile
			j.failing += m.now.Sub(j.failed)
			j.failed, j.failures = time.Time{}, 0
		}
		m.plan(j)
	}
}

func (m *sim) again() {
	if !m.down {
		m.sleep()
		m.wake()
	}
	m.at(m.now.Add(m.restart), nil, m.again)
}

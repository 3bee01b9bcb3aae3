package sched

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"backy/pkg/bus"
	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/schedule"
)

var daily = schedule.Schedule{"daily": {Interval: schedule.Day, Keep: 5}, "weekly": {Interval: schedule.Week, Keep: 5}}

// planner is a daemon that only plans: it has no bus and no repository, and a clock that tests set.
type planner struct {
	*Daemon
	now    time.Time
	queued []bus.Work
	fail   error // of the queue
}

func newPlanner(now time.Time, jobs ...string) *planner {
	p := &planner{now: now}
	c := &config.Daemon{}
	for _, name := range jobs {
		c.Jobs = append(c.Jobs, config.ScheduledJob{Name: name, Pool: config.DefaultPool, Schedule: daily})
	}
	p.Daemon = &Daemon{
		Options: Options{Now: func() time.Time { return p.now }, Log: slog.New(slog.DiscardHandler)}, config: c, outbox: newOutbox(),
		lanes: map[string]*limiter{}, wake: make(chan struct{}, 1), changed: make(chan struct{}), jobs: map[string]*job{},
		queue: func(_ context.Context, w bus.Work) (bool, error) {
			if p.fail == nil {
				p.queued = append(p.queued, w)
			}
			return true, p.fail
		},
	}
	for _, lane := range lanes {
		p.lanes[lane] = newLimiter(1)
	}
	p.adopt(c)
	return p
}

// made is a backup that was begun at t.
func (p *planner) made(name string, t time.Time, tags ...string) {
	j := p.jobs[name]
	j.revisions = append(j.revisions, schedule.Revision{ID: fmt.Sprint(len(j.revisions)), Time: t, Tags: tags, Known: true, Good: true, Duration: time.Minute, Read: "compare"})
	j.queued, j.run = "", nil
	j.succeeded()
}

// told takes the events that were told, as "kind job".
func (p *planner) told() (list []string) {
	for _, e := range p.outbox.events {
		list = append(list, string(e.Kind)+" "+e.Job)
	}
	p.outbox.events = nil
	return list
}

var start = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func TestATickIsNotLostToWhoComesLate(t *testing.T) {
	p := newPlanner(start, "vm1")
	p.made("vm1", start, "daily", "weekly")
	due, rest := p.decide(p.now)
	tick := p.jobs["vm1"].next.At
	if len(due) != 0 || rest > planEvery || tick.Before(start) || tick.Sub(start) > schedule.Day {
		t.Fatalf("due %v, rest %s, next %s", due, rest, tick)
	}
	p.now = tick.Add(-time.Second)
	if due, rest := p.decide(p.now); len(due) != 0 || rest != time.Second {
		t.Errorf("a second before: due %v, rest %s", due, rest)
	}
	// The revision of yesterday may be younger than a day still: the tick has come all the same.
	p.now = tick.Add(3 * time.Millisecond)
	due, _ = p.decide(p.now)
	if len(due) != 1 || !due[0].Due.Equal(tick) || due[0].Job != "vm1" || due[0].Lane != schedule.Fast || !slices.Equal(due[0].Tags, []string{"daily"}) {
		t.Fatalf("got %+v", due)
	}
	p.plan(context.Background())
	if due, _ := p.decide(p.now); len(p.queued) != 1 || len(due) != 0 {
		t.Errorf("what is queued is not due: %v, %v", p.queued, due)
	}
	p.made("vm1", p.now, "daily")
	if due, _ := p.decide(p.now); len(due) != 0 || !p.jobs["vm1"].next.At.Equal(tick.Add(schedule.Day)) {
		t.Errorf("the next is a day later: %v, %s", due, p.jobs["vm1"].next.At)
	}
}

func TestFailures(t *testing.T) {
	p := newPlanner(start, "vm1")
	p.made("vm1", start.Add(-25*time.Hour), "daily", "weekly")
	j := p.jobs["vm1"]
	for _, minutes := range []int{2, 4, 8, 16, 32, 64, 128, 256, 360, 360} {
		due, _ := p.decide(p.now)
		if len(due) != 1 || !slices.Equal(due[0].Tags, []string{"daily"}) {
			t.Fatalf("after %d failures: %+v", j.failures, due)
		}
		e := j.fail(p.now, "read", "no such disk")
		if e.Kind != event.Failed || e.Attempt != j.failures || e.Message != "no such disk" {
			t.Errorf("event %+v", e)
		}
		again := p.now.Add(time.Duration(minutes) * time.Minute)
		p.now = again.Add(-time.Second)
		if due, _ := p.decide(p.now); len(due) != 0 || !j.next.At.Equal(again) {
			t.Fatalf("a second early: %v, next %s, want %s", due, j.next.At, again)
		}
		p.now = again
	}
	if w := p.status(j); w.Status != StatusFailed || w.Failures != 10 || w.Message != "no such disk" {
		t.Errorf("status %+v", w)
	}
	if err := p.Run("vm1"); err != nil { // somebody asked for it: at once
		t.Fatal(err)
	}
	p.now = p.now.Add(time.Second)
	j.fail(p.now, "read", "no such disk")
	if due, _ := p.decide(p.now); len(due) != 1 || !due[0].Manual {
		t.Errorf("asked for: %+v", due)
	}
	p.made("vm1", p.now, "daily")
	j.wanted = time.Time{}
	if due, _ := p.decide(p.now); len(due) != 0 || j.failures != 0 || p.status(j).Status != StatusWaiting {
		t.Errorf("after it: %v, %+v", due, p.status(j))
	}
	if err := p.Run("vm2"); !errors.Is(err, ErrNoJob) {
		t.Errorf("a job that is none: %v", err)
	}
}

func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{-400 * schedule.Day, -25 * time.Hour, -time.Hour, -time.Second, time.Hour, 25 * time.Hour, 400 * schedule.Day} {
		t.Run(jump.String(), func(t *testing.T) {
			p := newPlanner(start, "good", "bad", "new")
			p.made("good", start.Add(-time.Minute), "daily", "weekly")
			p.made("bad", start.Add(-30*time.Hour), "daily", "weekly")
			p.jobs["bad"].fail(start, "read", "no")
			p.decide(p.now)
			p.now = p.now.Add(jump)
			due, rest := p.decide(p.now)
			if rest > planEvery {
				t.Errorf("rest %s", rest)
			}
			for _, w := range due {
				if w.Due.After(p.now) {
					t.Errorf("%s is due at %s, which is to come", w.Job, w.Due)
				}
			}
			for name, j := range p.jobs {
				if left := j.next.At.Sub(p.now); left > schedule.Day || j.failures > 0 && left > 2*time.Minute {
					t.Errorf("%s is planned for %s from now", name, left)
				}
			}
			if was := slices.ContainsFunc(due, func(w bus.Work) bool { return w.Job == "good" }); was != (jump > 23*time.Hour) && jump != time.Hour {
				t.Errorf("the good one is due: %t", was)
			}
			// What is made then is made once.
			for _, w := range due {
				p.made(w.Job, p.now, w.Tags...)
			}
			if due, _ := p.decide(p.now.Add(time.Second)); len(due) != 0 {
				t.Errorf("and once more: %+v", due)
			}
		})
	}
}

func TestLateAndRecovered(t *testing.T) {
	p := newPlanner(start, "never", "once")
	p.jobs["never"].since = start
	p.made("once", start.Add(-time.Hour), "daily")
	p.jobs["never"].queued, p.jobs["once"].queued = schedule.Slow, schedule.Slow // no worker is free
	limit := daily.SLA()
	for _, step := range []struct {
		at   time.Duration
		want string
	}{{0, ""}, {limit - time.Hour, ""}, {limit - time.Hour + time.Second, "late once"}, {limit, ""}, {limit + time.Second, "late never"}, {2 * limit, ""}} {
		p.now = start.Add(step.at)
		p.decide(p.now)
		if got := strings.Join(p.told(), ", "); got != step.want {
			t.Errorf("after %s: %q, want %q", step.at, got, step.want)
		}
	}
	if s := p.Status(nil)[1]; s.Job != "once" || s.SLA != SLABroken || s.SLAOverdue != s.Age || s.Age < limit.Seconds() {
		t.Errorf("status %+v", s)
	}
	p.made("never", p.now, "daily")
	p.decide(p.now)
	if got := p.told(); !slices.Equal(got, []string{"recovered never"}) {
		t.Errorf("got %v", got)
	}
}

func TestTheQueueFails(t *testing.T) {
	p := newPlanner(start, "a", "b")
	for _, name := range []string{"a", "b"} {
		p.made(name, start.Add(-30*time.Hour), "daily")
	}
	p.fail = errors.New("no bus")
	if rest := p.plan(context.Background()); rest != pushAgain || len(p.queued) != 0 {
		t.Errorf("rest %s, queued %v", rest, p.queued)
	}
	if s := p.Status(nil)[0].Status; s != StatusWaiting {
		t.Errorf("status %s", s)
	}
	p.fail = nil
	p.plan(context.Background())
	if len(p.queued) != 2 {
		t.Errorf("queued %v", p.queued)
	}
	if q := p.Queue(); len(q) != 2 || q[0].Waiting != 2 || q[0].Lane != schedule.Fast || q[1].Waiting != 0 {
		t.Errorf("queue %+v", q)
	}
}

// A bus that is far away takes its time with many jobs, which is no reason to take the daemon for dead.
func TestAliveWhileMuchIsQueued(t *testing.T) {
	p := newPlanner(start, "a", "b", "c", "d")
	for name := range p.jobs {
		p.made(name, start.Add(-30*time.Hour), "daily")
	}
	p.queue = func(context.Context, bus.Work) (bool, error) {
		if !p.Alive() {
			t.Error("taken for dead")
		}
		p.now = p.now.Add(planEvery)
		return true, nil
	}
	p.lives()
	p.plan(context.Background())
	if p.now = p.now.Add(3 * planEvery); p.Alive() {
		t.Error("who has not planned for so long is not alive")
	}
}

// A worker elsewhere took a job from the queue, or somebody emptied it: the job goes on by its schedule, or is still due.
func TestWhatIsNotInTheQueueAnyMore(t *testing.T) {
	p := newPlanner(start, "done", "lost", "runs")
	for name := range p.jobs {
		p.made(name, start.Add(-30*time.Hour), "daily", "weekly")
	}
	p.plan(context.Background())
	p.jobs["runs"].queued, p.jobs["runs"].run = "", &run{}
	if names := p.waiting(); len(names) != 2 || slices.Contains(names, "runs") {
		t.Fatalf("waiting: %v", names)
	}
	p.now = start.Add(time.Minute)
	j := p.jobs["done"]
	j.revisions = append(j.revisions, schedule.Revision{ID: "new", Time: p.now, Tags: []string{"daily"}, Known: true, Good: true})
	for name := range p.jobs {
		p.missing(name)
	}
	due, _ := p.decide(p.now)
	if len(due) != 1 || due[0].Job != "lost" || !due[0].Due.Equal(start) {
		t.Errorf("due: %+v", due)
	}
	if !j.next.At.After(p.now) || p.jobs["runs"].run == nil {
		t.Errorf("done is next at %s; runs %v", j.next.At, p.jobs["runs"].run)
	}
}

// The planner sleeps until the next job is due, and at most a minute; and it wakes when it is told to.
func TestPlanning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlanner(time.Now(), "vm1")
		p.Options.Now = time.Now
		p.made("vm1", time.Now(), "daily", "weekly")
		queue, at := p.queue, make(chan time.Time, 10)
		p.queue = func(ctx context.Context, w bus.Work) (bool, error) {
			at <- time.Now()
			return queue(ctx, w)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go p.planning(ctx)
		synctest.Wait()
		tick := *p.Status(nil)[0].NextTime
		time.Sleep(tick.Sub(time.Now()) + time.Millisecond)
		synctest.Wait()
		if len(at) != 1 || !(<-at).Equal(tick) {
			t.Fatalf("not queued at %s, its time", tick)
		}
		p.mu.Lock()
		p.made("vm1", time.Now(), "daily")
		p.mu.Unlock()
		time.Sleep(30 * time.Second)
		if err := p.Run("vm1"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(at) != 1 || !(<-at).Equal(time.Now()) {
			t.Error("not queued at once when it was asked for")
		}
		cancel()
		synctest.Wait()
		if !p.queued[1].Manual {
			t.Errorf("queued %+v", p.queued)
		}
	})
}

// A daemon that begins now plans what one plans that has been there for long: a restart changes nothing that is due. What
// was due before it is in the queue.
func TestARestartChangesNothing(t *testing.T) {
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("job%d", i))
	}
	one := newPlanner(start, names...)
	for i, name := range names {
		for day := range 9 {
			one.made(name, start.Add(-time.Duration(day)*schedule.Day-time.Duration(i)*time.Hour), "daily", "weekly")
		}
	}
	ran := 0
	for end := start.Add(3 * schedule.Day); one.now.Before(end); {
		due, rest := one.decide(one.now)
		other := newPlanner(one.now, names...)
		for name, j := range one.jobs {
			other.jobs[name].history = j.history
		}
		other.decide(other.now)
		for name, j := range one.jobs {
			if next := other.jobs[name].next; j.next.At.After(one.now) && fmt.Sprint(next) != fmt.Sprint(j.next) {
				t.Fatalf("at %s %s is planned for %v, and after a restart for %v", one.now, name, j.next, next)
			}
		}
		for _, w := range due {
			one.made(w.Job, one.now, w.Tags...)
			ran++
		}
		one.now = one.now.Add(rest)
	}
	if ran < 3*len(names) {
		t.Errorf("only %d backups in three days", ran)
	}
}

// BenchmarkDecideAgain is what it costs that one of 10,000 jobs has news.
func BenchmarkDecideAgain(b *testing.B) {
	p := many()
	p.decide(p.now)
	for b.Loop() {
		p.jobs["job17"].changed = true
		p.decide(p.now)
	}
}

// many are 10,000 jobs with 50 revisions each.
func many() *planner {
	var names []string
	for i := range 10000 {
		names = append(names, fmt.Sprintf("job%d", i))
	}
	p := newPlanner(start.Add(-12*time.Hour), names...) // when none of them is due
	for _, name := range names {
		for day := range 50 {
			p.made(name, start.Add(-time.Duration(50-day)*schedule.Day), "daily", "weekly")
		}
	}
	return p
}

func BenchmarkDecide(b *testing.B) {
	p := many()
	for b.Loop() { // from cold
		p.decided = time.Time{}
		p.decide(p.now)
	}
}

package sched

import (
	"context"
	"slices"
	"time"

	"backy/pkg/bus"
	"backy/pkg/event"
	"backy/pkg/schedule"
)

// planEvery is how often everything is planned anew, whatever the clock did meanwhile.
const planEvery = time.Minute

// planning plans until ctx ends. It sleeps by elapsed time, and never longer than a minute, so that a clock that jumps is
// found out; and it wakes when something has changed.
func (d *Daemon) planning(ctx context.Context) {
	for {
		next := d.plan(ctx)
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-d.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// plan decides about all jobs, queues what is due, and returns after what time to do that again.
func (d *Daemon) plan(ctx context.Context) time.Duration {
	due, next := d.decide(d.Now())
	for _, w := range due {
		if !d.push(ctx, w) { // the others would fare no better
			next = min(next, pushAgain)
			break
		}
		d.lives() // many jobs take a while where the bus is far away
	}
	d.lives()
	return next
}

// lives notes that planning gets on.
func (d *Daemon) lives() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.planned = d.Now()
}

// pushAgain is after what time work is queued again that could not be.
const pushAgain = 10 * time.Second

// decide thinks out what jobs are to do: once a minute all, in between those about which there is news. It tells who is late
// and who is not any more, and returns the work that is due, what is due for longest first, and how long all can rest.
func (d *Daemon) decide(now time.Time) (due []bus.Work, rest time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rest = planEvery
	since := now.Sub(d.decided)
	everything := d.decided.IsZero() || since < 0 || since >= planEvery
	if everything {
		d.decided = now
	}
	for _, j := range d.jobs {
		if j.config == nil {
			continue
		}
		if everything || j.changed || !j.next.At.After(now) {
			if e := j.serve(now); e != nil {
				d.tell(*e)
				d.Log.Info(string(e.Kind)+": "+e.Message, "job", j.name)
			}
			j.plan(now)
		}
		if since, manual, ok := j.due(now); ok {
			due = append(due, bus.Work{
				Job: j.name, Pool: j.config.Pool, Lane: schedule.Lane(j.revisions), Tags: j.next.Tags, Due: since, Manual: manual,
				Compare: schedule.CompareDue(j.revisions, j.config.CompareEvery, now, schedule.Spread(j.name, j.config.CompareEvery)),
			})
		} else if j.queued == "" && j.run == nil {
			rest = min(rest, j.next.At.Sub(now))
		}
	}
	slices.SortFunc(due, func(a, b bus.Work) int { return a.Due.Compare(b.Due) })
	return due, rest
}

// push queues work, and says so. It returns false where the bus does not take it.
func (d *Daemon) push(ctx context.Context, w bus.Work) bool {
	e := event.Event{Kind: event.Due, Time: d.Now(), Job: w.Job, Tags: w.Tags, Stage: "sched", Host: d.host}
	w.ID = e.Identity()
	d.mu.Lock()
	j := d.jobs[w.Job]
	if j == nil || j.run != nil {
		d.mu.Unlock()
		return true
	}
	// From before it is queued, for a worker may be done with it before we hear that it is. Where it was in the queue already,
	// someone has it, or had it and died: it is given out again then.
	wanted := j.wanted
	j.queued, j.wanted = w.Lane, time.Time{}
	d.mu.Unlock()
	added, err := d.queue(ctx, w)
	if err != nil {
		d.mu.Lock()
		if j.queued == w.Lane && j.run == nil {
			j.queued, j.wanted = "", wanted
		}
		d.mu.Unlock()
	}
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		d.Log.WarnContext(ctx, "a job is due, but cannot be queued; trying again", "job", w.Job, "error", err)
		return false
	}
	if added {
		d.tell(e)
		d.Log.DebugContext(ctx, "due", "job", w.Job, "tags", w.Tags, "lane", w.Lane)
	}
	return true
}

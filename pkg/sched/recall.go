package sched

import (
	"context"
	"time"

	"backy/pkg/bus"
	"backy/pkg/event"
)

// recall learns from the events what the repository does not tell: how often jobs have failed in a row, which of them are
// late, and of which revisions events have told; and from the queue, what is in it. Where the events are lost, no job has
// failed, and those that are late are told of again.
func (d *Daemon) recall(ctx context.Context) error {
	last := map[event.Kind]map[string]event.Event{}
	kinds := []event.Kind{event.Committed, event.Failed, event.Late, event.Recovered}
	for _, k := range kinds {
		last[k] = map[string]event.Event{}
	}
	b := d.currentBus()
	for e, err := range b.Events(ctx, bus.EventFilter{Kinds: kinds, Newest: true}) {
		if err != nil {
			d.Log.WarnContext(ctx, "not all of what happened before can be read", "error", err)
			continue
		}
		if last[e.Kind] != nil {
			last[e.Kind][e.Job] = e
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	queue, err := b.Waiting(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, j := range d.jobs {
		made, known := last[event.Committed][name]
		if known {
			j.heard = &made
		}
		if f, ok := last[event.Failed][name]; ok && f.Attempt > 0 && f.Time.After(made.Time) {
			j.failures, j.failed, j.message = f.Attempt, f.Time, f.Message
		}
		late, ok := last[event.Late][name]
		j.late = ok && late.Time.After(last[event.Recovered][name].Time)
		if w, ok := queue[name]; ok {
			j.queued = w.Lane
			delete(queue, name)
		}
	}
	for name := range queue { // jobs that the configuration does not have any more
		if err := b.Drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// settle compares what was recalled with the revisions that were read: one that was made after the last failure ends the
// row of failures, also where nobody told of it.
func (j *job) settle() {
	for _, r := range j.revisions {
		if j.failures > 0 && r.Good && r.Time.Add(r.Duration).After(j.failed.Add(time.Millisecond)) {
			j.failures, j.failed, j.message = 0, time.Time{}, ""
		}
	}
}

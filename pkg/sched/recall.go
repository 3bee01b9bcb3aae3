package sched

import (
	"context"
	"maps"
	"slices"
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
	if queue, err = d.requeue(ctx, queue); err != nil {
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
		}
	}
	return nil
}

// requeue queues anew what is in the queue, where nobody but this daemon works for it: what the one before had in its hands
// when it was killed would not be given out for a while. Jobs that the configuration does not have are left out.
func (d *Daemon) requeue(ctx context.Context, queue map[string]bus.Work) (map[string]bus.Work, error) {
	b, c := d.currentBus(), d.Config()
	ours := c.NATS.URL == "" && c.Global.Pools == nil
	works := slices.SortedFunc(maps.Values(queue), func(a, b bus.Work) int { return a.Due.Compare(b.Due) })
	for _, w := range works {
		job := d.configured(w.Job)
		if job != nil && !ours {
			continue
		}
		if err := b.Drop(ctx, w.Job); err != nil {
			return queue, err
		}
		if job == nil {
			delete(queue, w.Job)
			continue
		}
		w.Pool = job.Pool
		if _, err := b.Push(ctx, w); err != nil {
			return queue, err
		}
	}
	return queue, nil
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

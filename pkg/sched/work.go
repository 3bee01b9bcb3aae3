package sched

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"backy/pkg/bus"
)

const (
	// turn is how long work of one pool is waited for, where there are several.
	turn = time.Second

	// keepEvery is how often the queue is told that work is under way.
	keepEvery = bus.WorkWait / 4
)

// pulling takes work of a lane from the queue, as long as there are free workers, until ctx ends.
func (d *Daemon) pulling(ctx context.Context, lane string) {
	var working sync.WaitGroup
	defer working.Wait()
	for i := 0; d.lanes[lane].enter(ctx); i++ {
		task, err := d.pull(ctx, lane, i)
		if task == nil {
			d.lanes[lane].leave()
			if err != nil && ctx.Err() == nil {
				d.Log.DebugContext(ctx, "no work can be had", "lane", lane, "error", err)
				wait(ctx, time.Second)
			}
			continue
		}
		working.Go(func() {
			defer d.lanes[lane].leave()
			d.perform(ctx, task)
		})
	}
}

// pull waits for work of one of the pools, in turn. Without work it returns nil after a while.
func (d *Daemon) pull(ctx context.Context, lane string, i int) (*bus.Task, error) {
	pools := d.pools()
	patience := planEvery
	if len(pools) > 1 {
		patience = turn
	}
	if len(pools) == 0 {
		wait(ctx, turn)
		return nil, nil
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	task, err := d.currentBus().Pull(waiting, pools[i%len(pools)], lane)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return task, err
}

// pools are those whose work this daemon does.
func (d *Daemon) pools() []string {
	c := d.Config()
	if c.Global.Pools != nil {
		return c.Global.Pools
	}
	var pools []string
	for _, j := range c.Jobs {
		if !slices.Contains(pools, j.Pool) {
			pools = append(pools, j.Pool)
		}
	}
	slices.Sort(pools)
	return pools
}

// perform does a task, and takes it from the queue, however it ends; what fails is planned anew. Where all is to end it
// goes back.
func (d *Daemon) perform(ctx context.Context, t *bus.Task) {
	done := make(chan struct{})
	var keeping sync.WaitGroup
	keeping.Go(func() {
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				t.Working()
			}
		}
	})
	d.attempt(ctx, t.Work)
	close(done)
	keeping.Wait()
	end := t.Done
	if ctx.Err() != nil {
		end = func() error { return t.Again(0) }
	}
	if err := end(); err != nil && ctx.Err() == nil {
		d.Log.WarnContext(ctx, "the queue does not know yet what became of its work", "job", t.Job, "error", err)
	}
	d.taken(t.Job)
	d.nudge()
}

// taken notes that the queue has nothing of a job any more. What was pushed between the end of the work and that of its
// message was not queued: there was a message. Where it was queued all the same, to be planned once more does no harm.
func (d *Daemon) taken(job string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j := d.jobs[job]; j != nil && j.run == nil {
		j.queued = ""
	}
}

// attempt makes the backup that the work asks for, if that is still to be made.
func (d *Daemon) attempt(ctx context.Context, w bus.Work) {
	b, why := d.begin(ctx, w)
	if b == nil {
		d.Log.DebugContext(ctx, "nothing is to be done", "job", w.Job, "reason", why)
		return
	}
	d.Log.InfoContext(ctx, "backup begins", "job", b.name, "tags", b.tags, "lane", w.Lane)
	stage, err := b.make(ctx)
	interrupted := ctx.Err() != nil
	d.read(context.WithoutCancel(ctx), b.name)
	if err == nil && !d.has(b.name, b.before) {
		err = errors.New("the pipeline ended well, but made no revision")
	}

	d.mu.Lock()
	j := d.jobs[b.name]
	if j == nil {
		d.mu.Unlock()
		return
	}
	j.run = nil
	switch {
	case err == nil:
		j.succeeded()
		d.mu.Unlock()
		d.Log.InfoContext(ctx, "backup made", "job", b.name, "took", d.Now().Sub(b.begun).Round(time.Millisecond))
	case interrupted: // by us, and it is not the job's fault
		d.mu.Unlock()
		d.Log.InfoContext(ctx, "backup ended, to be made by the next scheduler", "job", b.name)
	default:
		e := j.fail(d.Now(), stage, err.Error())
		d.tell(e)
		j.plan(d.Now())
		again := j.next.At
		d.mu.Unlock()
		d.Log.ErrorContext(ctx, "backup failed: "+e.Message, "job", b.name, "attempt", e.Attempt, "again", again.Local().Format(time.DateTime))
	}
}

// begin notes that a job is running, and returns the backup to be made. It is nil where there is nothing to be done: the
// job is gone, somebody else is at it, or it was done while the work was in the queue, which may give it out twice.
func (d *Daemon) begin(ctx context.Context, w bus.Work) (b *backup, why string) {
	rj, err := d.repo.Job(w.Job)
	if err != nil {
		return nil, err.Error()
	}
	d.mu.Lock()
	j := d.jobs[w.Job]
	if j == nil || j.config == nil {
		d.mu.Unlock()
		return nil, "the configuration does not have the job"
	}
	j.queued = ""
	if j.run != nil && j.run.holder == nil {
		d.mu.Unlock()
		return nil, "it is running already"
	}
	if j.run == nil {
		j.run = &run{lane: w.Lane, since: d.Now()}
	}
	mine := j.run
	d.mu.Unlock()

	d.read(ctx, w.Job)
	holder, err := rj.Writer()
	if err != nil {
		d.Log.WarnContext(ctx, "nobody knows whether the job is being backed up", "job", w.Job, "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if j != d.jobs[w.Job] || j.config == nil {
		return nil, "the configuration does not have the job any more"
	}
	if holder != nil {
		mine.holder, mine.queued = holder, true
		return nil, "it is being backed up by " + holder.String()
	}
	mine.holder = nil
	mine.lane, mine.since = w.Lane, d.Now()
	if id, ok := j.made(w.Due, d.Now()); ok {
		j.run = nil
		j.succeeded()
		return nil, "revision " + id + " was made since it was due"
	}
	return d.newBackup(j, w), ""
}

// newBackup is what is to be run for a job. The tags are those that it was queued for, if its schedule still has them, and
// those that were missed since.
func (d *Daemon) newBackup(j *job, w bus.Work) *backup {
	b := &backup{Daemon: d, name: j.name, config: *j.config, work: w, begun: d.Now(), before: map[string]bool{}}
	missed := j.config.Schedule.Missed(j.revisions, d.Now())
	for _, tag := range j.config.Schedule.Tags() {
		if slices.Contains(w.Tags, tag) || slices.Contains(missed, tag) {
			b.tags = append(b.tags, tag)
		}
	}
	for _, r := range j.revisions {
		b.before[r.ID] = true
	}
	return b
}

// has says whether the job has a revision that it did not have before.
func (d *Daemon) has(name string, before map[string]bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.jobs[name]
	return j != nil && slices.ContainsFunc(j.revisions, func(r revision) bool { return !before[r.ID] })
}

// settleAll settles all jobs.
func (d *Daemon) settleAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.jobs {
		j.settle()
	}
}

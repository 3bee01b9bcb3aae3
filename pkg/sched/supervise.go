package sched

import (
	"context"
	"time"

	"backy/pkg/bus"
	"backy/pkg/scrub"
)

// currentBus is the bus as it is open now.
func (d *Daemon) currentBus() *bus.Bus { return d.bus.Load() }

// openBus opens the bus that a configuration names.
func openBus(ctx context.Context, o Options, dir string) (*bus.Bus, error) {
	n := o.Config.NATS
	return bus.Open(ctx, bus.Options{URL: n.URL, Token: n.Token, Dir: dir, Port: n.Port, MaxAge: n.MaxAge, MaxBytes: n.MaxBytes, Log: o.Log, Now: o.Now})
}

// supervise looks after the bus. One that keeps nothing any more, because its disk was full or its directory is gone, is
// opened anew; what was queued then is queued again, for it is still due.
func (d *Daemon) supervise(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, 10*time.Second)
	err := d.currentBus().Check(asking)
	cancel()
	if err == nil || ctx.Err() != nil {
		d.unwell = 0
		d.reconcile(ctx)
		return
	}
	if d.unwell++; d.unwell < 2 {
		return // it may be on its way back
	}
	d.Log.WarnContext(ctx, "the bus keeps nothing; it is opened anew", "reason", err)
	d.currentBus().Close()
	fresh, err := openBus(ctx, d.Options, stateDir(d.repo))
	if err != nil {
		d.Log.WarnContext(ctx, "the bus cannot be opened; trying again. Nothing is begun meanwhile", "error", err)
		return
	}
	d.bus.Store(fresh)
	d.unwell = 0
	queue, err := fresh.Waiting(ctx)
	if err != nil {
		d.Log.WarnContext(ctx, "the queue cannot be read", "error", err)
	}
	d.mu.Lock()
	for name, j := range d.jobs {
		j.queued = queue[name].Lane
	}
	d.mu.Unlock()
	d.nudge()
}

// reconcile looks for jobs that wait, as the daemon thinks, though the queue has nothing of them any more: a worker elsewhere is
// done with them, or somebody has emptied it. They are planned anew.
func (d *Daemon) reconcile(ctx context.Context) {
	names := d.waiting()
	if len(names) == 0 {
		return
	}
	queued, err := d.currentBus().Queued(ctx)
	if err != nil {
		d.Log.DebugContext(ctx, "the queue cannot be read", "error", err)
		return
	}
	for _, name := range names {
		if !queued[name] {
			d.read(ctx, name)
			d.missing(name)
		}
	}
	d.nudge()
}

// waiting are the jobs whose work is in the queue, as far as is known.
func (d *Daemon) waiting() (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, j := range d.jobs {
		if j.queued != "" && j.run == nil {
			names = append(names, name)
		}
	}
	return names
}

// missing notes that the queue has nothing of a job. Where it was queued just now all the same, to be queued once more does
// no harm.
func (d *Daemon) missing(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.jobs[name]
	if j == nil || j.queued == "" || j.run != nil {
		return
	}
	j.queued = ""
	if _, ok := j.made(j.next.At, d.Now()); ok {
		j.succeeded()
	}
}

// survey reads what scrubs have left: which jobs have reports, and how long ago all of the repository was last read back.
func (d *Daemon) survey(ctx context.Context) {
	var oldest time.Time
	if c, err := d.repo.ScrubCursor(); err == nil {
		oldest = c.Oldest()
	}
	ids, err := d.repo.Quarantines()
	if err != nil {
		d.Log.WarnContext(ctx, "reports of scrubs", "error", err)
	}
	reports := map[string][]string{}
	known := map[string][]string{}
	for _, id := range ids {
		jobs, ok := d.reported[id]
		if !ok {
			jobs, _ = scrub.About(d.repo, id) // none, of one that cannot be read
		}
		known[id] = jobs
		for _, name := range jobs {
			reports[name] = append(reports[name], id)
		}
	}
	d.reported = known
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verified, d.reports = oldest, reports
}

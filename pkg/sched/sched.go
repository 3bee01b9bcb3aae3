// Package sched is the daemon that keeps jobs inside their promises. It knows when each job is due, puts what is due into
// the work queue, has its workers take it from there and make the backups, tells what happens as events, and sees to
// what follows a backup.
//
// What is due follows from the repository, from the configuration and from the time, never from what the daemon remembers:
// it may be killed at any moment, and the next one goes on. How often a job failed in a row, and whether it is late, is in
// the events.
package sched

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"backy/pkg/bus"
	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/repo"
)

// Options are what a Daemon is made of.
type Options struct {
	Config *config.Daemon
	Log    *slog.Logger
	Now    func() time.Time

	// Ready, if not nil, is called once all jobs are known and what is due is queued.
	Ready func()

	// Reloaded, if not nil, is called with each configuration that is to hold from now on, before it does. Its error is a
	// warning, and told to who asked for the reload; what it is about stays as it was.
	Reloaded func(*config.Daemon) error

	// Every is how often the jobs' directories are looked at; 0 is 30 s.
	Every time.Duration
}

// Daemon is the scheduler of one repository. Its methods may be called from several goroutines.
type Daemon struct {
	Options
	repo *repo.Repo
	bus  atomic.Pointer[bus.Bus]
	lock *repo.Lock
	host string

	queue  func(context.Context, bus.Work) (added bool, err error)
	lanes  map[string]*limiter // by the name of the lane
	wake   chan struct{}       // what is due may have changed; holds one
	outbox *outbox

	life      context.Context // of the daemon, until Close
	end       context.CancelFunc
	reloading sync.Mutex          // one reload at a time
	unwell    int                 // how often in a row the bus was found to keep nothing; of looking
	reported  map[string][]string // the jobs that a report is about, by its id; of looking

	mu       sync.Mutex // of all that follows, and of the jobs
	config   *config.Daemon
	jobs     map[string]*job
	looks    map[string]string // what sources looked like before they were read, by the revision's id
	verified time.Time
	reports  map[string][]string // of quarantine, by job
	purgedAt time.Time           // when the last purge began
	changed  chan struct{}       // closed, and made anew, when there is another configuration
	decided  time.Time           // when all jobs were planned
	planned  time.Time           // when planning last got on
	texts    map[string]string   // one of each text that many revisions have
	sets     map[string][]string // and of each list of tags
}

// Open gets hold of the repository that the configuration names, as its only scheduler, and of the bus. It fails with a
// *repo.HeldError where another scheduler is at work.
func Open(ctx context.Context, o Options) (*Daemon, error) {
	base := o.Config.Global.BaseDir
	r, name, err := repo.Open(base, repo.World{Now: o.Now})
	if err != nil {
		return nil, fmt.Errorf("base-dir: %w", err)
	}
	if name != "" {
		return nil, fmt.Errorf("base-dir: %s is no base directory, but the job %s of the repository %s", base, name, r.Base)
	}
	lock, err := r.LockScheduler()
	if held := (*repo.HeldError)(nil); errors.As(err, &held) {
		return nil, fmt.Errorf("another scheduler is at work here: %w; stop that one first", err)
	}
	if err != nil {
		return nil, fmt.Errorf("base-dir: %w", err)
	}
	b, err := openBus(ctx, o, stateDir(r))
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	if o.Every == 0 {
		o.Every = lookEvery
	}
	host, _ := os.Hostname()
	d := &Daemon{
		Options: o, repo: r, lock: lock, host: host, config: o.Config,
		lanes: map[string]*limiter{}, wake: make(chan struct{}, 1), outbox: newOutbox(),
		changed: make(chan struct{}), jobs: map[string]*job{}, looks: map[string]string{}, reports: map[string][]string{}, texts: map[string]string{}, sets: map[string][]string{},
	}
	for _, lane := range lanes {
		d.lanes[lane] = newLimiter(o.Config.Global.WorkerLimit)
	}
	d.life, d.end = context.WithCancel(context.WithoutCancel(ctx))
	d.bus.Store(b)
	d.queue = func(ctx context.Context, w bus.Work) (bool, error) { return d.currentBus().Push(ctx, w) }
	return d, nil
}

// StateDir is where the bus of the repository with this base directory keeps its state, its address and its token.
func StateDir(base string) string { return base + "/" + repo.Dot + "/nats" }

func stateDir(r *repo.Repo) string { return StateDir(r.Base) }

// Close gives the bus and the repository back.
func (d *Daemon) Close() {
	d.end()
	d.currentBus().Close()
	d.lock.Unlock()
}

// Serve schedules until ctx ends, which it takes for being told to end: it ends what it has started, and returns nil. The
// work that it ended is done by the next daemon.
func (d *Daemon) Serve(ctx context.Context) error {
	// What is told last is told by a goroutine that ends last.
	telling, stop := context.WithCancel(context.WithoutCancel(ctx))
	var teller, all sync.WaitGroup
	teller.Go(func() { d.outbox.run(telling, d.publish, d.Log) })
	defer teller.Wait()
	defer stop()
	defer all.Wait()

	d.adopt(d.config)
	if err := d.recall(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.readAll(ctx)
	d.settleAll()
	if ctx.Err() != nil {
		return nil
	}
	d.plan(ctx)
	if d.Ready != nil {
		d.Ready()
	}
	all.Go(func() { d.planning(ctx) })
	all.Go(func() { d.looking(ctx) })
	for _, lane := range lanes {
		all.Go(func() { d.pulling(ctx, lane) })
	}
	d.follow(ctx, &all)
	<-ctx.Done()
	d.Log.Info("told to end: what is under way is ended, and done by the next scheduler")
	all.Wait()
	d.outbox.drain(drainTime)
	return nil
}

// drainTime is how long events may take to get out at the end.
const drainTime = 2 * time.Second

// Alive says whether the daemon plans; it returns at once unless the daemon hangs.
func (d *Daemon) Alive() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	since := d.Now().Sub(d.planned)
	return d.planned.IsZero() || since < 3*planEvery || since < 0
}

// Config is the configuration that holds. It is not to be changed.
func (d *Daemon) Config() *config.Daemon {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}

// adopt takes a configuration over: jobs that are new are known from now on, and those that it does not have are no jobs
// any more. It returns the names of the jobs whose directory is to be read, and of those whose work is to be dropped.
func (d *Daemon) adopt(c *config.Daemon) (read, drop []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config = c
	close(d.changed)
	d.changed = make(chan struct{})
	for _, lane := range lanes {
		d.lanes[lane].set(c.Global.WorkerLimit)
	}
	wanted := map[string]bool{}
	for _, jc := range c.Jobs {
		wanted[jc.Name] = true
		j := d.jobs[jc.Name]
		if j == nil {
			j = &job{name: jc.Name}
			d.jobs[jc.Name] = j
		}
		if j.config != nil && (j.config.Pool != jc.Pool) {
			drop = append(drop, jc.Name)
		}
		j.config = &jc
		j.spread = jc.Schedule.Spread(jc.Name)
		j.next.At, j.changed = time.Time{}, true
		read = append(read, jc.Name)
	}
	for name, j := range d.jobs {
		if !wanted[name] && j.config != nil {
			j.config = nil // it is a dead one, if it has revisions; the next walk tells
			drop = append(drop, name)
			if len(j.revisions) == 0 && j.run == nil {
				delete(d.jobs, name)
			}
		}
	}
	slices.Sort(drop)
	return read, drop
}

// publish gives an event to the bus.
func (d *Daemon) publish(ctx context.Context, e event.Event) error {
	return d.currentBus().Publish(ctx, e)
}

// tell queues an event of a job, or of the repository, to be published.
func (d *Daemon) tell(e event.Event) {
	if e.Time.IsZero() {
		e.Time = d.Now()
	}
	if e.Host == "" {
		e.Host = d.host
	}
	if e.Stage == "" {
		e.Stage = "sched"
	}
	d.outbox.put(e)
}

// nudge has the planner look again.
func (d *Daemon) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// wait returns false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

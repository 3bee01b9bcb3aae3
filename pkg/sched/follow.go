package sched

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/bus"
	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/pipeline"
	"backy/pkg/schedule"
)

// followUp is something that follows a backup. It is a durable consumer of events: after a restart it goes on where it
// was. An event may come twice, so doing it twice has to be harmless.
type followUp struct {
	name  string // as in the configuration
	kind  event.Kind
	tries int
	slow  bool // as many at a time as there are workers in a lane; else one
	do    func(*Daemon, context.Context, bus.Delivery) error
}

// followUps are those of config.FollowUps.
var followUps = []followUp{
	{"verify", event.Committed, 3, true, (*Daemon).verify},
	{"expire", event.Committed, 3, false, (*Daemon).expire},
	{"callback", event.Committed, 3, false, (*Daemon).callback},
	{"purge", event.Expired, 3, false, (*Daemon).purge},
}

const (
	followWait  = time.Minute // that the bus waits for a sign of life
	followPause = time.Minute // before another try
)

// follow starts what follows backups.
func (d *Daemon) follow(ctx context.Context, all *sync.WaitGroup) {
	for _, f := range followUps {
		all.Go(func() {
			for ctx.Err() == nil {
				on, changed := d.switchedOn(f.name)
				if !on {
					select {
					case <-ctx.Done():
					case <-changed:
					}
					continue
				}
				d.consume(ctx, f)
			}
		})
	}
}

// switchedOn says whether the configuration has a follow-up, and gives what is closed when it may have changed.
func (d *Daemon) switchedOn(name string) (on bool, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.config.Global.FollowUps, name), d.changed
}

// consume has the events come, until the follow-up is switched off, ctx ends, or the bus fails.
func (d *Daemon) consume(ctx context.Context, f followUp) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		for on, changed := d.switchedOn(f.name); on; on, changed = d.switchedOn(f.name) {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
		cancel()
	})
	c := bus.Consumer{Name: "backy-" + f.name, Kinds: []event.Kind{f.kind}, Wait: followWait, Tries: f.tries, Backoff: []time.Duration{followPause, 10 * followPause}}
	if f.slow {
		c.Workers = d.Config().Global.WorkerLimit
	}
	err := d.currentBus().Consume(ctx, c, func(ctx context.Context, e bus.Delivery) error {
		done := make(chan struct{})
		var keeping sync.WaitGroup
		keeping.Go(func() {
			tick := time.NewTicker(followWait / 4)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
					e.Working()
				}
			}
		})
		defer keeping.Wait()
		defer close(done)
		return f.do(d, ctx, e)
	})
	if err != nil && ctx.Err() == nil {
		d.Log.DebugContext(ctx, "no events can be had", "for", f.name, "error", err)
		wait(ctx, time.Second)
	}
}

// configured is a job of the configuration; nil where it is none.
func (d *Daemon) configured(name string) *config.ScheduledJob {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j := d.jobs[name]; j != nil {
		return j.config
	}
	return nil
}

func (d *Daemon) dir(job string) string {
	return filepath.Join(d.repo.Base, filepath.FromSlash(job))
}

// verify compares a sample of a new revision with its source, if that was looked at before or has a snapshot, and verifies the
// job's newest distrusted revision, once. Then the snapshots of the source can go that nobody needs any more.
func (d *Daemon) verify(ctx context.Context, e bus.Delivery) error {
	job := d.configured(e.Event.Job)
	if job == nil {
		return nil
	}
	d.mu.Lock()
	since := d.looks[e.Event.Revision]
	delete(d.looks, e.Event.Revision)
	superseded := d.superseded(job.Name, e.Event.Revision)
	d.mu.Unlock()
	source, err := job.Source.Address()
	snapshots := err == nil && job.Pipeline == "" && pipeline.Snapshots(source) // of a job's own pipeline nobody knows
	if args := pipeline.Spot(source, since, e.Event.Revision, job.Spot); err == nil && args != nil && (since != "" || snapshots && !superseded) {
		err = d.command(ctx, tool{name: "backy-scrub", args: append(args, "-b", d.dir(job.Name)), job: job.Name, event: e.ID})
		if err != nil && ctx.Err() != nil {
			if since != "" {
				d.mu.Lock()
				d.looks[e.Event.Revision] = since
				d.mu.Unlock()
			}
			return err
		} // else it has said why it came to no verdict, or what is damaged
	}
	err = d.command(ctx, tool{name: "backy-scrub", args: []string{"verify", "--pending", "-b", d.dir(job.Name)}, job: job.Name, event: e.ID})
	if snapshots && ctx.Err() == nil {
		err = d.sweep(ctx, job.Name, source, e.ID)
	}
	return quiet(ctx, err)
}

// sweep removes the snapshots of a job's source that it has no more need for. event is the id of the one that it follows from.
func (d *Daemon) sweep(ctx context.Context, job, source, event string) error {
	return d.command(ctx, tool{name: "backy-read", args: pipeline.Sweep(source, d.dir(job)), job: job, event: event})
}

// superseded says of a revision that there is a newer one, so that its snapshot may be gone. d.mu is held.
func (d *Daemon) superseded(name, id string) bool {
	j := d.jobs[name]
	if j == nil {
		return false
	}
	at := slices.IndexFunc(j.revisions, func(r revision) bool { return r.ID == id })
	return at >= 0 && at < len(j.revisions)-1
}

// quiet passes on only that all is to end: whatever else went wrong is in the log and would do so again.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return nil
}

// expire forgets what the job's schedule has no use for.
func (d *Daemon) expire(ctx context.Context, e bus.Delivery) error {
	job := d.configured(e.Event.Job)
	if job == nil {
		return nil
	}
	return d.command(ctx, tool{name: "backy-expire", args: []string{"-b", d.dir(job.Name)}, job: job.Name, event: e.ID})
}

// callback runs the command that the configuration names, with the status of the job on its standard input. Its exit code
// is told, and nothing follows from it.
func (d *Daemon) callback(ctx context.Context, e bus.Delivery) error {
	job := d.configured(e.Event.Job)
	g := d.Config().Global
	if job == nil || g.Callback == "" {
		return nil
	}
	fd, err := unix.MemfdCreate("status", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	status := os.NewFile(uintptr(fd), "status")
	defer status.Close()
	err = d.command(ctx, tool{name: "backy-store", args: []string{"status", "--yaml", "-b", d.dir(job.Name)}, job: job.Name, stdout: status})
	if err == nil {
		_, err = status.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, g.CallbackTimeout, fmt.Errorf("it took longer than %s, and was ended", schedule.FormatDuration(g.CallbackTimeout)))
	defer cancel()
	callback := strings.TrimSpace(g.Callback) // a block of YAML ends in a newline: behind that the job's name would be a command
	err = d.command(limited, tool{
		name: "backup-completed-callback", path: "/bin/sh", args: []string{"-c", callback + ` "$@"`, "backup-completed-callback", job.Name},
		job: job.Name, event: e.ID, stdin: status,
		env: []string{"BACKY_JOB=" + job.Name, "BACKY_REVISION=" + e.Event.Revision, "BACKY_BACKUPDIR=" + d.dir(job.Name), "BACKY_BASEDIR=" + d.repo.Base},
	})
	if ctx.Err() == nil && err == nil {
		d.Log.InfoContext(ctx, "backup-completed-callback has ended with exit code 0", "job", job.Name)
	}
	return quiet(ctx, err)
}

// purge frees space, in turn and not after each job: not before the interval is over since the last time.
func (d *Daemon) purge(ctx context.Context, e bus.Delivery) error {
	for {
		every := d.Config().Global.PurgeEvery
		last, err := d.lastPurge(ctx)
		if err != nil {
			return err
		}
		now := d.Now()
		if every == 0 || !last.IsZero() && e.Event.Time.Before(last) {
			return nil // nobody wants it, or a purge has begun since
		}
		left := clamp(last, now).Add(every).Sub(now)
		if last.IsZero() || left <= 0 {
			break
		}
		if !wait(ctx, min(left, planEvery)) { // by elapsed time: the clock may jump
			return context.Cause(ctx)
		}
	}
	d.mu.Lock()
	d.purgedAt = d.Now()
	d.mu.Unlock()
	return quiet(ctx, d.command(ctx, tool{name: "backy-store", args: []string{"purge", "-b", d.repo.Base}, event: e.ID}))
}

// lastPurge is when the last purge began; zero where nobody knows of one.
func (d *Daemon) lastPurge(ctx context.Context) (time.Time, error) {
	e, ok, err := d.currentBus().Last(ctx, event.Purged, "")
	if err != nil {
		return time.Time{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if began := e.Time.Add(-time.Duration(e.Duration * float64(time.Second))); ok && began.After(d.purgedAt) {
		return began, nil
	}
	return d.purgedAt, nil
}

// tool is a command that the daemon runs for itself.
type tool struct {
	name   string
	path   string // "" for one of ours, which is looked for
	args   []string
	job    string // that it is about, or ""
	event  string // the id of the one that it follows from
	env    []string
	stdin  *os.File
	stdout *os.File // nil: what it says is thrown away
}

// command runs a tool to its end. What it says goes to the log, and its events, if it is one of ours, to the bus. Its error
// has been told.
func (d *Daemon) command(ctx context.Context, t tool) error {
	o := pipeline.Options{Stdin: t.stdin, Stderr: &logLines{d.Log, t.job}, Grace: grace, Env: append(t.env, "BACKY_EVENT_ID="+t.event), Dir: d.repo.Base}
	if t.stdout != nil {
		o.Stdout = t.stdout
	}
	args := t.args
	if t.path == "" {
		var err error
		if t.path, err = pipeline.Find(t.name); err != nil {
			d.warn(ctx, t.job, err.Error())
			return err
		}
		if t.event != "" {
			args = append(append(args, "--taskid", task(t.event)), pipeline.Events()...)
			o.Events = func(e event.Event) { d.pass(t, e) }
		}
	}
	err := pipeline.Run(ctx, []pipeline.Stage{{Name: t.name, Path: t.path, Args: args}}, o)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) { // else all is to end
		d.warn(ctx, t.job, t.name+": "+err.Error())
	}
	return err
}

// pass passes on an event of a tool. That it failed is no failure of the job's backup.
func (d *Daemon) pass(t tool, e event.Event) {
	switch e.Kind {
	case event.Progress, event.Warning: // the latter is in the log
		return
	case event.Failed:
		e.Kind, e.ID = event.Warning, ""
	}
	if e.Job == "" {
		e.Job = t.job
	}
	d.tell(e)
}

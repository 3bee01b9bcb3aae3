package sched

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/repo"
	"backy/pkg/schedule"
)

// watch looks after a backup that another process makes: one whose scheduler was killed, or one that somebody began by
// hand. The job counts as running; at its time limit the session is ended. It returns whether there is news.
func (d *Daemon) watch(ctx context.Context, rj *repo.Job) (news bool) {
	holder, err := rj.Writer()
	if err != nil {
		d.Log.WarnContext(ctx, "nobody knows whether the job is being backed up", "job", rj.Name, "error", err)
		return false
	}
	d.mu.Lock()
	j := d.jobs[rj.Name]
	if j == nil || j.run != nil && j.run.holder == nil {
		d.mu.Unlock()
		return false
	}
	r := j.run
	switch {
	case holder == nil && r == nil:
		d.mu.Unlock()
		return false
	case holder == nil:
		d.mu.Unlock()
		d.over(ctx, rj.Name, r)
		return true
	case r == nil:
		r = &run{lane: schedule.Lane(j.revisions), since: d.Now(), holder: holder, queued: j.queued != ""}
		j.run = r
		d.mu.Unlock()
		since := d.Now()
		if s, err := d.repo.WriterSession(*holder); err == nil {
			since = clamp(s.Since, since)
		}
		d.mu.Lock()
		r.since = since
		d.mu.Unlock()
		d.Log.InfoContext(ctx, "the job is being backed up by "+holder.String()+", and is left alone", "job", rj.Name, "since", since.Local().Format(time.DateTime))
		return true
	}
	limit := d.config.Global.JobTimeout
	if j.config != nil {
		limit = j.config.Timeout
	}
	r.holder = holder
	late := d.Now().Sub(r.since) > limit && !r.ending
	r.ending = r.ending || late
	d.mu.Unlock()
	if late {
		d.warn(ctx, rj.Name, fmt.Sprintf("the backup by %s takes longer than %s, and is ended", holder, schedule.FormatDuration(limit)))
		if err := d.cut(ctx, rj, *holder); err != nil {
			d.warn(ctx, rj.Name, "the backup cannot be ended: "+err.Error())
			d.mu.Lock()
			r.ending, r.since = false, d.Now() // not each second
			d.mu.Unlock()
			return true
		}
		d.over(ctx, rj.Name, r)
	}
	return late
}

// over notes that the backup of another process has ended: with a revision, or without.
func (d *Daemon) over(ctx context.Context, name string, r *run) {
	d.read(ctx, name)
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.jobs[name]
	if j == nil || j.run != r {
		return
	}
	j.run = nil
	made := false
	for _, rev := range j.revisions {
		made = made || rev.Known && rev.Good && !rev.Time.Before(r.since.Add(-settled)) && !rev.Time.After(d.Now().Add(schedule.Ahead))
	}
	message := "the backup of " + r.holder.String() + " has ended"
	switch {
	case made:
		j.succeeded()
		d.Log.InfoContext(ctx, message+", and made a revision", "job", name)
	case r.queued || r.ending:
		if r.ending {
			message = "it took too long, and was ended"
		} else {
			message += " without a revision"
		}
		e := j.fail(d.Now(), "sched", message)
		d.tell(e)
		d.Log.ErrorContext(ctx, "backup failed: "+message, "job", name, "attempt", e.Attempt)
	default:
		d.Log.InfoContext(ctx, message+" without a revision", "job", name)
	}
}

// cut ends the backup of another process: here by signals to its process group; from elsewhere, or where that does not
// help, by taking its session away, so that it cannot commit.
func (d *Daemon) cut(ctx context.Context, rj *repo.Job, h repo.Holder) error {
	if h.PID > 1 && h.Host == d.host {
		for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			if err := killGroup(h.PID, s); err != nil {
				d.Log.WarnContext(ctx, "a signal to a backup", "job", rj.Name, "pid", h.PID, "signal", s, "error", err)
			}
			for patience := grace; patience > 0; patience -= watchStep {
				if now, err := rj.Writer(); err == nil && (now == nil || now.PID != h.PID) {
					return nil
				}
				if !wait(ctx, watchStep) {
					return context.Cause(ctx)
				}
			}
		}
	}
	s, err := d.repo.WriterSession(h)
	if err != nil {
		return err
	}
	return d.command(ctx, tool{name: "backy-store", args: []string{"purge", "-b", d.repo.Base, "--end", s.ID}})
}

const watchStep = 100 * time.Millisecond

// killGroup sends a signal to the process group of a process, or to it alone where that group is ours.
func killGroup(pid int, s unix.Signal) error {
	group, err := unix.Getpgid(pid)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	if group == unix.Getpgrp() {
		return unix.Kill(pid, s)
	}
	return unix.Kill(-group, s)
}

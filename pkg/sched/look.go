package sched

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

const (
	lookEvery  = 30 * time.Second // at the directories
	watchEvery = time.Second      // at jobs that another process backs up
	walkEvery  = time.Hour        // through all of the base directory, for those that are no jobs

	// settled is how long a directory has to be unchanged until its time of change is proof that nothing was missed.
	settled = 2 * time.Second

	readers = 4 // directories that are read at a time
)

// stamp is what changes with what a directory has in it.
type stamp struct {
	inode        uint64
	mtime, ctime int64 // nanoseconds
}

// look at a directory; the zero stamp where there is none.
func look(dir string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return stamp{}, nil
		}
		return stamp{}, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return stamp{st.Ino, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// looking notices, until ctx ends, what others do in the repository: revisions that they make and remove, backups that are
// under way, directories.
func (d *Daemon) looking(ctx context.Context) {
	walked := d.Now()
	base, _ := look(d.repo.Base)
	step := min(d.Every, watchEvery)
	for passed := step; wait(ctx, step); passed += step {
		if d.lookAtAll(ctx, passed < d.Every) {
			d.nudge()
		}
		if passed < d.Every {
			continue
		}
		passed = 0
		now, _ := look(d.repo.Base)
		if since := d.Now().Sub(walked); now != base || since > walkEvery || since < 0 {
			base, walked = now, d.Now()
			d.walk(ctx)
		}
		d.survey(ctx)
		d.supervise(ctx)
	}
}

// lookAtAll looks at all jobs, or only at those that another process backs up; it returns whether there is news.
func (d *Daemon) lookAtAll(ctx context.Context, watched bool) (news bool) {
	for _, name := range d.names(watched) {
		if ctx.Err() != nil {
			return false
		}
		news = d.lookAt(ctx, name) || news
	}
	return news
}

// names are those of all jobs, or only of those that another process backs up, in order.
func (d *Daemon) names(watched bool) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name, j := range d.jobs {
		if !watched || j.run != nil && j.run.holder != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// lookAt looks whether a job's directory has changed, and whether someone else backs it up; it returns whether there is
// news.
func (d *Daemon) lookAt(ctx context.Context, name string) (news bool) {
	rj, err := d.repo.Job(name)
	if err != nil {
		return false
	}
	d.mu.Lock()
	j := d.jobs[name]
	if j == nil || j.run != nil && j.run.holder == nil { // at its end it is read
		d.mu.Unlock()
		return false
	}
	seen, run := j.seen, j.run
	d.mu.Unlock()
	now, err := look(rj.Dir())
	if err == nil && now != seen || err == nil && now == (stamp{}) && seen != now {
		news = d.read(ctx, name)
	}
	if run != nil || rj.MaybeWriter() {
		return d.watch(ctx, rj) || news
	}
	return news
}

// readAll reads the directories of all jobs.
func (d *Daemon) readAll(ctx context.Context) {
	d.readSome(ctx, d.names(false))
	d.walk(ctx)
	d.survey(ctx)
}

// readSome writes the configuration of jobs, and reads their directories.
func (d *Daemon) readSome(ctx context.Context, names []string) {
	next := make(chan string)
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for name := range next {
				d.writeConfig(ctx, name)
				d.read(ctx, name)
				if rj, err := d.repo.Job(name); err == nil && rj.MaybeWriter() {
					d.watch(ctx, rj)
				}
			}
		})
	}
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		next <- name
	}
	close(next)
	all.Wait()
}

// writeConfig puts a job's configuration into its directory.
func (d *Daemon) writeConfig(ctx context.Context, name string) {
	d.mu.Lock()
	j, c := d.jobs[name], d.config
	var jc *config.ScheduledJob
	if j != nil {
		jc = j.config
	}
	d.mu.Unlock()
	if jc == nil {
		return
	}
	_, err := c.WriteJob(*jc, d.Now())
	switch {
	case errors.Is(err, config.ErrNotOurs):
		d.Log.InfoContext(ctx, "the job's config was written by someone else and stays as it is; commands that are called in its directory go by that", "job", name)
	case err != nil:
		d.warn(ctx, name, "the job's config cannot be written: "+err.Error())
	}
	since := c.Since(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if j := d.jobs[name]; j != nil {
		j.since = since
	}
}

// warn says something in the log and as an event.
func (d *Daemon) warn(ctx context.Context, job, message string) {
	d.Log.WarnContext(ctx, message, "job", job)
	d.tell(event.Event{Kind: event.Warning, Job: job, Message: message})
}

// read reads the revisions of a job, and tells of those that are new. It returns whether something has changed.
func (d *Daemon) read(ctx context.Context, name string) bool {
	rj, err := d.repo.Job(name)
	if err != nil {
		return false
	}
	now, err := look(rj.Dir())
	var list []repo.Revision
	if err == nil {
		list, _, err = rj.List()
	}
	if err != nil {
		d.warn(ctx, name, "the job's directory cannot be read: "+err.Error())
		return false
	}
	if age := d.Now().UnixNano() - now.mtime; age > -int64(settled) && age < int64(settled) {
		now.inode = 0 // something more may happen within one tick of the file system's clock
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.jobs[name]
	if j == nil {
		return false
	}
	j.history, j.changed = d.remember(list, now), true
	if j.told.IsZero() {
		j.told = j.heardOf(list, d.Now())
	}
	for _, r := range list {
		if r.Time.After(j.told) {
			d.tell(committed(r))
			j.told = r.Time
		}
	}
	return true
}

// committed is the event of a revision that is there.
func committed(r repo.Revision) event.Event {
	return event.Event{ID: r.ID, Kind: event.Committed, Time: r.Time.Add(r.Duration), Job: r.Job, Revision: r.ID, Stage: "store", Host: r.Host,
		Total: r.Size, Read: r.ReadBytes, Changed: r.Changed, Stored: r.Stored, Tags: r.State.Tags, Duration: r.Duration.Seconds()}
}

// remember keeps of revisions what is needed, in little memory.
func (d *Daemon) remember(list []repo.Revision, seen stamp) history {
	h := history{seen: seen, revisions: repo.Scheduled(list)}
	for i, r := range list {
		s := &h.revisions[i]
		s.ID, s.Read, s.Tags = strings.Clone(s.ID), d.one(s.Read), d.oneOf(s.Tags)
		if r.StateErr == nil && r.State.Trust == repo.Distrusted {
			h.distrusted++
		}
		for _, tag := range s.Tags {
			if schedule.IsManual(tag) && !slices.Contains(h.manual, tag) {
				h.manual = append(h.manual, tag)
			}
		}
	}
	if n := len(list); n > 0 {
		r := list[n-1]
		h.last = figures{r.Duration, r.ReadBytes, r.Changed, r.Stored}
	}
	return h
}

// maxTexts bounds what is kept once for all.
const maxTexts = 10000

// one is the text as it is kept for all revisions that have it.
func (d *Daemon) one(text string) string {
	if known, ok := d.texts[text]; ok {
		return known
	}
	if len(d.texts) >= maxTexts {
		clear(d.texts)
	}
	text = strings.Clone(text)
	d.texts[text] = text
	return text
}

// oneOf is that for lists.
func (d *Daemon) oneOf(list []string) []string {
	key := strings.Join(list, ",")
	if known, ok := d.sets[key]; ok {
		return known
	}
	if len(d.sets) >= maxTexts {
		clear(d.sets)
	}
	all := make([]string, len(list))
	for i, text := range list {
		all[i] = d.one(text)
	}
	d.sets[strings.Clone(key)] = all
	return all
}

// walk finds directories with revisions that are no jobs, and forgets those that are gone.
func (d *Daemon) walk(ctx context.Context) {
	dead := map[string]bool{}
	unseen := false // what was not seen may be there all the same
	for rj, err := range d.repo.Jobs(ctx) {
		if err != nil {
			d.Log.WarnContext(ctx, "look for jobs", "error", err)
			unseen = unseen || !errors.As(err, new(*repo.StrayError))
			continue
		}
		dead[rj.Name] = true
	}
	if ctx.Err() != nil {
		return
	}
	var fresh []string
	d.mu.Lock()
	for name, j := range d.jobs {
		if j.config == nil && !dead[name] && j.run == nil && !unseen {
			delete(d.jobs, name)
		}
	}
	for name := range dead {
		if d.jobs[name] == nil {
			d.jobs[name] = &job{name: name}
			fresh = append(fresh, name)
		}
	}
	d.mu.Unlock()
	d.readSome(ctx, fresh)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range fresh { // a config alone is no backup
		if j := d.jobs[name]; j != nil && j.config == nil && len(j.revisions) == 0 {
			delete(d.jobs, name)
		}
	}
}

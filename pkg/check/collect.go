package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"backy/pkg/config"
	"backy/pkg/parallel"
	"backy/pkg/repo"
	"backy/pkg/schedule"
	"backy/pkg/scrub"
)

// Options say what is looked at.
type Options struct {
	Repo   *repo.Repo
	Config *config.Daemon // the jobs that there have to be; nil for those that have a config in their directory
	Only   []string       // patterns, as of path.Match, of the jobs that are looked at; none is all
	Dead   bool           // look for directories with revisions that are no jobs, too; they are merely told
	Now    time.Time
}

// wanted is a job that is to be looked at.
type wanted struct {
	name     string
	schedule schedule.Schedule
	since    func() time.Time // when it came to be; called only if it was never backed up
	findings []Finding

	job    Job
	broken int
}

// Collect finds out what is known. Its error is of what leaves nothing to be judged; what can be read in part is told as
// findings.
func Collect(ctx context.Context, o Options) (Facts, error) {
	var f Facts
	list, err := o.wanted(ctx, &f)
	if err != nil {
		return f, err
	}
	if list, err = o.selected(list); err != nil {
		return f, err
	}
	err = parallel.Ordered(ctx, readers, 2*readers, func(_ context.Context, yield func(*wanted) bool) error {
		for _, w := range list {
			if !yield(w) {
				break
			}
		}
		return nil
	}, func(_ context.Context, w *wanted) error {
		w.look(o.Repo, o.Now)
		return nil
	}, func(w *wanted) error {
		f.Jobs = append(f.Jobs, w.job)
		f.Findings = append(f.Findings, w.findings...)
		f.Broken += w.broken
		return nil
	})
	if err != nil {
		return f, err
	}
	o.damage(&f)
	return f, nil
}

// readers is how many directories are read at a time: more than there are processors, for some wait for a disk.
var readers = 2 * runtime.NumCPU()

// wanted lists the jobs by name.
func (o Options) wanted(ctx context.Context, f *Facts) ([]*wanted, error) {
	var list []*wanted
	if c := o.Config; c != nil {
		for _, j := range c.Jobs {
			list = append(list, &wanted{name: j.Name, schedule: j.Schedule, since: func() time.Time { return c.Since(j.Name) }})
		}
		if o.Dead || len(o.Only) == 0 {
			o.dead(ctx, f)
		}
		return list, nil
	}
	scheduled := false
	for j, err := range o.Repo.Jobs(ctx) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if o.stray(err, f) {
			continue
		}
		if err != nil {
			f.Findings = append(f.Findings, Finding{Unknown, "", err.Error()})
			continue
		}
		w := &wanted{name: j.Name}
		w.configure(j.Dir())
		scheduled = scheduled || w.schedule != nil || len(w.findings) > 0
		list = append(list, w)
	}
	if !scheduled && len(f.Findings) == 0 {
		return nil, fmt.Errorf("no job in %s has a schedule in its config, so there is nothing to judge by; write one, or name the scheduler's configuration with -c", o.Repo.Base)
	}
	return list, nil
}

// configure takes the schedule from the configuration in the job's directory.
func (w *wanted) configure(dir string) {
	file := filepath.Join(dir, config.JobFile)
	known, err := config.ReadJob(dir)
	if err == nil {
		w.schedule, err = known.Rules()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		w.blind("its schedule is not known: %v", err)
		return
	}
	w.since = func() time.Time {
		if !known.Since.IsZero() {
			return known.Since
		}
		if info, err := os.Stat(file); err == nil {
			return info.ModTime()
		}
		return time.Time{}
	}
}

// selected are the jobs that are asked for. One that is asked for and is not there is an error.
func (o Options) selected(list []*wanted) ([]*wanted, error) {
	for _, pattern := range o.Only {
		if !slices.ContainsFunc(list, func(w *wanted) bool { return matches(pattern, w.name) }) {
			return nil, fmt.Errorf("there is no job %s", pattern)
		}
	}
	return slices.DeleteFunc(list, func(w *wanted) bool { return !o.asked(w.name) }), nil
}

func (o Options) asked(job string) bool {
	return len(o.Only) == 0 || slices.ContainsFunc(o.Only, func(pattern string) bool { return matches(pattern, job) })
}

func matches(pattern, job string) bool {
	ok, err := path.Match(pattern, job)
	return ok && err == nil || pattern == job
}

// stray reports whether an error is of revisions where no job can be, which is a warning to who asks about all jobs.
func (o Options) stray(err error, f *Facts) bool {
	if !errors.As(err, new(*repo.StrayError)) {
		return false
	}
	if len(o.Only) == 0 {
		f.Findings = append(f.Findings, Finding{Warning, "", err.Error()})
	}
	return true
}

// dead tells of directories that have revisions and are no jobs, where that is asked for; and of those that can be none.
func (o Options) dead(ctx context.Context, f *Facts) {
	known := map[string]bool{}
	for _, j := range o.Config.Jobs {
		known[j.Name] = true
	}
	for j, err := range o.Repo.Jobs(ctx) {
		switch {
		case o.stray(err, f) || !o.Dead:
		case err != nil:
			f.Findings = append(f.Findings, Finding{OK, "", err.Error()})
		case !known[j.Name] && o.asked(j.Name) && hasRevisions(j.Dir()):
			f.Findings = append(f.Findings, Finding{OK, j.Name, "dead: it has revisions, and is no job of the configuration"})
		}
	}
}

func hasRevisions(dir string) bool {
	entries, _ := os.ReadDir(dir) // which was just read
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), ".rev") })
}

// look reads the job's revisions.
func (w *wanted) look(r *repo.Repo, now time.Time) {
	w.job.Name = w.name
	j, err := r.Job(w.name)
	var list []repo.Revision
	var broken []repo.Broken
	if err == nil {
		list, broken, err = j.List()
	}
	if err != nil {
		w.blind("its directory cannot be read: %v", err)
	}
	w.broken = len(broken)
	for i, b := range broken {
		if hidden(b.Err) {
			w.blind("%s cannot be read: %v", filepath.Base(b.Path), b.Err)
			break // the others will be no better
		}
		if i == 0 {
			w.tell(Warning, "%s broken, the first: %v", count(len(broken), ".rev file"), b.Err)
		}
	}
	w.job.Revisions = len(list)
	unknown := 0
	for _, rev := range list {
		switch {
		case rev.StateErr != nil:
			if unknown++; unknown > 1 {
			} else if hidden(rev.StateErr) {
				w.blind("%v", rev.StateErr)
			} else {
				w.tell(Warning, "%v", rev.StateErr)
			}
		case rev.State.Trust == repo.Distrusted:
			w.job.Distrusted++
		}
		for _, tag := range rev.State.Tags {
			if schedule.IsManual(tag) && !slices.Contains(w.job.Manual, tag) {
				w.job.Manual = append(w.job.Manual, tag)
			}
		}
	}
	if n := len(list); n > 0 && list[n-1].Time.After(now.Add(schedule.Ahead)) {
		w.tell(Warning, "its newest revision, %s, is %s ahead of the clock, so its age is not known", list[n-1].ID, span(list[n-1].Time.Sub(now)))
	}
	w.serve(repo.Scheduled(list), now)
}

// serve finds out how old the newest good revision is.
func (w *wanted) serve(list []schedule.Revision, now time.Time) {
	service := w.schedule.Serve(list, time.Time{}, now)
	if service.Newest == nil && w.since != nil {
		since := w.since()
		service = w.schedule.Serve(list, since, now)
		switch {
		case since.IsZero():
			w.tell(Unknown, "there has been no good backup, and it is not known since when it exists")
		case since.After(now.Add(schedule.Ahead)):
			w.tell(Warning, "there has been no good backup, and it exists since %s, which is ahead of the clock", since.UTC().Format(time.RFC3339))
		}
	}
	w.job.Age, w.job.Never = service.Age, service.Newest == nil
	if w.schedule != nil {
		w.job.Limit = service.Limit
	}
}

func (w *wanted) tell(l Level, format string, args ...any) {
	w.findings = append(w.findings, Finding{l, w.name, fmt.Sprintf(format, args...)})
}

// blind tells of what cannot be read, so that there may be more than is seen.
func (w *wanted) blind(format string, args ...any) {
	w.job.Blind = true
	w.tell(Unknown, format, args...)
}

// hidden reports whether an error says nothing about a file: it may be good, for who may and can read it. One whose sectors
// are bad is not.
func hidden(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.EIO && errno != syscall.ENOENT
}

// damage finds out what is known to be bad.
func (o Options) damage(f *Facts) {
	ids, err := o.Repo.Quarantines()
	if err != nil {
		f.Findings = append(f.Findings, Finding{Unknown, "", err.Error()})
	}
	for _, id := range ids {
		if len(o.Only) > 0 {
			jobs, err := scrub.About(o.Repo, id)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, repo.ErrNoReport) {
				continue // deleted since, or in the making
			}
			if err == nil && !slices.ContainsFunc(jobs, o.asked) {
				continue
			}
		}
		f.Reports++
	}
	if len(o.Only) > 0 {
		return // what is bad in the repository is told of with all of it
	}
	marks, err := o.Repo.Marks()
	if err != nil {
		f.Findings = append(f.Findings, Finding{Unknown, "", err.Error()})
	}
	bad := map[string]bool{}
	for key := range marks {
		bad[key.Name.String()] = true // of one that cannot be understood there are two
	}
	f.Bad = len(bad)
}

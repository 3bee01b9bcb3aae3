package sched

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"backy/pkg/config"
	"backy/pkg/schedule"
)

// Reload reads the configuration again and goes by it from then on; what runs goes on. Where it is wrong, the error says
// all that is (config.Mistakes), and the one before holds. Where a part of it cannot be had, such as a port that another
// program has, the rest holds, and the error says so.
func (d *Daemon) Reload() error {
	ctx := d.life
	d.reloading.Lock()
	defer d.reloading.Unlock()
	old := d.Config()
	c, err := config.ReadDaemon(old.Path)
	if err == nil && c.Global.BaseDir != old.Global.BaseDir {
		err = fmt.Errorf("%s: base-dir is %s now, and was %s: a scheduler stays with its repository; restart it", c.Path, c.Global.BaseDir, old.Global.BaseDir)
	}
	if err != nil {
		d.Log.ErrorContext(ctx, "the configuration is wrong, and the one before holds")
		for line := range strings.SplitSeq(err.Error(), "\n") {
			d.Log.ErrorContext(ctx, line)
		}
		return err
	}
	if c.NATS != old.NATS {
		d.Log.WarnContext(ctx, "what is below nats has changed; that holds from the next start on")
	}
	var missing error
	if d.Reloaded != nil {
		if err := d.Reloaded(c); err != nil {
			d.Log.WarnContext(ctx, "not all of the new configuration can be had", "error", err)
			missing = fmt.Errorf("the new configuration holds, but for this: %w", err)
		}
	}
	fresh, drop := d.adopt(c)
	for _, name := range drop {
		if err := d.currentBus().Drop(ctx, name); err != nil {
			d.Log.WarnContext(ctx, "the work of a job that is gone, or is another pool's now, stays in the queue", "job", name, "error", err)
		}
		d.taken(name)
	}
	d.readSome(ctx, fresh)
	d.walk(ctx)
	d.Log.InfoContext(ctx, "the configuration was read again", "file", c.Path, "jobs", len(c.Jobs))
	d.nudge()
	return missing
}

// Run has a job run as soon as there is a worker, whatever its schedule says. One that waits for a worker already, or
// runs, is left alone.
func (d *Daemon) Run(job string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.jobs[job]
	if j == nil || j.config == nil {
		return fmt.Errorf("%w: %s", ErrNoJob, job)
	}
	d.want(j)
	d.nudge()
	return nil
}

// RunAll does that with all jobs.
func (d *Daemon) RunAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.jobs {
		if j.config != nil {
			d.want(j)
		}
	}
	d.nudge()
}

func (d *Daemon) want(j *job) {
	if j.queued == "" && j.run == nil {
		j.wanted = d.Now()
	}
}

// Status tells of the jobs whose names match, those that are only a directory with revisions among them, by name.
func (d *Daemon) Status(filter *regexp.Regexp) []JobStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []JobStatus{}
	for name, j := range d.jobs {
		if filter == nil || filter.MatchString(name) {
			list = append(list, d.status(j))
		}
	}
	slices.SortFunc(list, func(a, b JobStatus) int { return strings.Compare(a.Job, b.Job) })
	return list
}

func (d *Daemon) status(j *job) JobStatus {
	now := d.Now()
	s := JobStatus{Job: j.name, SLA: SLAKept, Status: StatusDead, LastTags: []string{}, NextTags: []string{}, ManualTags: append([]string{}, j.manual...),
		ProblemReports: append([]string{}, d.reports[j.name]...), LocalRevs: len(j.revisions), Failures: j.failures, Distrusted: j.distrusted, Message: j.message}
	rules := schedule.Schedule(nil)
	if j.config != nil {
		rules = j.config.Schedule
	}
	v := rules.Serve(j.revisions, j.since, now)
	if v.Newest != nil {
		t := v.Newest.Time
		s.LastTime, s.LastTags, s.LastDuration = &t, slices.Clone(v.Newest.Tags), v.Newest.Duration.Seconds()
	}
	s.Age = v.Age.Seconds()
	if j.config == nil {
		return s
	}
	s.Limit = v.Limit.Seconds()
	if v.Late {
		s.SLA, s.SLAOverdue = SLABroken, s.Age
	}
	if !j.next.At.IsZero() {
		t := j.next.At
		s.NextTime, s.NextTags = &t, slices.Clone(j.next.Tags)
	}
	s.Status = j.word()
	return s
}

// word is the job's state in a few words.
func (j *job) word() string {
	switch {
	case j.run != nil && j.run.lane == schedule.Fast:
		return StatusRunningFast
	case j.run != nil:
		return StatusRunningSlow
	case j.queued == schedule.Fast:
		return StatusQueuedFast
	case j.queued != "":
		return StatusQueuedSlow
	case j.failures > 0:
		return StatusFailed
	case j.next.At.IsZero(): // not planned anew yet
		return StatusFinished
	}
	return StatusWaiting
}

// Queue tells how much work waits and runs, by pool and lane; of all pools of the configuration, with zeroes.
func (d *Daemon) Queue() []QueueLength {
	d.mu.Lock()
	defer d.mu.Unlock()
	type place struct{ pool, lane string }
	count := map[place]*QueueLength{}
	at := func(pool, lane string) *QueueLength {
		p := place{pool, lane}
		if count[p] == nil {
			count[p] = &QueueLength{Pool: pool, Lane: lane}
		}
		return count[p]
	}
	for _, j := range d.jobs {
		if j.config == nil {
			continue
		}
		for _, lane := range lanes {
			at(j.config.Pool, lane)
		}
		if j.run != nil {
			at(j.config.Pool, j.run.lane).Running++
		} else if j.queued != "" {
			at(j.config.Pool, j.queued).Waiting++
		}
	}
	list := []QueueLength{}
	for _, q := range count {
		list = append(list, *q)
	}
	slices.SortFunc(list, func(a, b QueueLength) int {
		if a.Pool != b.Pool {
			return strings.Compare(a.Pool, b.Pool)
		}
		return strings.Compare(a.Lane, b.Lane)
	})
	return list
}

// Figures are those of all configured jobs, by name.
func (d *Daemon) Figures() []Figures {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []Figures{}
	for name, j := range d.jobs {
		if j.config == nil {
			continue
		}
		list = append(list, Figures{Job: name, Revision: len(j.revisions) > 0, Duration: j.last.duration, Read: j.last.read, Changed: j.last.changed,
			Stored: j.last.stored, Failures: j.total})
	}
	slices.SortFunc(list, func(a, b Figures) int { return strings.Compare(a.Job, b.Job) })
	return list
}

// Verified is when that part of the repository was last read back whose last time is longest ago; zero where a part never
// was.
func (d *Daemon) Verified() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.verified
}

// logLines passes lines on to a log.
type logLines struct {
	log *slog.Logger
	job string
}

func (l *logLines) Write(p []byte) (int, error) {
	for line := range strings.SplitSeq(strings.TrimRight(string(p), "\n"), "\n") {
		sayOf(l.log, l.job, line)
	}
	return len(p), nil
}

// sayOf logs a line of a command, with the job that it is about, unless it says that itself.
func sayOf(log *slog.Logger, job, line string) {
	if job == "" || strings.Contains(line, "job="+job) {
		log.Info(line)
		return
	}
	log.Info(line, "job", job)
}

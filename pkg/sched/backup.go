package sched

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"backy/pkg/bus"
	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/pipeline"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

type revision = schedule.Revision

// backup is one run of a job's pipeline.
type backup struct {
	*Daemon
	name   string
	config config.ScheduledJob
	work   bus.Work
	tags   []string
	begun  time.Time
	before map[string]bool // ids of the revisions that are there

	since  string               // what the source looks like before
	passed map[string]time.Time // when progress of a stage was last passed on
	failed *event.Event         // of the stage that failed by itself
}

const (
	grace         = 5 * time.Second // that stages have to end when they are told to
	progressEvery = 5 * time.Second // of each stage
)

// make runs the pipeline; built in, or the one that the job's configuration names. Its processes go on if this one is
// killed, so what they say goes to a file. stage is the one that failed.
func (b *backup) make(ctx context.Context) (stage string, err error) {
	dir := filepath.Join(b.repo.Base, filepath.FromSlash(b.name))
	limited, cancel := context.WithTimeoutCause(ctx, b.config.Timeout, fmt.Errorf("it took longer than %s, and was ended", schedule.FormatDuration(b.config.Timeout)))
	defer cancel()
	said, err := b.open()
	if err != nil {
		return "sched", err
	}
	defer said.Close()
	b.passed = map[string]time.Time{}
	o := pipeline.Options{Stdout: said, Stderr: said, Grace: grace, Outlive: true, Events: b.heard, Dir: b.repo.Base}
	if b.config.Pipeline != "" {
		if o.Env, err = b.environment(dir); err == nil {
			o.Dir = dir
			err = pipeline.Run(limited, []pipeline.Stage{shell(b.config.Pipeline)}, o)
		}
	} else {
		o.Stdout = nil // one line of JSON, that an event tells, too
		err = b.builtIn(limited, dir, o)
	}
	last := b.log(said)
	var failure *pipeline.Failure
	if !errors.As(err, &failure) {
		return "sched", err
	}
	switch {
	case b.failed != nil && "backy-"+b.failed.Stage == failure.Stage:
		return b.failed.Stage, errors.New(b.failed.Message)
	case last != "":
		err = fmt.Errorf("%w: %s", err, last)
	}
	return strings.TrimPrefix(failure.Stage, "backy-"), err
}

// builtIn runs backy-read | backy-chunk | backy-store.
func (b *backup) builtIn(ctx context.Context, dir string, o pipeline.Options) error {
	p := &pipeline.Backup{Dir: dir, Base: "last", Shared: []string{"--taskid", task(b.work.ID)}, Again: func(stage string) {
		b.Log.InfoContext(ctx, "nothing is wrong, but "+stage+" asks to be run again; doing so, once", "job", b.name)
	}}
	if err := p.From(b.config.Source); err != nil {
		return err
	}
	b.since = pipeline.Look(p.Source)
	if b.work.Compare && pipeline.Snapshots(p.Source) && !b.config.Source.FullAlways { // else no map is used
		p.Read = append(p.Read, "--compare")
	}
	// The job's config may be someone else's and know other tags; those of the schedule are right.
	if len(b.tags) > 0 {
		p.Store = []string{"--tags=" + strings.Join(b.tags, ","), "--force"}
	}
	_, err := p.Run(ctx, o)
	if on, _ := b.switchedOn("verify"); err == nil && !on && pipeline.Snapshots(p.Source) { // else that does it, after its check
		_ = b.sweep(ctx, b.name, p.Source, b.work.ID) // it has said why
	}
	return err
}

// task is a short name for what belongs together in logs and events.
func task(id string) string { return id[:min(len(id), 8)] }

// shell runs a line of shell: bash with pipefail, if there is one, or else sh.
func shell(line string) pipeline.Stage {
	name := os.Getenv("BACKY_BASH")
	if name == "" {
		name = "bash"
	}
	if path, err := exec.LookPath(name); err == nil {
		return pipeline.Stage{Name: "pipeline", Path: path, Args: []string{"-o", "pipefail", "-c", line}}
	}
	return pipeline.Stage{Name: "pipeline", Path: "/bin/sh", Args: []string{"-c", "(set -o pipefail) 2> /dev/null && set -o pipefail\n" + line}}
}

// environment is what a pipeline of the shell is told.
func (b *backup) environment(dir string) ([]string, error) {
	rj, err := b.repo.Job(b.name)
	if err != nil {
		return nil, err
	}
	source, _ := b.config.Source.Address() // the pipeline may know better
	base, err := rj.Base("last")
	if err != nil && !errors.Is(err, repo.ErrNoRevision) {
		return nil, err
	}
	compare := ""
	if b.work.Compare {
		compare = "yes"
	}
	return []string{
		"BACKY_JOB=" + b.name, "BACKY_BACKUPDIR=" + dir, "BACKY_BASEDIR=" + b.repo.Base, "BACKY_SOURCE=" + source, "BACKY_TAGS=" + strings.Join(b.tags, ","),
		"BACKY_BASE=" + base.ID, "BACKY_COMPARE=" + compare, "BACKY_EVENT_ID=" + b.work.ID, "BACKY_EVENTS=" + pipeline.Events()[1],
	}, nil
}

// heard passes on what the stages tell: of progress only some. That a revision was made is told when it is seen.
func (b *backup) heard(e event.Event) {
	e.Job = b.name
	switch e.Kind {
	case event.Failed:
		b.failed = &e
		return
	case event.Committed:
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.since != "" && len(b.looks) < maxTexts {
			b.looks[e.Revision] = b.since
		}
		return
	case event.Progress:
		now := b.Now()
		if since := now.Sub(b.passed[e.Stage]); since >= 0 && since < progressEvery {
			return
		}
		b.passed[e.Stage] = now
	}
	b.tell(e)
}

// open makes the file that the stages of the job's last run say things to.
func (b *backup) open() (*os.File, error) {
	dir := filepath.Join(b.repo.Base, repo.Dot, "runs")
	err := os.Mkdir(dir, 0o750)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	path := filepath.Join(dir, strings.ReplaceAll(b.name, "/", ":")+".log")
	// A new file: who still writes to the last one's must not meet this one's.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
}

// maxSaid bounds what is passed on to the log of what a run said.
const maxSaid = 200

// log passes on what the stages said, and returns the last line.
func (b *backup) log(said *os.File) (last string) {
	if _, err := said.Seek(0, io.SeekStart); err != nil {
		return ""
	}
	lines := bufio.NewScanner(io.LimitReader(said, 1<<20))
	for n := 0; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		last = text
		if n < maxSaid {
			sayOf(b.Log, b.name, text)
		} else if n == maxSaid {
			b.Log.Info("and more, see "+said.Name(), "job", b.name)
		}
	}
	return last
}

package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/pkg/config"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

var now = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// world is a repository, and a configuration with jobs whose SLA is 36 hours, which was changed 9 days ago.
type world struct {
	*testing.T
	repo *repo.Repo
	conf *config.Daemon
}

func newWorld(t *testing.T, jobs ...string) *world {
	t.Helper()
	r, err := repo.Init(filepath.Join(t.TempDir(), "srv"), repo.DefaultBlock, repo.World{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, r, &config.Daemon{Changed: now.Add(-9 * day), Global: config.Global{BaseDir: r.Base}}}
	for _, name := range jobs {
		w.conf.Jobs = append(w.conf.Jobs, config.ScheduledJob{Name: name, Schedule: schedule.Schedule{"daily": {Interval: day, Keep: 9}}})
	}
	return w
}

// write writes a file below the base directory, and returns its path.
func (w *world) write(name, text string) string {
	w.Helper()
	path := filepath.Join(w.repo.Base, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		w.Fatal(err)
	}
	return path
}

// revision makes one of that age, with a trust (trusted, distrusted) and tags, and returns the path of its .rev.
func (w *world) revision(job string, age time.Duration, trust string, tags ...string) string {
	w.Helper()
	r := repo.Revision{ID: repo.NewID(), Time: now.Add(-age), Source: "file:/x", Host: "here", Size: repo.DefaultBlock, Block: repo.DefaultBlock, Read: repo.ReadFull,
		State: repo.State{Tags: append([]string{}, tags...), Trust: trust}}
	w.write(job+"/"+r.ID+".state", string(r.State.Bytes()))
	return w.write(job+"/"+r.ID+".rev", string(r.Bytes()))
}

// collect tells what is found, a line each.
func (w *world) collect(o Options) string {
	w.Helper()
	o.Repo, o.Now = w.repo, now
	f, err := Collect(w.Context(), o)
	if err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), w.repo.Base, "BASE")
	}
	var lines []string
	for _, j := range f.Jobs {
		line := fmt.Sprintf("%s %s of %s", j.Name, span(j.Age), span(j.Limit))
		for _, word := range []struct {
			is   bool
			text string
		}{{j.Never, " never"}, {j.Blind, " blind"}, {j.Distrusted > 0, fmt.Sprint(" distrusted=", j.Distrusted)}, {len(j.Manual) > 0, fmt.Sprint(" ", j.Manual)}} {
			if word.is {
				line += word.text
			}
		}
		lines = append(lines, line)
	}
	for _, f := range f.Findings {
		lines = append(lines, strings.ReplaceAll(f.String(), w.repo.Base, "BASE"))
	}
	if f.Broken+f.Reports+f.Bad > 0 {
		lines = append(lines, fmt.Sprintf("broken=%d reports=%d bad=%d", f.Broken, f.Reports, f.Bad))
	}
	return strings.Join(lines, "\n")
}

func (w *world) want(o Options, want string) {
	w.Helper()
	if got := w.collect(o); got != want {
		w.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The newest good revision counts; where there is none, how long the job exists.
func TestAges(t *testing.T) {
	w := newWorld(t, "distrusted", "future", "good", "just-ahead", "new", "never", "since", "web/a")
	w.revision("good", 6*hour, repo.Trusted, "daily", "manual:x")
	w.revision("good", 30*hour, repo.Verified, "manual:y", "manual:x")
	w.revision("web/a", 40*hour, repo.Trusted)
	w.revision("distrusted", time.Hour, repo.Distrusted)
	w.revision("distrusted", 48*hour, repo.Trusted)
	w.revision("future", 20*hour, repo.Trusted)
	ahead := filepath.Base(w.revision("future", -6*time.Minute, repo.Trusted))
	w.revision("just-ahead", -4*time.Minute, repo.Trusted)
	w.write("since/config", "source: {type: file, filename: /x}\nsince: 2026-11-20T10:00:00Z\n")
	w.write("new/config", "source: {type: file, filename: /x}\nsince: 2026-11-22T10:00:00Z\n")
	w.want(Options{Config: w.conf}, `distrusted 2d of 1d 12h distrusted=1
future 20h of 1d 12h
good 6h of 1d 12h [manual:y manual:x]
just-ahead 0s of 1d 12h
new 0s of 1d 12h never
never 9d of 1d 12h never
since 1d of 1d 12h never
web/a 1d 16h of 1d 12h
WARNING: future: its newest revision, `+strings.TrimSuffix(ahead, ".rev")+`, is 6m ahead of the clock, so its age is not known
WARNING: new: there has been no good backup, and it exists since 2026-11-22T10:00:00Z, which is ahead of the clock`)
	w.want(Options{Config: w.conf, Only: []string{"good", "web/*"}}, "good 6h of 1d 12h [manual:y manual:x]\nweb/a 1d 16h of 1d 12h")
	w.want(Options{Config: w.conf, Only: []string{"good", "bad"}}, "error: there is no job bad")
	w.want(Options{Config: w.conf, Only: []string{"web/["}}, "error: there is no job web/[")
}

// What cannot be read is told, and never counts as a success.
func TestBroken(t *testing.T) {
	w := newWorld(t, "cut", "file", "loop", "loop-state", "stateless")
	w.revision("cut", 20*hour, repo.Trusted)
	for range 2 {
		if err := os.Truncate(w.revision("cut", hour, repo.Trusted), 40); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.TrimSuffix(w.revision("stateless", hour, repo.Trusted), ".rev")
	if err := os.Remove(id + ".state"); err != nil {
		t.Fatal(err)
	}
	w.write("file", "no directory")
	loop := func(path string) {
		if err := errors.Join(os.Remove(path), os.Symlink(path, path)); err != nil {
			t.Fatal(err)
		}
	}
	loop(w.revision("loop", hour, repo.Trusted))
	loop(strings.TrimSuffix(w.revision("loop-state", hour, repo.Trusted), ".rev") + ".state")
	got := w.collect(Options{Config: w.conf})
	for _, want := range []string{
		"cut 20h of 1d 12h\n", "file 9d of 1d 12h never blind\n", "loop 9d of 1d 12h never blind\n", "loop-state 9d of 1d 12h never blind\n", "stateless 9d of 1d 12h never\n",
		"WARNING: cut: 2 .rev files broken, the first: BASE/cut/", "UNKNOWN: file: its directory cannot be read: list revisions: ", "too many levels of symbolic links",
		"UNKNOWN: loop-state: the state of ", "WARNING: stateless: the state of " + filepath.Base(id) + " cannot be read", "broken=3 reports=0 bad=0",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// A user who may not read a job does not know how it is.
func TestNoPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	w := newWorld(t, "vm1")
	path := w.revision("vm1", hour, repo.Trusted)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if got := w.collect(Options{Config: w.conf}); !strings.Contains(got, "never blind\nUNKNOWN: vm1: ") || !strings.Contains(got, "permission denied") {
		t.Error(got)
	}
	if err := os.Chmod(filepath.Dir(path), 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Dir(path), 0o700)
	if got := w.collect(Options{Config: w.conf}); !strings.Contains(got, "its directory cannot be read") {
		t.Error(got)
	}
}

// Directories that are no jobs are told of where that is asked for.
func TestDead(t *testing.T) {
	w := newWorld(t, "vm1")
	w.revision("vm1", hour, repo.Trusted)
	w.revision("old/vm2", 99*day, repo.Trusted)
	w.write("config-alone/config", "source: {type: file, filename: /x}\n")
	w.want(Options{Config: w.conf}, "vm1 1h of 1d 12h")
	w.want(Options{Config: w.conf, Dead: true}, "vm1 1h of 1d 12h\ninfo: old/vm2: dead: it has revisions, and is no job of the configuration")

	// Those that can be no jobs are told of in any case, but not to who asks about others.
	w.revision("vm1 old", 99*day, repo.Trusted)
	w.want(Options{Config: w.conf}, "vm1 1h of 1d 12h\nWARNING: "+(&repo.StrayError{Path: "BASE/vm1 old", Advice: "rename it, to letters, digits, _ and -, single dots inside, starting with a letter or digit"}).Error())
	w.want(Options{Config: w.conf, Only: []string{"vm1"}, Dead: true}, "vm1 1h of 1d 12h")
}

// Reports and bad objects are the repository's; of one job, only the reports about it.
func TestDamage(t *testing.T) {
	w := newWorld(t, "vm1", "vm2")
	w.revision("vm1", hour, repo.Trusted)
	w.revision("vm2", hour, repo.Trusted)
	for _, text := range []string{`{"revisions": [{"job": "vm1"}, {"job": "vm1"}]}`, `{"revisions": []}`} {
		if err := w.repo.NewQuarantine().Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.repo.Mark(object.Key{Kind: object.Page, Name: object.Name{1}}, "cut off"); err != nil {
		t.Fatal(err)
	}
	w.write(".backy/bad/"+object.Name{2}.String(), "not understood")
	const ages = "vm1 1h of 1d 12h\nvm2 1h of 1d 12h\n"
	w.want(Options{Config: w.conf}, ages+"broken=0 reports=2 bad=2")
	w.want(Options{Config: w.conf, Only: []string{"vm1"}}, "vm1 1h of 1d 12h\nbroken=0 reports=1 bad=0")
	w.want(Options{Config: w.conf, Only: []string{"vm2"}}, "vm2 1h of 1d 12h")
	if err := os.RemoveAll(filepath.Join(w.repo.Base, ".backy/quarantine")); err != nil {
		t.Fatal(err)
	}
	w.want(Options{Config: w.conf, Only: []string{"vm2"}}, "vm2 1h of 1d 12h\nUNKNOWN: list reports: open BASE/.backy/quarantine: no such file or directory")
}

// Without the scheduler's configuration, each job's own says what its schedule is.
func TestWithoutConfiguration(t *testing.T) {
	w := newWorld(t)
	w.want(Options{}, "error: no job in BASE has a schedule in its config, so there is nothing to judge by; write one, or name the scheduler's configuration with -c")
	const source, rules = "source: {type: file, filename: /x}\n", "schedule: {hourly: {interval: 1h, keep: 3}}\n"
	w.revision("free", 99*day, repo.Trusted)
	w.write("free/config", source)
	w.want(Options{}, "error: no job in BASE has a schedule in its config, so there is nothing to judge by; write one, or name the scheduler's configuration with -c")
	w.revision("good", hour, repo.Trusted)
	w.write("good/config", source+rules)
	w.write("named/config", source+"schedule: default\n")
	w.write("never/config", source+rules+"since: 2026-11-20T10:00:00Z\n")
	old := w.write("never-since/config", source+rules)
	if err := os.Chtimes(old, now, now.Add(-2*day)); err != nil {
		t.Fatal(err)
	}
	w.write("wrong/config", "shedule: {}\n")
	w.want(Options{}, `free 99d of 0s
good 1h of 1h 30m
named 0s of 0s never blind
never 1d of 1h 30m never
never-since 2d of 1h 30m never
wrong 0s of 0s never blind
UNKNOWN: named: its schedule is not known: BASE/named/config:2:11: schedule "default" is the name of one that is not in this file; write its tags here, as in {daily: {interval: 1d, keep: 9}}
UNKNOWN: wrong: its schedule is not known: BASE/wrong/config:1:1: unknown key "shedule"; there are: min-age, schedule, since, source, spot-check`)
	w.want(Options{Only: []string{"good"}}, "good 1h of 1h 30m")
}

func TestInterrupted(t *testing.T) {
	w := newWorld(t, "vm1")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("it takes too long")
	cancel(why)
	for _, o := range []Options{{Config: w.conf}, {}} {
		o.Repo, o.Now = w.repo, now
		if f, err := Collect(ctx, o); !errors.Is(err, why) || slices.ContainsFunc(f.Jobs, func(j Job) bool { return !j.Never }) {
			t.Errorf("%v, %v", f, err)
		}
	}
}

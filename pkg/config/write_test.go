package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"backy/pkg/durable"
	"backy/pkg/schedule"
)

var born = time.Date(2026, 11, 21, 10, 0, 0, 5e8, time.UTC)

func TestWriteJob(t *testing.T) {
	c := parsed(t, familiar)
	c.Global.BaseDir = t.TempDir()
	job := c.Jobs[0]
	path := filepath.Join(c.Global.BaseDir, "test01", JobFile)
	write := func(wanted bool, now time.Time) {
		t.Helper()
		changed, err := c.WriteJob(job, now)
		if err != nil || changed != wanted {
			t.Fatalf("changed %t, %v", changed, err)
		}
	}
	c.Changed = born.Add(-time.Hour)
	if got := c.Since(job.Name); !got.Equal(c.Changed) {
		t.Errorf("not written yet: %s", got)
	}
	write(true, born)
	want := `# Written by backy-sched from "/etc/backy.conf", and written again when that changes.
# To keep what you change here, remove these lines; then it is yours.
source:
  type: file
  filename: /vm/test01.img
schedule:
  daily: {interval: 1d, keep: 9}
  weekly: {interval: 1w, keep: 5}
  monthly: {interval: 4w, keep: 4}
since: 2026-11-21T10:00:00Z
spot-check: {share: 1%, time: 5m}
`
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%v, got\n%s", err, got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	before := inode(t, path)
	write(false, born.Add(time.Hour))
	if inode(t, path) != before {
		t.Error("it was written though nothing changed")
	}
	job.MinAge = 2 * schedule.Day
	write(true, born.Add(time.Hour))
	got, err := ReadJob(filepath.Dir(path))
	if err != nil || !got.Since.Equal(born.Truncate(time.Second)) || got.MinAge != job.MinAge {
		t.Errorf("the job is as old as it was: %+v, %v", got, err)
	}
	if since := c.Since(job.Name); !since.Equal(got.Since) {
		t.Error(since)
	}
	if err := os.WriteFile(path, []byte(mark+"\nsource: ["), 0o640); err != nil {
		t.Fatal(err)
	}
	write(true, born) // what nobody can read is of no use
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// Whatever can be configured, the low-level commands read it as it was meant.
func TestWrittenJobsAreRead(t *testing.T) {
	c := parsed(t, `global: {base-dir: /srv/backy}
schedules:
  odd: {"a:b": {interval: 90s, keep: 1}, "null": {interval: 36h, keep: 2}, "{": {interval: 2w, keep: 3}, "1": {interval: 60, keep: 4}, "#x": {interval: 1d, keep: 5}, "ü'\"\\": {interval: 1d, keep: 5}}
jobs:
  a: {schedule: odd, source: {type: file, filename: "/a b/ü: #\n\t'\"\\{"}, spot-check: {share: 0.001%, time: 0}}
  b: {schedule: odd, source: {type: ceph, pool: "123", namespace: "true", image: "-*&!|>%", full-always: true, freeze: "ssh vm1 'fsfreeze -f /' # {", thaw: "a\nb: \\\"\n", freeze-time: 90s}}
  c: {schedule: odd, source: {type: flyingcircus, pool: null-ish, image: ~x, vm: "no", consul_acl_token: "'"}, min-age: 49h}
  d: {schedule: odd, pipeline: "true"}
  e: {schedule: odd, source: {type: flyingcircus, pool: vms, image: vm, vm: vm, freeze: "true", thaw: "~"}}
  f: {schedule: odd, source: {type: rbd, pool: vms, image: vm, freeze-time: 1d}}
`)
	c.Global.BaseDir = t.TempDir()
	for _, j := range c.Jobs {
		if _, err := c.WriteJob(j, born); err != nil {
			t.Fatal(err)
		}
		got, err := ReadJob(c.dir(j.Name))
		if err != nil {
			t.Fatal(err)
		}
		got.Source.at, j.Source.at = "", ""
		rules, err := got.Rules()
		if err != nil || !reflect.DeepEqual(rules, j.Schedule) || got.Source != j.Source || got.MinAge != j.MinAge || got.Spot != j.Spot {
			t.Errorf("got %+v, %v, want %+v", got, err, j)
		}
		if changed, err := c.WriteJob(j, born.Add(time.Hour)); changed || err != nil {
			t.Errorf("%s is written again: %v", j.Name, err)
		}
	}
}

// What someone else wrote is his.
func TestNotOurs(t *testing.T) {
	c := parsed(t, familiar)
	c.Global.BaseDir = t.TempDir()
	dir := c.dir("test01")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, JobFile)
	for _, text := range []string{"source: {type: file, filename: /x}\n", "", "\n" + mark + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		changed, err := c.WriteJob(c.Jobs[0], born)
		if changed || !errors.Is(err, ErrNotOurs) || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%t, %v", changed, err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("it is now %q", got)
		}
	}
}

// Where it cannot be written, what was there stays, and nothing else.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, JobFile)
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	full := durable.Ops{Fdatasync: func(*os.File) error { return syscall.ENOSPC }}
	if err := replace(full, path, []byte("new")); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	left, _ := os.ReadDir(dir)
	if got, _ := os.ReadFile(path); string(got) != "old" || len(left) != 1 {
		t.Errorf("%q, %v", got, left)
	}
	var order []string
	ops := durable.Ops{
		Fdatasync: func(f *os.File) error { order = append(order, "content of "+filepath.Base(f.Name())); return nil },
		FsyncDir: func(*os.File) error {
			got, err := os.ReadFile(path)
			order = append(order, "names, and it is "+string(got))
			return err
		},
	}
	if err := os.WriteFile(filepath.Join(dir, temporary), []byte("of one that was killed"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := replace(ops, path, []byte("new")); err != nil || strings.Join(order, "; ") != "content of .config.new; names, and it is new" {
		t.Errorf("%v, %q", err, order)
	}
	c := parsed(t, familiar)
	c.Global.BaseDir = filepath.Join(path, "no-directory")
	if changed, err := c.WriteJob(c.Jobs[0], born); changed || err == nil {
		t.Errorf("%t, %v", changed, err)
	}
}

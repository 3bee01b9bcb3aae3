package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"backy/pkg/durable"
	"backy/pkg/schedule"
)

// ErrNotOurs says that a job's configuration was written by someone else, and stays as it is.
var ErrNotOurs = errors.New("it was not written by the scheduler, so it stays as it is; remove it to have it written")

// mark is how the first line of a file begins that the scheduler wrote.
const mark = "# Written by backy-sched"

// temporary is the name under which a configuration is written. There is one scheduler, so a file of that name is of
// one that was killed.
const temporary = ".config.new"

// WriteJob writes the configuration into the job's directory, so that the low-level commands know it: durably, as a whole,
// and only if it changed. It makes the directory where there is none. A new file notes now as the time since which the job
// exists; one that is there keeps its time. A file that the scheduler did not write is left alone, which is ErrNotOurs.
func (c *Daemon) WriteJob(job ScheduledJob, now time.Time) (changed bool, err error) {
	dir := c.dir(job.Name)
	path := filepath.Join(dir, JobFile)
	old, _, err := readFile(path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case !bytes.HasPrefix(old, []byte(mark)):
		return false, fmt.Errorf("%s: %w", path, ErrNotOurs)
	default:
		if known, err := ParseJob(old, path); err == nil && !known.Since.IsZero() {
			now = known.Since
		}
	}
	from, err := filepath.Abs(c.Path)
	if err != nil {
		return false, err
	}
	text := job.text(from, now)
	if bytes.Equal(text, old) {
		return false, nil
	}
	var ops durable.Ops
	if err := ops.MkdirAll(dir, 0o750); err != nil {
		return false, err
	}
	if err := replace(ops, path, text); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return true, nil
}

func (c *Daemon) dir(job string) string {
	return filepath.Join(c.Global.BaseDir, filepath.FromSlash(job))
}

// replace puts a whole file in the place of another, or leaves that as it is.
func replace(ops durable.Ops, path string, text []byte) error {
	dir := filepath.Dir(path)
	next := filepath.Join(dir, temporary)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := ops.WriteFile(next, text, 0o640)
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		os.Remove(next)
		return err
	}
	return ops.DirPath(dir)
}

// Since is when a job came to be: as the configuration in its directory says; where that does not, when backy.conf was
// changed last.
func (c *Daemon) Since(job string) time.Time {
	if known, err := ReadJob(c.dir(job)); err == nil && !known.Since.IsZero() {
		return known.Since
	}
	return c.Changed
}

// text is the job's configuration, as ParseJob reads it.
func (j ScheduledJob) text(from string, since time.Time) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s, and written again when that changes.\n", mark, strconv.Quote(from))
	b.WriteString("# To keep what you change here, remove these lines; then it is yours.\n")
	if s := j.Source; s.Type != "" {
		fmt.Fprintf(&b, "source:\n  type: %s\n", s.Type)
		for _, line := range []struct{ key, value string }{
			{"filename", s.Filename}, {"pool", s.Pool}, {"namespace", s.Namespace}, {"image", s.Image}, {"vm", s.VM}, {"consul_acl_token", s.ConsulToken},
			{"freeze", s.Freeze}, {"thaw", s.Thaw},
		} {
			if line.value != "" {
				fmt.Fprintf(&b, "  %s: %s\n", line.key, quote(line.value))
			}
		}
		if s.FullAlways {
			b.WriteString("  full-always: true\n")
		}
		if s.FreezeTime != 0 && s.FreezeTime != DefaultFreezeTime {
			fmt.Fprintf(&b, "  freeze-time: %s\n", schedule.FormatDuration(s.FreezeTime))
		}
	}
	b.WriteString("schedule:\n")
	for _, tag := range j.Schedule.Tags() {
		rule := j.Schedule[tag]
		fmt.Fprintf(&b, "  %s: {interval: %s, keep: %d}\n", quote(tag), schedule.FormatDuration(rule.Interval), rule.Keep)
	}
	fmt.Fprintf(&b, "since: %s\n", since.UTC().Format(time.RFC3339))
	if j.MinAge > 0 {
		fmt.Fprintf(&b, "min-age: %s\n", schedule.FormatDuration(j.MinAge))
	}
	fmt.Fprintf(&b, "spot-check: {share: %s%%, time: %s}\n", strconv.FormatFloat(j.Spot.Percent, 'f', -1, 64), schedule.FormatDuration(j.Spot.Time))
	return []byte(b.String())
}

// plain is what YAML takes for a text without quotes. Words that it takes for something else are short.
var plain = regexp.MustCompile(`^(/[A-Za-z0-9_./+-]*|[a-z][a-z0-9_-]{4,})$`)

// quote writes a text for YAML.
func quote(s string) string {
	if plain.MatchString(s) && s != "false" {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b) // a JSON string is one of YAML
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // of a string, never
	}
	return strings.TrimSpace(b.String())
}

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"backy/pkg/repo"
	"backy/pkg/schedule"
)

// Rules are the job's schedule; nil where it has none. A schedule that is the name of one in the configuration of the
// scheduler is no error until someone asks for the rules.
func (j *Job) Rules() (schedule.Schedule, error) {
	if j.scheduleErr != nil {
		return nil, j.scheduleErr
	}
	return j.rules, nil
}

// NamedError says that a schedule is the name of one that is not in the file.
type NamedError struct{ Place, Name string }

func (e *NamedError) Error() string {
	return fmt.Sprintf("%s: schedule %q is the name of one that is not in this file; write its tags here, as in {daily: {interval: 1d, keep: 9}}", e.Place, e.Name)
}

// ReadRules reads the schedule and the age below which revisions are not forgotten from the configuration in a job's
// directory; nil and 0 where there is none. With a *NamedError, minAge is good all the same.
func ReadRules(dir string) (rules schedule.Schedule, minAge time.Duration, err error) {
	job, err := ReadJob(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	rules, err = job.Rules()
	return rules, job.MinAge, err
}

// ownRules reads the schedule of a job. A name is no mistake here; the error is for who needs the rules.
func (d *document) ownRules(e entry) (schedule.Schedule, error) {
	if name, ok := scalar(e.value); ok {
		return nil, &NamedError{d.at(e), name}
	}
	return d.rules(e), nil
}

// rules reads a schedule that is written out.
func (d *document) rules(e entry) schedule.Schedule {
	if !isMapping(e.value) {
		d.entries(e) // tells
		return nil
	}
	rules := schedule.Schedule{}
	for _, tag := range d.entries(e) {
		rules[tag.name] = d.rule(tag)
	}
	if len(rules) == 0 {
		d.mistake(e.value, "the schedule is empty, and all tags would expire; leave it out if nothing is to expire")
	}
	return rules
}

func (d *document) rule(e entry) (r schedule.Rule) {
	if err := repo.CheckTag(e.name); err != nil {
		d.mistake(e.key, "%s", err)
	}
	if schedule.IsManual(e.name) {
		d.mistake(e.key, "tag %q: manual tags are not scheduled", e.name)
	}
	if e.value != nil && !isMapping(e.value) {
		d.mistake(e.value, "tag %q needs an interval and a keep, as in {interval: 1d, keep: 9}", e.name)
		return r
	}
	before := len(d.wrong)
	d.read(e, keys{"interval": d.duration(&r.Interval, time.Second), "keep": d.integer(&r.Keep, 1, math.MaxInt)})
	if len(d.wrong) == before && (r.Interval == 0 || r.Keep == 0) {
		d.mistake(e.place(), "tag %q needs an interval and a keep, as in {interval: 1d, keep: 9}", e.name)
	}
	return r
}

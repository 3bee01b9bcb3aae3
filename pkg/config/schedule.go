package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

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

// scalar is the text of a value that is one word; ok is false for what is none.
func scalar(node ast.Node) (text string, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func parseDuration(node ast.Node) (time.Duration, error) {
	text, ok := scalar(node)
	if !ok {
		return 0, at(node, fmt.Errorf("%s is no duration: want a whole number with one of s, m, h, d, w, as in 30m or 1d", node.Type()))
	}
	d, err := schedule.ParseDuration(text)
	if err != nil {
		return 0, at(node, err)
	}
	return d, nil
}

// parseRules understands a schedule. The second error is of one that is a name: it is for who needs the rules.
func parseRules(node ast.Node, path string) (rules schedule.Schedule, named, err error) {
	if node == nil || node.Type() == ast.NullType {
		return nil, nil, nil
	}
	if name, ok := scalar(node); ok {
		return nil, &NamedError{path + position(node), name}, nil
	}
	var raw map[string]ast.Node
	if err := yaml.NodeToValue(node, &raw, yaml.Strict()); err != nil {
		return nil, nil, err
	}
	if len(raw) == 0 {
		return nil, nil, at(node, errors.New("the schedule is empty, and all tags would expire; leave it out if nothing is to expire"))
	}
	rules = schedule.Schedule{}
	for _, tag := range slices.Sorted(maps.Keys(raw)) {
		rule := raw[tag]
		if rule == nil { // where there is nothing, there is no place
			return nil, nil, at(node, missing(tag))
		}
		if rules[tag], err = parseRule(tag, rule); err != nil {
			return nil, nil, err
		}
	}
	return rules, nil, nil
}

func missing(tag string) error {
	return fmt.Errorf("tag %q needs an interval and a keep, as in {interval: 1d, keep: 9}", tag)
}

func parseRule(tag string, node ast.Node) (schedule.Rule, error) {
	var r schedule.Rule
	if err := repo.CheckTag(tag); err != nil {
		return r, at(node, err)
	}
	if schedule.IsManual(tag) {
		return r, at(node, fmt.Errorf("tag %q: manual tags are not scheduled", tag))
	}
	var raw struct {
		Interval ast.Node `yaml:"interval"`
		Keep     ast.Node `yaml:"keep"`
	}
	if err := yaml.NodeToValue(node, &raw, yaml.Strict()); err != nil {
		return r, err
	}
	if raw.Interval == nil || raw.Keep == nil {
		return r, at(node, missing(tag))
	}
	var err error
	if r.Interval, err = parseDuration(raw.Interval); err != nil {
		return r, err
	}
	text, _ := scalar(raw.Keep)
	if r.Keep, err = strconv.Atoi(text); err != nil {
		return r, at(raw.Keep, errors.New("keep is no whole number"))
	}
	if err := r.Check(); err != nil {
		return r, at(node, err)
	}
	return r, nil
}

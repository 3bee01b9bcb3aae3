// Package config reads what people write: today the file config in a job's directory, which says what the job backs up.
// It is YAML, and read strictly: a key that nobody knows is a mistake, and each mistake is told with its file, line and
// column.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"backy/pkg/schedule"
)

// JobFile is the name of a job's configuration in its directory.
const JobFile = "config"

// maxFile bounds a configuration, in bytes.
const maxFile = 1 << 20

// Job is the configuration of one job:
//
//	source:
//	  type: file
//	  filename: /var/lib/images/vm1.img
//	schedule:
//	  daily: {interval: 1d, keep: 9}
//	  weekly: {interval: 1w, keep: 5}
//	min-age: 2d
//	spot-check: {share: 1%, time: 5m}
//
// A revision's tag expires once there are keep newer ones with it, and it is older than keep times interval.
type Job struct {
	Source Source

	// MinAge is the age below which a revision is forgotten only by force, and never expires; 0 where there is none.
	MinAge time.Duration

	// Spot is what is checked after a backup.
	Spot SpotCheck

	// Since is when the job came to be; the zero time where it is not known.
	Since time.Time

	rules       schedule.Schedule
	scheduleErr error
}

// Source is what a job backs up. Only the fields of its Type are set.
type Source struct {
	Type string // "file", or a type that this version does not know; "" where there is no source

	// Of type "file": an image file or block device.
	Filename string // an absolute path; one that is not begins in the job's directory
	Cow      bool   // kept for configurations of old; it has no meaning here, and is true where it is not given

	// Unknown is the source as it is written, where its Type is not known to this version.
	Unknown ast.Node

	at string // where the source is written: file:line:column
}

// types are the source types that are known.
var types = []string{"file"}

// ReadJob reads the configuration in a job's directory. Where there is none, the error is fs.ErrNotExist. A source of an
// unknown type is no error until someone asks for its Address, so that the rest of the file can still be used.
func ReadJob(dir string) (*Job, error) {
	path := filepath.Join(dir, JobFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return ParseJob(text, path)
}

// ParseJob understands the text of a job's configuration. path is that of the file, for errors, and for the directory
// where relative paths begin.
func ParseJob(text []byte, path string) (*Job, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: it is longer than %d bytes", path, maxFile)
	}
	var raw struct {
		Source   ast.Node `yaml:"source"`
		Schedule ast.Node `yaml:"schedule"`
		MinAge   ast.Node `yaml:"min-age"`
		Spot     ast.Node `yaml:"spot-check"`
	}
	if err := decode(text, &raw); err != nil {
		return nil, located(path, err)
	}
	source, err := parseSource(raw.Source, path)
	if err != nil {
		return nil, located(path, err)
	}
	job := &Job{Source: source}
	if job.rules, job.scheduleErr, err = parseRules(raw.Schedule, path); err != nil {
		return nil, located(path, err)
	}
	if raw.MinAge != nil {
		if job.MinAge, err = parseDuration(raw.MinAge); err != nil {
			return nil, located(path, err)
		}
	}
	if job.Spot, err = parseSpot(raw.Spot); err != nil {
		return nil, located(path, err)
	}
	return job, nil
}

// Address is what the source is called on a command line, such as that of backy-read.
func (s Source) Address() (string, error) {
	switch s.Type {
	case "file":
		return s.Filename, nil
	case "":
		return "", fmt.Errorf("%s: it has no source", s.at)
	default:
		return "", fmt.Errorf("%s: source type %q is not known to this version of backy; it knows: %s", s.at, s.Type, strings.Join(types, ", "))
	}
}

func parseSource(node ast.Node, path string) (Source, error) {
	if node == nil || node.Type() == ast.NullType {
		return Source{at: path}, nil
	}
	s := Source{Unknown: node, at: path + position(node)}
	var kind struct {
		Type string `yaml:"type"`
	}
	if err := yaml.NodeToValue(node, &kind); err != nil {
		return s, err
	}
	s.Type = kind.Type
	switch {
	case s.Type == "":
		return s, at(node, fmt.Errorf("the source has no type; it is one of: %s", strings.Join(types, ", ")))
	case !slices.Contains(types, s.Type):
		return s, nil
	}
	file := struct {
		Type     string `yaml:"type"`
		Filename string `yaml:"filename"`
		Cow      bool   `yaml:"cow"`
	}{Cow: true}
	if err := yaml.NodeToValue(node, &file, yaml.Strict()); err != nil {
		return s, err
	}
	if file.Filename == "" || strings.ContainsRune(file.Filename, 0) {
		return s, at(node, errors.New("a source of type file needs a filename: the path of an image file or block device"))
	}
	s.Filename, s.Cow, s.Unknown = file.Filename, file.Cow, nil
	if !filepath.IsAbs(s.Filename) {
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return s, err
		}
		s.Filename = filepath.Join(dir, s.Filename)
	}
	return s, nil
}

// Package config reads what people write: backy.conf, which tells the scheduler all it has to know, and the file config in a
// job's directory, which says what the job backs up. Both are YAML, and read strictly: a key that nobody knows is a
// mistake, and all mistakes are told at once, each with its file, line and column.
package config

import (
	"path/filepath"
	"time"

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
//	since: 2026-11-21T10:00:00Z
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

// ReadJob reads the configuration in a job's directory. Where there is none, the error is fs.ErrNotExist. A source of an
// unknown type is no error until someone asks for its Address, so that the rest of the file can still be used.
func ReadJob(dir string) (*Job, error) {
	path := filepath.Join(dir, JobFile)
	text, _, err := readFile(path, maxFile)
	if err != nil {
		return nil, err
	}
	return ParseJob(text, path)
}

// ParseJob understands the text of a job's configuration. path is that of the file, for errors, and for the directory
// where relative paths begin. All mistakes come at once, as Mistakes.
func ParseJob(text []byte, path string) (*Job, error) {
	d, all, ok := parse(text, path, maxFile)
	job := &Job{Source: Source{at: path}, Spot: DefaultSpotCheck}
	if ok {
		since := ""
		d.read(all, keys{
			"source":     d.source(&job.Source),
			"schedule":   func(e entry) { job.rules, job.scheduleErr = d.ownRules(e) },
			"since":      d.text(&since, func(text string) (err error) { job.Since, err = time.Parse(time.RFC3339, text); return err }),
			"min-age":    d.duration(&job.MinAge, 0),
			"spot-check": d.spot(&job.Spot),
		})
	}
	if err := sorted(d.wrong); err != nil {
		return nil, err
	}
	return job, nil
}

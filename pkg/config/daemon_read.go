package config

import (
	"errors"
	"time"
)

// ReadDaemon reads the configuration of the scheduler. All that is wrong with the file comes at once, as Mistakes; an
// error of the file system is another one, such as fs.ErrNotExist.
func ReadDaemon(path string) (*Daemon, error) {
	return nil, errors.New("not read yet")
}

// ErrNotOurs says that a job's configuration was written by someone else, and stays as it is.
var ErrNotOurs = errors.New("it was not written by the scheduler, and stays as it is")

// WriteJob writes the configuration into the job's directory, so that the low-level commands know it: durably, as a whole,
// and only if it changed. It makes the directory where there is none. A new file notes now as the time since which the job exists;
// one that is there keeps its time. A file that the scheduler did not write is left alone, which is ErrNotOurs.
func (d *Daemon) WriteJob(job ScheduledJob, now time.Time) (changed bool, err error) {
	return false, errors.New("not written yet")
}

// Since is when a job came to be: as its directory's configuration says, else when backy.conf was changed last.
func (d *Daemon) Since(job string) time.Time { return d.Changed }

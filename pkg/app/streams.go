package app

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"backy/pkg/repo"
)

// pipeSize is what pipes between the stages hold: a hop costs half as much as with the kernel's 64 KiB.
const pipeSize = 1 << 20

// Input is standard input for a stream: it refuses a terminal, where someone forgot the pipe, and makes a pipe as big as
// it may be. what says what was expected, as in "an extent stream".
func (c *Context) Input(what string) (*os.File, error) { return stream(c.Stdin, "input", "read", what) }

// Output is standard output for a stream, like Input.
func (c *Context) Output(what string) (*os.File, error) {
	return stream(c.Stdout, "output", "write", what)
}

func stream(f *os.File, name, verb, what string) (*os.File, error) {
	fd := int(f.Fd())
	if term.IsTerminal(fd) {
		return nil, Usagef("standard %s is a terminal; to %s %s, use a pipe or a file", name, verb, what)
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize) // a smaller pipe, or no pipe, will do
	return f, nil
}

// Repo opens the repository and the job that --backupdir, or else the current directory, lies in; job is "" for the base
// directory itself. Events are about that job from then on.
func (c *Context) Repo() (r *repo.Repo, job string, err error) {
	dir := c.Backupdir
	if dir == "" {
		dir = "."
	}
	if r, job, err = repo.Open(dir, repo.World{Now: c.Now, Events: c.Events}); err != nil {
		return nil, "", err
	}
	c.Events.About(job, "")
	return r, job, nil
}

// Job is Repo for those that need a job, not the base directory.
func (c *Context) Job() (*repo.Repo, *repo.Job, error) {
	r, name, err := c.Repo()
	if err != nil {
		return nil, nil, err
	}
	job, err := r.Job(name)
	return r, job, err
}

// Find is the one revision of a job that a text names. Where others cannot be read, that is said: who asked for the last one
// gets an older one then.
func (c *Context) Find(job *repo.Job, spec string) (repo.Revision, error) {
	rev, err := job.Find(spec)
	if err != nil || rev.ID == spec {
		return rev, err
	}
	_, broken, err := job.List()
	for _, b := range broken {
		c.Log.Warn("a revision cannot be read, and "+rev.ID+" is taken from among the others", "file", b.Path, "error", b.Err)
	}
	return rev, err
}

// RepoIfAny is Repo for those that go without one: without --backupdir, where the current directory lies in no
// repository, it is nil and no error.
func (c *Context) RepoIfAny() (r *repo.Repo, job string, err error) {
	r, job, err = c.Repo()
	if c.Backupdir == "" && errors.Is(err, repo.ErrNoRepository) {
		return nil, "", nil
	}
	return r, job, err
}

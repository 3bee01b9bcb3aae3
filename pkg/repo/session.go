package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/keyval"
	"backy/pkg/object"
)

// What a session does.
const (
	kindWriter = "writer"
	kindReader = "reader"
)

// Session is one process at work in a repository. Its registration names the root that it builds on or reads, so that
// purge keeps what is below it, also when the revision is forgotten meanwhile. The registration is locked as long as
// the session lives, and outlives it: only purge removes it. That of a writer also names the revision that it makes.
type Session struct {
	ID   string
	repo *Repo
	file *os.File // the registration; its lock ends with this descriptor
}

// ErrSessionEnded is wrapped when purge, or somebody through it, took the session for over.
var ErrSessionEnded = errors.New("the session was ended by a purge")

// register makes the registration in the session's staging directory and links it into sessions/ when it is whole,
// durable and locked. From then on purge sees it.
func (r *Repo) register(id, kind string, root object.Name, revision string) (*Session, error) {
	var p keyval.Pairs
	host, _ := os.Hostname()
	p.SetInt("format", 1)
	p.Set("kind", kind)
	p.Set("host", host)
	p.SetInt("pid", int64(os.Getpid()))
	p.Set("command", whoami())
	p.Set("since", r.Now().UTC().Format(time.RFC3339))
	p.Set("root", FormatRoot(root))
	if revision != "" {
		p.Set("revision", revision)
	}

	temp := r.path("tmp", id, "registration")
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, fmt.Errorf("register a session: %w", err)
	}
	_, err = f.Write(p.Bytes())
	if err == nil {
		err = r.Ops.File(f)
	}
	if err == nil {
		var ok bool
		if ok, err = tryLock(f); err == nil && !ok {
			err = fmt.Errorf("%s is locked already", temp)
		}
	}
	if err == nil {
		r.step(StepRegister, id)
		err = os.Link(temp, r.path("sessions", id))
	}
	if err == nil {
		err = os.Remove(temp)
	}
	if err != nil {
		_ = os.Remove(temp) // or the staging of a reader would stay until the next purge
		f.Close()
		return nil, fmt.Errorf("register a session: %w", err)
	}
	return &Session{id, r, f}, nil
}

// Alive fails when the registration is gone. It asks the open file for its link count: a path may be answered from a
// stale cache.
func (s *Session) Alive() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.file.Fd()), &st); err != nil {
		return fmt.Errorf("look at the registration: %w", err)
	}
	if st.Nlink == 0 {
		return again("%w", ErrSessionEnded)
	}
	return nil
}

// Close ends the session.
func (s *Session) Close() {
	if s != nil {
		release(s.file)
	}
}

// Read opens a session that reads a revision, and makes sure that the revision is there once it is registered. In a
// repository that cannot be written to it returns a nil session and the reason: reading works, but a purge may remove
// what is read if the revision is forgotten meanwhile.
func (r *Repo) Read(rev Revision) (s *Session, unregistered, err error) {
	return r.reader(rev.Root, func() error {
		r.step(StepBase, rev.ID)
		if _, err := os.Lstat((&Job{rev.Job, r}).file(rev.ID + revSuffix)); err != nil {
			return again("revision %s of %s was forgotten meanwhile: %w", rev.ID, rev.Job, err)
		}
		return nil
	})
}

// Visit is Read for who reads no revision, but is to be known as alive.
func (r *Repo) Visit() (s *Session, unregistered, err error) {
	return r.reader(object.Name{}, func() error { return nil })
}

func (r *Repo) reader(root object.Name, check func() error) (s *Session, unregistered, err error) {
	for {
		id := NewID()
		if err := os.Mkdir(r.path("tmp", id), 0o750); err != nil {
			if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
				return nil, err, nil
			}
			return nil, nil, fmt.Errorf("register a session: %w", err)
		}
		s, err := r.register(id, kindReader, root, "")
		if err != nil && gone(r.path("tmp", id)) {
			continue // a purge took it for left over: once more, as another session
		}
		_ = os.Remove(r.path("tmp", id)) // empty now; purge removes what is left of a session
		if err != nil {
			return nil, nil, err
		}
		if err := check(); err != nil {
			s.Close()
			return nil, nil, err
		}
		r.step(StepAlive, id)
		if s.Alive() == nil {
			return s, nil, nil
		}
		s.Close() // ended before it began: once more, as another session
	}
}

// Ended reports whether a session is over: its registration is gone or nobody holds its lock.
func (r *Repo) Ended(id string) (bool, error) {
	if err := CheckID(id); err != nil {
		return false, err
	}
	f, err := os.OpenFile(r.path("sessions", id), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	locked, err := isLocked(f)
	return !locked, err
}

// gone reports whether there is nothing at a path, not even a broken link.
func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

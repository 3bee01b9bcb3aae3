package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is an open-file-description lock on a file that is never unlinked. It ends with Unlock or with the process; the
// file says who holds it.
type Lock struct{ file *os.File }

// HeldError says that somebody else has the lock.
type HeldError struct {
	What   string
	Holder string // host, pid and command, as the holder wrote them; may be empty
}

func (e *HeldError) Error() string {
	if e.Holder == "" {
		return e.What + " is locked by another process"
	}
	return e.What + " is locked by " + e.Holder
}

// tryLock takes the lock of an open file, or returns false.
func tryLock(f *os.File) (bool, error) {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return true, nil
}

// isLocked reports whether somebody else holds the file's lock.
func isLocked(f *os.File) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("look at the lock of %s: %w", f.Name(), err)
	}
	return l.Type != unix.F_UNLCK, nil
}

func whoami() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s (pid %d on %s)", filepath.Base(os.Args[0]), os.Getpid(), host)
}

// lock takes a lock file of the repository at once, or fails with a *HeldError.
func (r *Repo) lock(name, what string) (*Lock, error) {
	f, err := os.OpenFile(r.path("lock", name), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	ok, err := tryLock(f)
	if err == nil && !ok {
		text, _ := io.ReadAll(io.LimitReader(f, 1000))
		err = &HeldError{what, strings.TrimSpace(string(text))}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(whoami()+"\n"), 0) // only for people to read, and a full disk is to lock nobody out
	return &Lock{f}, nil
}

// await takes a lock that nobody holds for long.
func (r *Repo) await(ctx context.Context, name, what string) (*Lock, error) {
	for {
		l, err := r.lock(name, what)
		if held := (*HeldError)(nil); !errors.As(err, &held) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Unlock gives the lock back.
func (l *Lock) Unlock() {
	_ = l.file.Truncate(0) // who held it is of no interest any more
	release(l.file)
}

// release unlocks and closes a file. Closing it alone would do, were it not for processes that this one starts meanwhile:
// until they execute their program they have the file open, too.
func release(f *os.File) {
	_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	f.Close()
}

// lockName is a job's name as a file's name.
func lockName(job, kind string) string { return strings.ReplaceAll(job, "/", ":") + "." + kind }

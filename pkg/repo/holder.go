package repo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is the process that holds a lock, as it wrote of itself.
type Holder struct {
	Command string // "" where it could not write
	PID     int    // 0 as well
	Host    string
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("%s (pid %d on %s)", h.Command, h.PID, h.Host)
}

var holder = regexp.MustCompile(`^(\S+) \(pid (\d+) on (\S+)\)\n$`)

// Writer tells who backs the job up now; nil where nobody does. It costs a look at a file.
func (j *Job) Writer() (*Holder, error) {
	f, err := os.OpenFile(j.repo.path("lock", lockName(j.Name, "backup")), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look who backs up %s: %w", j.Name, err)
	}
	defer f.Close()
	held, err := isLocked(f)
	if err != nil || !held {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, 1000))
	if err != nil {
		return nil, fmt.Errorf("look who backs up %s: %w", j.Name, err)
	}
	h := &Holder{}
	if m := holder.FindStringSubmatch(string(text)); m != nil {
		h.Command, h.Host = m[1], m[3]
		h.PID, _ = strconv.Atoi(m[2])
	}
	return h, nil
}

// MaybeWriter is a look that costs less: false where nobody backs the job up, true where somebody may.
func (j *Job) MaybeWriter() bool {
	var st unix.Stat_t
	err := unix.Stat(j.repo.path("lock", lockName(j.Name, "backup")), &st)
	return err == nil && st.Size > 0 // who has the lock writes into the file, and empties it at the end
}

// WriterSession is the session of a writer that holds a job's lock; ErrNoSession where there is none.
func (r *Repo) WriterSession(h Holder) (SessionInfo, error) {
	all, err := r.Sessions()
	if err != nil {
		return SessionInfo{}, err
	}
	for _, s := range all {
		if s.Kind == kindWriter && s.Alive && s.PID == int64(h.PID) && s.Host == h.Host {
			return s, nil
		}
	}
	return SessionInfo{}, fmt.Errorf("%w of %s", ErrNoSession, h)
}

// ErrNoSession is wrapped where a process has no session.
var ErrNoSession = errors.New("there is no session")

// LockScheduler takes the lock of the one scheduler of the repository, or fails with a *HeldError.
func (r *Repo) LockScheduler() (*Lock, error) {
	return r.lock("scheduler", "the schedule of "+strings.TrimSuffix(r.Base, "/"))
}

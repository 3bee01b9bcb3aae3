package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/keyval"
	"backy/pkg/object"
)

// SessionInfo is what a registration says.
type SessionInfo struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"` // writer, reader
	Host    string    `json:"host"`
	PID     int64     `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
	Alive   bool      `json:"alive"` // its lock is held

	root     object.Name
	revision string // that a writer makes, or ""
}

func (s SessionInfo) String() string {
	return fmt.Sprintf("session %s: a %s since %s, %s", s.ID, s.Kind, s.Since.Format(time.RFC3339), s.Command)
}

// Sessions lists the registrations. That of a session that has ended stays until a purge removes it.
func (r *Repo) Sessions() ([]SessionInfo, error) {
	entries, err := os.ReadDir(r.path("sessions"))
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	list := []SessionInfo{}
	for _, e := range entries {
		if !isID(e.Name()) {
			continue
		}
		s, err := r.session(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // a purge removed it
		}
		if err != nil {
			return nil, fmt.Errorf("the registration %s: %w", r.path("sessions", e.Name()), err)
		}
		list = append(list, s)
	}
	return list, nil
}

func (r *Repo) session(id string) (SessionInfo, error) {
	s := SessionInfo{ID: id}
	path := r.path("sessions", id)
	text, err := readSmall(path)
	if err != nil {
		return s, err
	}
	c, err := keyval.Parse(text)
	if err != nil {
		return s, err
	}
	if format := c.Get("format"); format != "1" {
		return s, fmt.Errorf("format %q is not known to this version of backy", format)
	}
	s.Kind, s.Host, s.Command, s.revision = c.Get("kind"), c.Get("host"), c.Get("command"), c.Get("revision")
	if s.Kind != kindWriter && s.Kind != kindReader {
		return s, fmt.Errorf("kind %q is not known to this version of backy", s.Kind)
	}
	if s.root, err = ParseRoot(c.Get("root")); err != nil {
		return s, err
	}
	s.PID, _ = c.Int("pid") // for people, like since
	s.Since, _ = time.Parse(time.RFC3339, c.Get("since"))
	s.Alive, err = r.isAlive(path)
	return s, err
}

// making are the ids of the revisions that live writers make.
func (r *Repo) making() (map[string]bool, error) {
	list, err := r.Sessions()
	ids := map[string]bool{}
	for _, s := range list {
		if s.Alive && s.revision != "" {
			ids[s.revision] = true
		}
	}
	return ids, err
}

// isAlive reports whether a file's lock is held; false where there is no file.
func (r *Repo) isAlive(path string) (bool, error) {
	f, err := os.Open(path) // which is enough to ask, in a repository that is read-only, too
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return isLocked(f)
}

const overSuffix = ".over"

// endSessions takes away what is left of the sessions that are over: first the staging, so that its writer cannot commit
// even if it lives, and then the registration. Where that fails, the session is not over.
func (p *purge) endSessions(ctx context.Context) error {
	staged, err := os.ReadDir(p.repo.path("tmp")) // before the registrations: a staging that is newer is nobody's business
	if err != nil {
		return fmt.Errorf("list stagings: %w", err)
	}
	notes, err := os.ReadDir(p.repo.path("reads")) // before the registrations, too
	if err != nil {
		return fmt.Errorf("list reads: %w", err)
	}
	sessions, err := p.repo.Sessions()
	if err != nil {
		return err
	}
	p.over = map[string]bool{}
	registered := map[string]bool{}
	for _, s := range sessions {
		registered[s.ID] = true
		if s.Alive && !p.end[s.ID] {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := p.endSession(s.ID); err != nil {
			p.Log.WarnContext(ctx, "a session that is over cannot be taken away, so what it may use stays", "session", s.ID, "error", err)
			continue
		}
		p.over[s.ID] = true
		p.report.Ended = append(p.report.Ended, s)
	}
	for _, e := range staged {
		id := strings.TrimSuffix(e.Name(), overSuffix)
		if !isID(id) || registered[id] || p.DryRun {
			continue
		}
		if err := p.leftOver(id); err != nil {
			p.Log.WarnContext(ctx, "the staging of a session that is over cannot be removed", "session", id, "error", err)
		}
	}
	if p.DryRun {
		return nil
	}
	sweepProbes(p.repo.path("chunks"))
	for _, e := range notes {
		id, making := strings.CutPrefix(e.Name(), ".")
		if !making || !isID(id) || registered[id] && !p.over[id] {
			continue
		}
		if err := remove(p.repo.path("reads", e.Name())); err != nil {
			p.Log.WarnContext(ctx, "what a read that was killed has left cannot be removed", "session", id, "error", err)
		}
	}
	return nil
}

func (p *purge) endSession(id string) error {
	if p.DryRun {
		return nil
	}
	if err := p.fence(id); err != nil {
		return err
	}
	p.step(StepUnregister, id)
	return p.do(func() error { return remove(p.repo.path("sessions", id)) })
}

// fence takes a session's staging away. A link of its rev that is under way passes the rename, but not the unlink.
func (p *purge) fence(id string) error {
	over := p.repo.path("tmp", id+overSuffix)
	clear := func() error {
		if err := remove(over + "/rev"); err != nil && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		return removeTree(over)
	}
	p.step(StepFence, id)
	if err := p.do(clear); err != nil { // of an earlier purge
		return err
	}
	err := p.do(func() error { return os.Rename(p.repo.path("tmp", id), over) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.do(clear)
}

// removeTree removes a directory with all that is in it. A file that was being made in it, by a writer that is fenced now, may
// come late.
func removeTree(path string) (err error) {
	for range 10 {
		if err = os.RemoveAll(path); !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
	}
	return err
}

// leftOver removes a staging whose session never registered. One that is about to has something in it locked; where it has
// not come so far yet, it starts over.
func (p *purge) leftOver(id string) error {
	for _, name := range []string{"sent", "registration"} {
		if alive, err := p.repo.isAlive(p.repo.path("tmp", id, name)); alive || err != nil {
			return err
		}
	}
	return p.fence(id)
}

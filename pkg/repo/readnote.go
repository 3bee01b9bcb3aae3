package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"backy/pkg/keyval"
)

// ReadNote is what backy-read knows of a read and the stream of extents cannot carry: .backy/reads/<id>, where the id is
// that of the revision to be. backy-store takes it into the .rev.
type ReadNote struct {
	ID       string
	Job      string
	Session  string // of the reader
	Source   string
	Host     string
	Start    time.Time
	Snapshot string    // that was made for it, which is SnapshotName(ID), or ""
	Made     time.Time // of the snapshot, as the source's clock says, at the end; zero is unknown
	Mode     string    // full, compare, map; "" before the end
	Bytes    int64     // read
	Cursor   int64     // where the next map check goes on, a block

	Temporary bool // the snapshot is of no use once the read's session has ended
}

// bytes is the text of the note.
func (n ReadNote) bytes() []byte {
	var p keyval.Pairs
	p.SetInt("format", 1)
	p.Set("job", n.Job)
	p.Set("session", n.Session)
	p.Set("source", n.Source)
	p.Set("host", n.Host)
	p.Set("start", n.Start.UTC().Format(timeForm))
	p.Set("snapshot", n.Snapshot)
	if n.Temporary {
		p.Set("keep", "no")
	}
	if !n.Made.IsZero() {
		p.Set("snapshot-time", n.Made.UTC().Format(time.RFC3339Nano))
	}
	if n.Mode != "" {
		p.Set("read", n.Mode)
		p.SetInt("read-bytes", n.Bytes)
		p.SetInt("cursor", n.Cursor)
	}
	return p.Bytes()
}

// NoteRead writes a note, in place of an older one with its id. One that names a snapshot is durable.
func (r *Repo) NoteRead(n ReadNote) error {
	ops, temp := r.Ops, r.path("reads", "."+n.Session) // which purge removes once the session is over
	err := ops.WriteFile(temp, n.bytes(), 0o640)
	if err == nil {
		err = os.Rename(temp, r.path("reads", n.ID))
	}
	if err == nil && n.Snapshot != "" {
		err = ops.DirPath(r.path("reads"))
	}
	if err != nil {
		return fmt.Errorf("note the read: %w", err)
	}
	return nil
}

// ReadNote returns the note of this id; fs.ErrNotExist where there is none.
func (r *Repo) ReadNote(id string) (ReadNote, error) {
	if err := CheckID(id); err != nil {
		return ReadNote{}, err
	}
	text, err := readSmall(r.path("reads", id))
	if err != nil {
		return ReadNote{}, err
	}
	n, err := parseReadNote(text)
	if n.ID = id; err != nil {
		return n, fmt.Errorf("%s: %w", r.path("reads", id), err)
	}
	return n, nil
}

// parseReadNote reads what bytes writes. The id is not in it.
func parseReadNote(text []byte) (ReadNote, error) {
	p, err := keyval.Parse(text)
	if err != nil {
		return ReadNote{}, err
	}
	if f := p.Get("format"); f != "1" {
		return ReadNote{}, fmt.Errorf("format %q of a read is not known to this version of backy", f)
	}
	n := ReadNote{Job: p.Get("job"), Session: p.Get("session"), Source: p.Get("source"), Host: p.Get("host"), Snapshot: p.Get("snapshot"), Mode: p.Get("read")}
	if n.Start, err = time.Parse(timeForm, p.Get("start")); err == nil && n.Mode != "" {
		if n.Bytes, err = p.Int("read-bytes"); err == nil {
			n.Cursor, err = p.Int("cursor")
		}
	}
	if err == nil && p.Has("snapshot-time") {
		n.Made, err = time.Parse(time.RFC3339Nano, p.Get("snapshot-time"))
	}
	n.Start, n.Made = n.Start.UTC(), n.Made.UTC()
	if n.Temporary = p.Get("keep") == "no"; err == nil && p.Has("keep") && !n.Temporary {
		err = fmt.Errorf("keep: %q is not known to this version of backy", p.Get("keep"))
	}
	return n, err
}

// ForgetRead removes a note. One that names a snapshot is removed only once that is gone.
func (r *Repo) ForgetRead(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	return os.Remove(r.path("reads", id))
}

// SweepReads removes the notes of earlier reads of this source that nobody needs any more, and before each of them the
// snapshot that it names, by remove. These are:
//
//   - the note of a revision of this job that is not its newest;
//   - a temporary one whose session is over;
//   - one of this job whose id is no revision's, whose session is over, and which no live writer makes a revision of.
//
// A note whose id is a revision of this job is this job's, whatever it says: the job may have been renamed. A failure keeps
// the note, and is told; left is how many there were.
func (j *Job) SweepReads(ctx context.Context, source string, remove func(snapshot string) error, log *slog.Logger) (left int, err error) {
	over, err := j.overReads(source, func(id string, err error) {
		left++
		log.WarnContext(ctx, "the note of an earlier read stays", "read", id, "error", err)
	})
	for _, n := range over {
		if err := context.Cause(ctx); err != nil {
			return left, err
		}
		err := n.remove(remove)
		if err == nil {
			err = j.repo.ForgetRead(n.ID)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // somebody else sweeps, too
			left++
			log.WarnContext(ctx, "the snapshot of an earlier read stays", "snapshot", n.Snapshot, "error", err)
		}
	}
	return left, err
}

// remove removes the snapshot that the note names. No other than its own is touched, whatever it says.
func (n ReadNote) remove(remove func(snapshot string) error) error {
	switch {
	case n.Snapshot == "":
		return nil
	case n.Snapshot != SnapshotName(n.ID):
		return fmt.Errorf("the note of %s names the snapshot %.100q, which is not its own", n.ID, n.Snapshot)
	case remove == nil:
		return errors.New("snapshots of this source cannot be removed here")
	}
	return remove(n.Snapshot)
}

// overReads lists the notes of reads of a source that nobody needs any more. The order of the looks matters: a read ends
// before the writer of its revision does, and that one after its commit.
func (j *Job) overReads(source string, tell func(id string, err error)) (over []ReadNote, err error) {
	notes, err := j.repo.readsOf(source, tell)
	if err != nil || len(notes) == 0 {
		return nil, err
	}
	list, broken, err := j.List()
	if err != nil {
		return nil, err
	}
	var orphans []ReadNote
	for _, n := range notes {
		i := slices.IndexFunc(list, func(r Revision) bool { return r.ID == n.ID })
		unreadable := slices.ContainsFunc(broken, func(b Broken) bool { return filepath.Base(b.Path) == n.ID+revSuffix })
		switch {
		case i < 0 && (n.Job != j.Name || unreadable):
			continue
		case i >= 0 && i < len(list)-1:
			over = append(over, n)
			continue
		case i >= 0 && !n.Temporary:
			continue
		}
		switch ended, err := j.repo.Ended(n.Session); {
		case err != nil:
			tell(n.ID, err)
		case ended && i < 0:
			orphans = append(orphans, n)
		case ended:
			over = append(over, n)
		}
	}
	if len(orphans) == 0 {
		return over, nil
	}
	making, err := j.repo.making()
	if err != nil {
		tell(orphans[0].ID, err)
		return over, nil
	}
	for _, n := range orphans {
		if !making[n.ID] && gone(j.file(n.ID+revSuffix)) {
			over = append(over, n)
		}
	}
	return over, nil
}

// readsOf lists the notes of reads of a source.
func (r *Repo) readsOf(source string, tell func(id string, err error)) (notes []ReadNote, err error) {
	entries, err := os.ReadDir(r.path("reads"))
	if err != nil {
		return nil, fmt.Errorf("list reads: %w", err)
	}
	for _, e := range entries {
		if !isID(e.Name()) {
			continue
		}
		switch n, err := r.ReadNote(e.Name()); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			tell(e.Name(), err)
		case n.Source == source:
			notes = append(notes, n)
		}
	}
	return notes, nil
}

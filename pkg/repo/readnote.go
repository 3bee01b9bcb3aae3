package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
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
	Snapshot string // that was made for it, or ""
	Mode     string // full, compare, map; "" before the end
	Bytes    int64  // read
	Cursor   int64  // where the next map check goes on, a block
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
	if n.Mode != "" {
		p.Set("read", n.Mode)
		p.SetInt("read-bytes", n.Bytes)
		p.SetInt("cursor", n.Cursor)
	}
	return p.Bytes()
}

// NoteRead writes a note, in place of an older one with its id. One that names a snapshot is durable.
func (r *Repo) NoteRead(n ReadNote) error {
	ops, temp := r.Ops, r.path("reads", "."+n.ID)
	_ = os.Remove(temp) // of a run that was killed
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
	n.Start = n.Start.UTC()
	return n, err
}

// SweepReads removes the notes of earlier reads of this source by this job that nobody needs any more: whose revision is
// superseded, or whose id is no revision's and whose session is over. What the note names beside, a snapshot, is given
// to remove first; a failure keeps the note, and is only told.
func (j *Job) SweepReads(ctx context.Context, source string, remove func(ReadNote) error, log *slog.Logger) error {
	entries, err := os.ReadDir(j.repo.path("reads"))
	if err != nil {
		return fmt.Errorf("list reads: %w", err)
	}
	list, _, err := j.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !isID(e.Name()) {
			continue
		}
		n, err := j.repo.ReadNote(e.Name())
		if errors.Is(err, fs.ErrNotExist) || err == nil && (n.Job != j.Name || n.Source != source) {
			continue
		}
		over := false
		if err == nil {
			over, err = j.over(n, list)
		}
		if err == nil && over && remove != nil {
			err = remove(n)
		}
		if err == nil && over {
			err = os.Remove(filepath.Join(j.repo.path("reads"), n.ID))
		}
		if err != nil {
			log.WarnContext(ctx, "the note of an earlier read stays", "read", e.Name(), "error", err)
		}
	}
	return nil
}

func (j *Job) over(n ReadNote, list []Revision) (bool, error) {
	for i, r := range list {
		if r.ID == n.ID {
			return i < len(list)-1, nil
		}
	}
	return j.repo.Ended(n.Session)
}

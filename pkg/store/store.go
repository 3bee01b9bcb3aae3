// Package store is the writer: it puts a stream of objects into a repository and commits it as a revision, and writes
// a revision as such a stream again.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/event"
	"backy/pkg/keyval"
	"backy/pkg/object"
	"backy/pkg/repo"
)

// Options say what is to be done.
type Options struct {
	In      io.Reader // the stream of objects
	Job     *repo.Job
	Tags    []string                 // nil: those that the stream names, or else those that are Due
	Due     func() ([]string, error) // asked once the job is locked, if at all; nil: none are
	MinFree float64                  // share of the disk that stays free
	Import  bool                     // the stream is of a revision that was made elsewhere
	Verify  bool                     // check each object against its name, also where the stream was made on this host just now
	BootID  string                   // of this host, as in a stream's first entry
	Repo    *repo.Repo
	Log     *slog.Logger
	Events  *event.Writer
}

// Run stores the stream and commits its revision. The job's lock is held from before the first byte is read. A stream
// that ends early, or goes on after its end, is never committed; what was published of it is found again by the next
// run, or purged.
func Run(ctx context.Context, o Options) (repo.Revision, error) {
	for _, tag := range o.Tags {
		if err := repo.CheckTag(tag); err != nil {
			return repo.Revision{}, err
		}
	}
	w, err := o.Job.NewWriter(repo.WriterOptions{MinFree: o.MinFree, Verify: o.Verify, Import: o.Import})
	if err != nil {
		return repo.Revision{}, err
	}
	defer w.Close()
	block := int64(repo.MaxBlock)
	in, err := object.NewStreamReader(o.In, func(k object.Kind) int {
		if k == object.Page {
			return object.MaxFrame(blockmap.MaxPage)
		}
		return object.MaxFrame(int(block))
	})
	if err != nil {
		return repo.Revision{}, err
	}
	rev, base, err := parseFirst(in.First())
	if err != nil {
		return rev, fmt.Errorf("the stream's first entry: %w", err)
	}
	block = rev.Block
	// What comes from elsewhere, or from a file, may have been changed on the way.
	w.Verify = w.Verify || o.BootID == "" || in.First().Get("boot-id") != o.BootID
	if o.Tags == nil {
		o.Tags = in.First().List("tags")
	}
	if o.Tags == nil && o.Due != nil {
		if o.Tags, err = o.Due(); err != nil {
			return rev, err
		}
	}
	w.Revision = rev.ID
	o.Events.About("", rev.ID)
	o.Events.Emit(event.Event{Kind: event.Started, Total: rev.Size})
	if err := w.Begin(rev.Base, base, rev.Block); err != nil {
		return rev, err
	}
	if err := put(ctx, w, in, o.Events); err != nil {
		return rev, err
	}
	if err := parseLast(in.Last(), &rev); err != nil {
		return rev, fmt.Errorf("the stream's last entry: %w", err)
	}
	if err := takeNote(o.Repo, o.Job.Name, &rev); err != nil {
		return rev, err
	}
	if rev, err = w.Commit(ctx, rev, o.Tags, o.Log); err != nil {
		return rev, err
	}
	o.Events.Emit(event.Event{Kind: event.Committed, Revision: rev.ID, Tags: rev.State.Tags, Duration: rev.Info().Duration,
		Total: rev.Size, Read: rev.ReadBytes, Changed: rev.Changed, Stored: rev.Stored})
	if rev.State.Trust == repo.Distrusted {
		o.Events.Emit(event.Event{Kind: event.Distrusted, Revision: rev.ID, Tags: rev.State.Tags, Message: rev.State.Reason()})
	}
	return rev, nil
}

// put stores the objects, and compares their number with what the last entry says.
func put(ctx context.Context, w *repo.Writer, in *object.StreamReader, events *event.Writer) error {
	var objects int64
	for {
		key, frame, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := w.Put(ctx, key, frame); err != nil {
			return err
		}
		objects++
		events.Emit(event.Event{Kind: event.Progress, Stored: w.Stored()})
	}
	if want, err := in.Last().Int("objects"); err != nil || want != objects {
		return fmt.Errorf("the stream had %d objects, and says it had %d; nothing is committed", objects, want)
	}
	return nil
}

// parseFirst reads what a stream says before its objects: the revision to be, and the root of its base.
func parseFirst(p keyval.Pairs) (rev repo.Revision, base object.Name, err error) {
	if f := p.Get("format"); f != "1" {
		return rev, base, fmt.Errorf("format %q is not known to this version of backy", f)
	}
	rev = repo.Revision{ID: p.Get("id"), Base: p.Get("base"), Source: p.Get("source"), Host: p.Get("host"), Snapshot: p.Get("snapshot"), Read: repo.ReadForeign}
	if err := repo.CheckID(rev.ID); err != nil {
		return rev, base, err
	}
	if rev.Base != "" {
		if err := repo.CheckID(rev.Base); err != nil {
			return rev, base, fmt.Errorf("base: %w", err)
		}
		if base, err = repo.ParseRoot(p.Get("base-root")); err != nil {
			return rev, base, fmt.Errorf("base: %w", err)
		}
	}
	if rev.Block, err = p.Int("block"); err != nil {
		return rev, base, err
	}
	if err := repo.CheckBlock(rev.Block); err != nil {
		return rev, base, err
	}
	if rev.Size, err = p.Int("size"); err != nil {
		return rev, base, err
	}
	if err := repo.CheckSize(rev.Size); err != nil {
		return rev, base, err
	}
	if rev.Time, err = time.Parse(time.RFC3339Nano, p.Get("start")); err != nil {
		return rev, base, fmt.Errorf("start: %q is no time", p.Get("start"))
	}
	if p.Has("read") { // of an exported revision
		rev.Read, rev.State.Trust, rev.State.Why = p.Get("read"), p.Get("trust"), p.Get("why")
		if rev.ReadBytes, err = p.Int("read-bytes"); err != nil {
			return rev, base, err
		}
		if t := rev.State.Trust; t != "" && t != repo.Distrusted {
			return rev, base, fmt.Errorf("trust: %q is not known to this version of backy", t)
		}
		var ms int64
		if ms, err = p.Int("duration-ms"); err != nil || ms > math.MaxInt64/int64(time.Millisecond) {
			return rev, base, fmt.Errorf("duration-ms: %q is no time that a backup takes", p.Get("duration-ms"))
		}
		rev.Duration = time.Duration(ms) * time.Millisecond
	}
	for _, tag := range p.List("tags") {
		if err := repo.CheckTag(tag); err != nil {
			return rev, base, err
		}
	}
	return rev, base, nil
}

func parseLast(p keyval.Pairs, rev *repo.Revision) (err error) {
	if rev.Root, err = repo.ParseRoot(p.Get("root")); err != nil {
		return err
	}
	rev.Changed, err = p.Int("changed")
	return err
}

// takeNote takes over what backy-read noted of the read and the stream cannot carry.
func takeNote(r *repo.Repo, job string, rev *repo.Revision) error {
	n, err := r.ReadNote(rev.ID)
	if errors.Is(err, fs.ErrNotExist) || err == nil && n.Job != job {
		return nil
	}
	if err != nil {
		return err
	}
	rev.Source, rev.Host, rev.Snapshot, rev.Time = n.Source, n.Host, n.Snapshot, n.Start
	if n.Mode == "" {
		return fmt.Errorf("the read %s was noted, but not that it came to its end; nothing is committed", n.ID)
	}
	if n.Temporary {
		rev.Snapshot = "" // it is about to go
	}
	rev.Read, rev.ReadBytes, rev.Cursor = n.Mode, n.Bytes, n.Cursor
	return nil
}

// Package read turns a disk into a stream of extents: all of it, what differs from a base, or what a change map names.
package read

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/disk"
	"backy/pkg/event"
	"backy/pkg/extent"
	"backy/pkg/freeze"
	"backy/pkg/repo"
)

// DefaultCheck is how many blocks are read to check a map.
const DefaultCheck = 32

// Options say what is to be done.
type Options struct {
	Out     io.Writer // the stream of extents
	Disk    disk.Disk // the source, or
	Stream  io.Reader // all of its bytes, in order: Size of them
	Size    int64
	Source  string     // what the source is called
	Repo    *repo.Repo // nil: nothing is noted, and there is no base
	Job     string     // needed with Repo
	Base    string     // the revision to build on; "last" is the newest that is fit, if any; "" is none
	Map     io.Reader  // a change map for that base, or nil
	Alloc   io.Reader  // an allocation map, or nil
	Full    bool       // read everything, and build on nothing; a snapshot that is made for it does not stay
	Compare bool       // read everything and compare it with the base, also where the disk knows what changed

	Freeze  freeze.Freezer // around the making of a snapshot; nil: it is just made
	Block   int64          // bytes; 0 is the base's or the repository's
	NoHoles bool           // read holes too
	Rate    int64          // bytes a second at most; 0 is no limit
	Check   int            // blocks that are read to check a map; 0 is none
	Now     func() time.Time
	Random  func(n int64) int64 // below n; nil is a good one
	Log     *slog.Logger
	Events  *event.Writer
}

// Run reads the disk and writes the stream, and writes its end only when all was read that had to be. With a repository,
// a disk that snapshots can be made of is read from one of its own: it is noted, then made, and stays until its revision is
// superseded, for the next read to ask what has changed since. Where Run fails, it is removed.
func Run(ctx context.Context, o Options) error {
	if o.Random == nil {
		o.Random = rand.Int64N
	}
	s := &stage{Options: o, id: repo.NewID(), start: o.Now()}
	defer s.close()
	err := s.run(ctx)
	if err != nil {
		s.unsnap(ctx)
	}
	return err
}

// stage is one run.
type stage struct {
	Options
	id       string
	start    time.Time
	host     string
	block    int64 // bytes
	job      *repo.Job
	base     *repo.Revision // nil: what is not read is zero
	cursor   *blockmap.Cursor
	sessions []*repo.Session // the first is the one that is noted
	marks    repo.Marks
	image    disk.Snapshotter // of which Disk is a snapshot of our own, once that is made; nil: none is to be made
	snap     disk.Disk        // that snapshot
	asked    bool             // for it to be made
	made     bool             // and it is there
	others   bool             // somebody else was asked for it, too
	refused  bool             // it was not made, and never will be
	change   extent.Map       // by --map, or by the disk itself
	alloc    extent.Map       // by --alloc
	doubt    *disk.DoubtError // about the change map; nil is none
	mode     string           // full, compare, map
	next     int64            // where the next map check goes on, a block
	before   disk.State
	pool     *pool
}

func (s *stage) run(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	s.host, _ = os.Hostname()
	if err := s.findBase(); err != nil {
		return err
	}
	if err := s.parseMaps(); err != nil {
		return err
	}
	if err := s.sweep(ctx); err != nil {
		return err
	}
	if err := s.note(""); err != nil {
		return err
	}
	if err := s.snapshot(ctx); err != nil {
		return err
	}
	if err := s.askDisk(ctx); err != nil {
		return err
	}
	if d, ok := s.Disk.(disk.Stater); ok {
		var err error
		if s.before, err = d.Stat(); err != nil {
			return err
		}
	}
	s.pool = newPool(s)
	s.Events.About(s.Job, s.id)
	s.Events.Emit(event.Event{Kind: event.Started, Total: s.Size})
	if err := s.checkMap(ctx); err != nil {
		return err
	}
	h := extent.Header{To: repo.SnapshotName(s.id), Size: s.Size}
	if s.base != nil {
		h.From = repo.SnapshotName(s.base.ID)
	}
	out, err := extent.NewWriter(s.Out, h)
	if err != nil {
		return err
	}
	if err := s.copy(ctx, out); err != nil {
		return err
	}
	if err := s.still(); err != nil {
		return err
	}
	if err := s.note(s.mode); err != nil {
		return err
	}
	return out.Close()
}

// check refuses what does not go together.
func (s *stage) check() error {
	if s.Disk != nil {
		s.Size = s.Disk.Size()
	}
	if err := repo.CheckSize(s.Size); err != nil {
		return fmt.Errorf("%s: %w", s.Source, err)
	}
	switch d, snapshots := s.Disk.(disk.Snapshotter); {
	case s.Map != nil && (s.Full || s.Compare):
		return errors.New("a change map saves reading what it leaves out, and everything is to be read: leave one of them away")
	case s.Full && s.Compare:
		return errors.New("a read is either full, and compared with nothing, or compared")
	case !snapshots || fixed(s.Disk):
	case s.Repo == nil:
		s.Log.Warn("the image is read as it is, while it may be written to: name a snapshot, or a job with -b, for a backup of one moment", "source", s.Source)
	case s.Map != nil || s.Alloc != nil:
		return fmt.Errorf("%s is read from a snapshot that is made now, and a map tells of another one: name that, as in %s@SNAPSHOT", s.Source, s.Source)
	default:
		s.image = d
	}
	if s.Freeze != nil && s.image == nil {
		return fmt.Errorf("nothing can be frozen for %s: no snapshot is made of it", s.Source)
	}
	return nil
}

// findBase finds the revision to build on and opens a session on it.
func (s *stage) findBase() (err error) {
	s.mode = repo.ReadFull
	s.block = s.Block
	if s.Repo == nil {
		if s.Base != "" {
			return errors.New("--base names a revision, so the job that has it is needed: -b DIR")
		}
		return s.blockSize(repo.DefaultBlock)
	}
	if s.job, err = s.Repo.Job(s.Job); err != nil {
		return err
	}
	if s.marks, err = s.Repo.Marks(); err != nil {
		return err
	}
	if s.Base == "" {
		return s.visit(s.Repo.BlockSize)
	}
	base, err := s.job.Base(s.Base)
	last := s.last()
	switch {
	case last && errors.Is(err, repo.ErrNoRevision):
		s.Log.Info("there is no revision to build on; everything is read", "job", s.Job)
		return s.visit(s.Repo.BlockSize)
	case err != nil:
		return fmt.Errorf("find the base: %w", err)
	case s.Block != 0 && s.Block != base.Block && last:
		s.Log.Info("the last revision has blocks of another size; everything is read", "revision", base.ID, "block", base.Block)
		return s.visit(s.Block)
	case s.Block != 0 && s.Block != base.Block:
		return fmt.Errorf("the base has blocks of %d bytes, so --block %d cannot be had with it", base.Block, s.Block)
	case s.Full:
		return s.visit(base.Block)
	}
	return s.buildOn(base)
}

// buildOn opens a session on a base, and takes that for what the disk is compared with.
func (s *stage) buildOn(base repo.Revision) error {
	session, unregistered, err := s.Repo.Read(base)
	if err == nil {
		err = unregistered // the read has to be noted, so there is no going on without
	}
	if err != nil {
		return err
	}
	pages, err := blockmap.NewPages(s.Repo.Objects())
	if err != nil {
		return err
	}
	s.base, s.sessions, s.next = &base, append(s.sessions, session), base.Cursor
	s.cursor = blockmap.NewCursor(pages, base.Map())
	s.mode = repo.ReadCompare
	return s.blockSize(base.Block)
}

// visit opens a session without a base. block is the block size if none was asked for.
func (s *stage) visit(block int64) error {
	session, unregistered, err := s.Repo.Visit()
	if err == nil {
		err = unregistered
	}
	if err != nil {
		return err
	}
	s.sessions = append(s.sessions, session)
	return s.blockSize(block)
}

func (s *stage) blockSize(otherwise int64) error {
	if s.block == 0 || s.base != nil {
		s.block = otherwise
	}
	return repo.CheckBlock(s.block)
}

func (s *stage) parseMaps() (err error) {
	if s.Alloc != nil {
		if s.alloc, err = extent.ParseMap(s.Alloc, extent.Allocation, s.Size); err != nil {
			return fmt.Errorf("the %w", err)
		}
	}
	if s.Map == nil {
		return nil
	}
	if s.Stream != nil {
		return errors.New("a stream has to be read as a whole; a change map is of no use with it")
	}
	if s.Base == "" {
		return errors.New("a change map says what differs from a base: name it with --base")
	}
	if s.change, err = extent.ParseMap(s.Map, extent.Change, s.Size); err != nil {
		return fmt.Errorf("the %w", err)
	}
	if s.base == nil { // everything is read
		return nil
	}
	fits, err := s.mapFits()
	if fits {
		s.mode = repo.ReadMap
	}
	return err
}

// last reports whether the base is to be the newest revision that is fit for it.
func (s *stage) last() bool { return s.Base == "last" || s.Base == "latest" }

// mapFits reports whether the change map can be about the base. Where its id was not given, the map is about the newest, or
// about one that cannot be read: if that is no base, what changed between the two would be lost.
func (s *stage) mapFits() (bool, error) {
	list, broken, err := s.job.List()
	if err != nil {
		return false, err
	}
	newest := ""
	switch n := len(list); {
	case s.Base == s.base.ID:
		return true, nil
	case len(broken) > 0: // nobody knows how old it is, or what tags it has
		newest = broken[0].Path
	case !s.last():
		return true, nil
	case n > 0:
		newest = list[n-1].ID
	}
	if newest == s.base.ID {
		return true, nil
	}
	s.Log.Warn("the change map may tell what changed since a revision that is no base; everything is read and compared, unless --base names the one that it is about by its id", "newest", newest, "base", s.base.ID)
	return false, nil
}

// note tells the repository of the read: at its start, and with the mode at its end.
func (s *stage) note(mode string) error {
	if s.job == nil {
		return nil
	}
	n := repo.ReadNote{ID: s.id, Job: s.Job, Session: s.sessions[0].ID, Source: s.Source, Host: s.host, Start: s.start, Mode: mode}
	if s.image != nil {
		n.Snapshot, n.Temporary = repo.SnapshotName(s.id), s.Full
	}
	if mode != "" {
		n.Bytes, n.Cursor = s.pool.bytes.Load(), s.next
		if s.image != nil {
			n.Made = s.before.Modified
		}
	}
	return s.Repo.NoteRead(n)
}

// still looks whether the source is as large as it was.
func (s *stage) still() error {
	d, ok := s.Disk.(disk.Stater)
	if !ok {
		return nil
	}
	now, err := d.Stat()
	if err != nil {
		return err
	}
	if now.Size < s.Size {
		return fmt.Errorf("%s: %w: from %d to %d bytes", s.Source, disk.ErrShrunk, s.Size, now.Size)
	}
	if now.Size > s.Size {
		s.Log.Warn("the source grew while it was read; what came after its size at the start is not in the backup", "source", s.Source, "size", s.Size, "now", now.Size)
	}
	return nil
}

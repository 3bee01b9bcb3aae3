// Package chunk turns a stream of extents into a stream of objects: it cuts the disk into blocks, names each by its hash,
// compresses what the repository does not have, and edits the base's block map.
package chunk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/event"
	"backy/pkg/extent"
	"backy/pkg/keyval"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

// DefaultMemory is what blocks on their way may take, in bytes.
const DefaultMemory = 64 << 20

// Options say what is to be done.
type Options struct {
	In     io.Reader  // the stream of extents
	Out    io.Writer  // the stream of objects
	Repo   *repo.Repo // what it has is not sent; nil: everything is
	Job    string     // needed with Repo
	Base   string     // the operator's word for which revision the stream builds on; "": the stream's own
	Block  int64      // bytes; 0 is the base's or the repository's
	Memory int64      // for blocks on their way, bytes; 0 is DefaultMemory
	Now    func() time.Time
	Log    *slog.Logger
	Events *event.Writer
}

// Run reads the stream of extents to its end and writes that of objects. If it fails, it leaves the objects without their
// end, so that nothing can come of them.
func Run(ctx context.Context, o Options) error {
	start := o.Now()
	in, err := extent.NewReader(o.In)
	if err != nil {
		return err
	}
	s := &stage{Options: o, in: in, size: in.Header().Size, memory: o.Memory}
	if s.memory == 0 {
		s.memory = DefaultMemory
	}
	if err := s.describe(start); err != nil {
		return err
	}
	defer s.session.Close()
	s.Events.About(s.Job, s.first.Get("id"))
	s.Events.Emit(event.Event{Kind: event.Started, Total: s.size})
	return s.run(ctx)
}

// stage is one run.
type stage struct {
	Options
	in      *extent.Reader
	size    int64 // of the disk, bytes
	block   int64 // bytes
	memory  int64
	first   keyval.Pairs // entry of the stream of objects
	job     *repo.Job
	base    *repo.Revision // nil: what the stream does not mention is zero
	noted   bool           // the stream is one of backy-read's, which can be run again
	session *repo.Session
	look    *lookup
	damage  damage
	sent    int64 // objects
}

// describe finds out what the stream leads to and what it builds on, and opens a session on that.
func (s *stage) describe(start time.Time) error {
	h := s.in.Header()
	if err := repo.CheckSize(h.Size); err != nil {
		return err
	}
	id, ours := repo.SnapshotID(h.To)
	snapshot, source := "", ""
	if !ours {
		id, snapshot = repo.NewID(), h.To
	}
	host, _ := os.Hostname()
	if s.Repo != nil {
		var err error
		if s.job, err = s.Repo.Job(s.Job); err != nil {
			return err
		}
		note, err := s.Repo.ReadNote(id)
		switch s.noted = err == nil && note.Job == s.Job; {
		case s.noted:
			source, host, start, snapshot = note.Source, note.Host, note.Start, note.Snapshot
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if err := s.findBase(h.From); err != nil {
		return err
	}
	if err := s.blockSize(); err != nil {
		return err
	}
	s.first.SetInt("format", 1)
	s.first.Set("id", id)
	s.first.SetInt("block", s.block)
	if s.base != nil {
		s.first.Set("base", s.base.ID)
		s.first.Set("base-root", repo.FormatRoot(s.base.Root))
	}
	s.first.SetInt("size", s.size)
	s.first.Set("snapshot", snapshot)
	s.first.Set("source", source)
	s.first.Set("host", host)
	s.first.Set("boot-id", BootID())
	s.first.Set("start", start.UTC().Format(time.RFC3339Nano))
	return nil
}

// BootID tells this host, as it runs now, from any other; "" where it cannot be told.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// findBase is strict: a stream's base is named, never guessed.
func (s *stage) findBase(from string) error {
	switch {
	case from == "" && s.Base != "":
		return errors.New("the stream holds the whole disk and builds on nothing; leave --base away")
	case from == "":
		return nil
	case s.job == nil:
		return fmt.Errorf("the stream builds on %s, so the job that has it is needed: -b DIR", from)
	}
	named, ours := repo.SnapshotID(from)
	var base repo.Revision
	var err error
	switch {
	case s.Base != "":
		base, err = s.job.Find(s.Base)
		if err == nil && ours && named != base.ID {
			err = fmt.Errorf("the stream builds on %s, which is not %s; leave --base away", from, base.ID)
		}
		if err == nil && !ours {
			err = s.unmistakable(base)
		}
	case !ours:
		err = fmt.Errorf("the stream builds on snapshot %q, which is none of backy's; if you know which revision was made from it, say so with --base", from)
	default:
		base, err = s.job.Get(named)
		if errors.Is(err, repo.ErrNoRevision) && s.noted {
			return &repo.AgainError{Err: fmt.Errorf("the base %s was forgotten meanwhile", named)}
		}
	}
	if err != nil {
		return fmt.Errorf("find the base: %w", err)
	}
	if !base.FitBase() {
		return fmt.Errorf("revision %s is no base: it is distrusted, or its state is not known; read the disk whole", base.ID)
	}
	s.base = &base
	session, unregistered, err := s.Repo.Read(base)
	if err != nil {
		return err
	}
	if unregistered != nil {
		s.Log.Warn("no session could be registered; a purge beside this may end it", "reason", unregistered)
	}
	s.session = session
	return nil
}

// unmistakable makes sure that the base is the one that the operator means: it may be one that cannot be read, and what
// changed between the two is not in the stream.
func (s *stage) unmistakable(base repo.Revision) error {
	_, broken, err := s.job.List()
	if err == nil && len(broken) > 0 && s.Base != base.ID {
		err = fmt.Errorf("--base %s may mean a revision that cannot be read, %[3]s, and not %[2]s; name the one by its id", s.Base, base.ID, broken[0].Path)
	}
	return err
}

func (s *stage) blockSize() error {
	switch s.block = s.Block; {
	case s.base != nil && s.block != 0 && s.block != s.base.Block:
		return fmt.Errorf("the base has blocks of %d bytes, so --block %d cannot be had; read the disk whole", s.base.Block, s.block)
	case s.base != nil:
		s.block = s.base.Block
	case s.block == 0 && s.Repo != nil:
		s.block = s.Repo.BlockSize
	case s.block == 0:
		s.block = repo.DefaultBlock
	}
	return repo.CheckBlock(s.block)
}

func (s *stage) run(ctx context.Context) error {
	var err error
	if s.look, err = newLookup(s.Repo, s.job); err != nil {
		return err
	}
	out, err := object.NewStreamWriter(s.Out, s.first)
	if err != nil {
		return err
	}
	base := blockmap.Map{BlockSize: s.block}
	if s.base != nil {
		base = s.base.Map()
	}
	ahead, err := s.cursor(base) // one for the feed, one for the editor: they are not at the same place
	if err != nil {
		return err
	}
	behind, err := s.cursor(base)
	if err != nil {
		return err
	}
	pages, err := object.NewEncoder()
	if err != nil {
		return err
	}
	edit := blockmap.NewEditor(behind, s.size, func(name object.Name, text []byte) error {
		key := object.Key{Kind: object.Page, Name: name}
		if there, err := s.look.has(ctx, key, 0); err != nil || there {
			return err
		}
		frame, err := pages.Encode(nil, text)
		if err != nil {
			return err
		}
		s.sent++
		return out.Put(key, frame)
	})

	edit.Lost = func(page *blockmap.PageError, complete bool) error {
		key := object.Key{Kind: object.Page, Name: page.Name}
		if complete && s.look.marks[key] {
			return nil // that is how it heals
		}
		return s.lost(key, page)
	}

	perItem := s.block + int64(object.MaxFrame(int(s.block)))
	n := max(2, int(s.memory/perItem))
	workers := min(runtime.GOMAXPROCS(0), n)
	stock, err := newStock(s, n, workers)
	if err != nil {
		return err
	}
	a := &assembler{stage: s, stock: stock, base: ahead}
	err = parallel.Ordered(ctx, workers, n, a.feed, stock.work, func(b *piece) error {
		defer stock.put(b)
		return s.emit(ctx, edit, out, b)
	})
	if err != nil {
		return err
	}
	root, err := edit.Finish(ctx)
	if err == nil {
		err = s.damaged()
	}
	if err != nil {
		return err
	}
	var last keyval.Pairs
	last.Set("root", repo.FormatRoot(root))
	last.SetInt("changed", min(s.size, edit.Changed()*s.block))
	last.SetInt("objects", s.sent)
	return out.Close(last)
}

func (s *stage) cursor(m blockmap.Map) (*blockmap.Cursor, error) {
	if s.base == nil {
		return blockmap.NewCursor(nil, m), nil
	}
	pages, err := blockmap.NewPages(s.Repo.Objects())
	return blockmap.NewCursor(pages, m), err
}

// emit puts a piece into the map and the stream, from the disk's first block to its last.
func (s *stage) emit(ctx context.Context, edit *blockmap.Editor, out *object.StreamWriter, b *piece) error {
	if b.run > 0 {
		return edit.Zero(ctx, b.block, b.block+b.run)
	}
	if err := edit.Set(ctx, b.block, b.name); err != nil {
		return err
	}
	if key := (object.Key{Kind: object.Chunk, Name: b.name}); b.send && s.look.first(key, b.block) {
		s.sent++
		if err := out.Put(key, b.frame); err != nil {
			return err
		}
	}
	s.Events.Emit(event.Event{Kind: event.Progress, Done: b.block * s.block, Total: s.size, Changed: edit.Changed() * s.block})
	return nil
}

// Package repotest is for tests of who works with a repository: a fresh one with a job, streams of objects that are
// taken apart and committed, and a disk in memory to compare with what comes back.
package repotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/keyval"
	"backy/pkg/object"
	"backy/pkg/repo"
)

// Block is the block size of the repositories here, the smallest there is, in bytes.
const Block = repo.MinBlock

// Quiet is a log that nobody reads.
var Quiet = slog.New(slog.DiscardHandler)

// Clock returns a clock that goes on by a second whenever somebody looks at it.
func Clock() func() time.Time {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

// Fixture is a repository with one job.
type Fixture struct {
	*repo.Repo
	Job *repo.Job
	t   testing.TB
}

// New makes a repository that goes away with the test, with a job vm1 that has no revisions yet.
func New(t testing.TB) *Fixture {
	t.Helper()
	r, err := repo.Init(t.TempDir(), Block, repo.World{Now: Clock()})
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.Job("vm1")
	if err != nil {
		t.Fatal(err)
	}
	return &Fixture{r, j, t}
}

// Object is one of a stream's.
type Object struct {
	Key     object.Key
	Frame   []byte
	Content []byte
}

// Stream is a stream of objects, taken apart.
type Stream struct {
	First, Last keyval.Pairs
	Objects     []Object
}

// Parse takes a stream of objects apart. It fails where the stream is not whole, or an object is not what its name says.
func Parse(stream []byte) (*Stream, error) {
	in, err := object.NewStreamReader(bytes.NewReader(stream), repo.FrameLimit)
	if err != nil {
		return nil, err
	}
	s := &Stream{First: in.First()}
	dec, err := object.NewDecoder(repo.MaxBlock)
	if err != nil {
		return nil, err
	}
	for {
		key, frame, err := in.Next()
		if errors.Is(err, io.EOF) {
			s.Last = in.Last()
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := dec.Decode(key, nil, frame)
		if err != nil {
			return nil, err
		}
		s.Objects = append(s.Objects, Object{key, bytes.Clone(frame), content})
	}
}

// Count is how many objects of a kind there are.
func (s *Stream) Count(kind object.Kind) (n int) {
	for _, o := range s.Objects {
		if o.Key.Kind == kind {
			n++
		}
	}
	return n
}

// Ordered fails unless each page of the stream comes after all that it names and that comes in the stream, and no object
// comes twice.
func (s *Stream) Ordered() error {
	at := map[object.Name]int{}
	for i, o := range s.Objects {
		if _, twice := at[o.Key.Name]; twice {
			return fmt.Errorf("%s comes twice", o.Key)
		}
		at[o.Key.Name] = i
	}
	for i, o := range s.Objects {
		if o.Key.Kind != object.Page {
			continue
		}
		lines, err := blockmap.ParsePage(o.Content)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Key, err)
		}
		for _, name := range lines {
			if j, sent := at[name]; sent && j > i {
				return fmt.Errorf("%s is object %d and names object %d", o.Key, i, j)
			}
		}
	}
	return nil
}

// Commit stores a stream as the writer would, by pkg/repo alone.
func (f *Fixture) Commit(stream []byte) (repo.Revision, error) {
	s, err := Parse(stream)
	if err != nil {
		return repo.Revision{}, err
	}
	w, err := f.Job.NewWriter(repo.WriterOptions{})
	if err != nil {
		return repo.Revision{}, err
	}
	defer w.Close()
	rev := repo.Revision{ID: s.First.Get("id"), Base: s.First.Get("base"), Snapshot: s.First.Get("snapshot"), Source: s.First.Get("source"), Read: repo.ReadForeign}
	var root object.Name
	if rev.Base != "" {
		root, err = repo.ParseRoot(s.First.Get("base-root"))
	}
	for key, to := range map[string]*int64{"block": &rev.Block, "size": &rev.Size} {
		if err == nil {
			*to, err = s.First.Int(key)
		}
	}
	if err == nil {
		err = w.Begin(rev.Base, root, rev.Block)
	}
	for _, o := range s.Objects {
		if err == nil {
			err = w.Put(context.Background(), o.Key, o.Frame)
		}
	}
	if err == nil {
		rev.Root, err = repo.ParseRoot(s.Last.Get("root"))
	}
	if err == nil {
		rev.Changed, err = s.Last.Int("changed")
	}
	if err == nil {
		rev.Time, err = time.Parse(time.RFC3339Nano, s.First.Get("start"))
	}
	if err != nil {
		return rev, err
	}
	if n, err := f.ReadNote(rev.ID); err == nil {
		rev.Read, rev.ReadBytes, rev.Cursor = n.Mode, n.Bytes, n.Cursor
	}
	return w.Commit(context.Background(), rev, nil, Quiet)
}

// Content reads a revision's disk, each block checked against its name.
func (f *Fixture) Content(rev repo.Revision) (*Disk, error) {
	pages, err := blockmap.NewPages(f.Objects())
	if err != nil {
		return nil, err
	}
	dec, err := object.NewDecoder(int(rev.Block))
	if err != nil {
		return nil, err
	}
	d := NewDisk(rev.Size)
	err = blockmap.Walk(context.Background(), pages, rev.Map(), blockmap.Visitor{Block: func(block int64, _, name object.Name) error {
		content, _, err := object.Fetch(context.Background(), f.Objects(), dec, object.Key{Kind: object.Chunk, Name: name}, nil, nil)
		if err != nil {
			return err
		}
		if int64(len(content)) != rev.Block {
			return fmt.Errorf("block %d has %d bytes", block, len(content))
		}
		limit := min(rev.Block, rev.Size-block*rev.Block)
		if len(bytes.Trim(content[limit:], "\x00")) > 0 {
			return fmt.Errorf("the last block is not padded with zeroes")
		}
		d.WriteAt(content[:limit], block*rev.Block)
		return nil
	}})
	return d, err
}

// Want fails the test unless the revision's disk is this one.
func (f *Fixture) Want(rev repo.Revision, want *Disk) {
	f.t.Helper()
	got, err := f.Content(rev)
	if err != nil {
		f.t.Fatalf("revision %s: %v", rev.ID, err)
	}
	if diff := got.Diff(want); diff != "" {
		f.t.Fatalf("revision %s: %s", rev.ID, diff)
	}
}

// Chunks and Pages are the names of what a revision reaches, each once, in the order of the disk.
func (f *Fixture) Chunks(rev repo.Revision) []object.Key { c, _ := f.reach(rev); return c }

// Pages is like Chunks; a page comes before those below it.
func (f *Fixture) Pages(rev repo.Revision) []object.Key { _, p := f.reach(rev); return p }

func (f *Fixture) reach(rev repo.Revision) (chunks, pages []object.Key) {
	f.t.Helper()
	p, err := blockmap.NewPages(f.Objects())
	if err != nil {
		f.t.Fatal(err)
	}
	seen := map[object.Key]bool{}
	add := func(list *[]object.Key, key object.Key) {
		if !seen[key] {
			seen[key] = true
			*list = append(*list, key)
		}
	}
	if err := blockmap.Walk(context.Background(), p, rev.Map(), blockmap.Visitor{
		Page: func(_ int, name object.Name) (bool, error) {
			add(&pages, object.Key{Kind: object.Page, Name: name})
			return true, nil
		},
		Block: func(_ int64, _, name object.Name) error {
			add(&chunks, object.Key{Kind: object.Chunk, Name: name})
			return nil
		},
	}); err != nil {
		f.t.Fatal(err)
	}
	return chunks, pages
}

// Spoil does harm to an object in place: flips a bit, or removes it.
func (f *Fixture) Spoil(key object.Key, remove bool) {
	f.t.Helper()
	path := f.Objects().Path(key)
	if remove {
		if err := os.Remove(path); err != nil {
			f.t.Fatal(err)
		}
		return
	}
	frame, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	frame[len(frame)/2] ^= 0x10
	if err := os.WriteFile(path, frame, 0o640); err != nil {
		f.t.Fatal(err)
	}
}

// Backup stores a disk as a revision, block by block, as simply as can be.
func (f *Fixture) Backup(d *Disk) repo.Revision {
	f.t.Helper()
	must := func(err error) {
		f.t.Helper()
		if err != nil {
			f.t.Fatal(err)
		}
	}
	ctx := context.Background()
	w, err := f.Job.NewWriter(repo.WriterOptions{})
	must(err)
	defer w.Close()
	must(w.Begin("", object.Name{}, Block))
	enc, err := object.NewEncoder()
	must(err)
	put := func(kind object.Kind, content []byte) (object.Name, error) {
		name := object.Sum(content)
		frame, err := enc.Encode(nil, content)
		return name, errors.Join(err, w.Put(ctx, object.Key{Kind: kind, Name: name}, frame))
	}
	edit := blockmap.NewEditor(blockmap.NewCursor(nil, blockmap.Map{BlockSize: Block}), d.Size(), func(_ object.Name, text []byte) error {
		_, err := put(object.Page, text)
		return err
	})
	content := make([]byte, Block)
	for off := int64(0); ; {
		start, _, err := d.NextData(off)
		if err != nil {
			break
		}
		block := start / Block
		clear(content)
		d.ReadAt(content, block*Block)
		if off = (block + 1) * Block; len(bytes.Trim(content, "\x00")) == 0 {
			continue
		}
		name, err := put(object.Chunk, content)
		must(err)
		must(edit.Set(ctx, block, name))
	}
	root, err := edit.Finish(ctx)
	must(err)
	rev, err := w.Commit(ctx, repo.Revision{ID: repo.NewID(), Time: f.Now(), Size: d.Size(), Block: Block, Root: root, Read: repo.ReadFull}, nil, Quiet)
	must(err)
	return rev
}

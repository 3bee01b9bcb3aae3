package read_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/disk/file"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// Whatever was done to the disk, and however it is read, the stream makes the disk of its base; without a map, it holds
// nothing that is in the base already.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for round := range 16 {
		f := repotest.New(t)
		old := filled(uint64(round), 1+r.Int64N(7*block))
		old.Mutate(r)
		base := f.Backup(old)
		s := newSource(t, old.Clone())
		var touched []extent.Extent
		if r.IntN(2) == 0 {
			size := 1 + r.Int64N(9*block)
			if r.IntN(3) == 0 {
				size = max(1, s.Size()+r.Int64N(2001)-1000)
			}
			if size > old.Size() && r.IntN(2) == 0 { // grows, and is then written to behind the old end
				touched = append(touched, data(old.Size(), size-old.Size()))
				s.Resize(size)
				s.WriteAt(repotest.Noise(r, size-old.Size()), old.Size())
			}
			s.Resize(size)
		}
		touched = append(touched, s.Mutate(r)...)
		s.write(t)
		noHoles := r.IntN(2) == 0

		got, err := run(t, f, s, read.Options{Base: "last", NoHoles: noHoles})
		must(t, err)
		got.want(t, old, s)
		if got.note.Mode != repo.ReadCompare || got.header.From != repo.SnapshotName(base.ID) || noHoles && got.note.Bytes != s.Size() {
			t.Errorf("%+v, %+v", got.header, got.note)
		}
		was := old.Clone()
		was.Resize(s.Size())
		for _, e := range got.list {
			a, b := make([]byte, e.Length), make([]byte, e.Length)
			was.ReadAt(a, e.Offset)
			s.ReadAt(b, e.Offset)
			if cut := base.Size%block > 0 || s.Size()%block > 0; bytes.Equal(a, b) && !cut {
				t.Errorf("round %d: %+v is as it was", round, e)
			}
		}

		got, err = run(t, f, s, read.Options{Base: base.ID, Map: rbd(s.ChangeMap(r, touched)...), Check: 3, NoHoles: noHoles})
		must(t, err)
		got.want(t, old, s)
		if got.note.Mode != repo.ReadMap {
			t.Errorf("round %d: the map was not trusted: %+v", round, got.note)
		}

		got, err = run(t, f, s, read.Options{NoHoles: noHoles})
		must(t, err)
		got.want(t, nil, s)
		if got.note.Mode != repo.ReadFull || got.header.From != "" {
			t.Errorf("%+v, %+v", got.header, got.note)
		}

		for _, o := range []read.Options{{}, {Base: "last"}, {Base: "last", Map: rbd(s.ChangeMap(r, touched)...)}} {
			o.Alloc, o.Check = rbd(s.AllocationMap()...), 5
			got, err = run(t, f, s, o)
			must(t, err)
			if o.Base == "" {
				got.want(t, nil, s)
			} else {
				got.want(t, old, s)
			}
			if want := map[bool]string{true: repo.ReadMap, false: repo.ReadCompare}[o.Map != nil]; o.Base != "" && got.note.Mode != want {
				t.Errorf("round %d: the maps were not trusted: %+v", round, got.note)
			}
		}

		got, err = run(t, f, s, read.Options{Base: "last", Stream: readerOf(s), Size: s.Size()})
		must(t, err)
		got.want(t, old, s)
	}
}

func readerOf(s *source) io.Reader { return io.NewSectionReader(s.Disk, 0, s.Size()) }

// Where base and disk end to be alike, a hole is zero now, also by a map: the block in which the smaller one ends.
func TestHoleWhereTheSmallerEnds(t *testing.T) {
	for name, sizes := range map[string][2]int64{"grew": {block + 1000, 3 * block}, "shrank": {3 * block, block + 1000}, "grew in its block": {block + 1000, block + 2000}} {
		for how, o := range map[string]read.Options{
			"by holes":             {},
			"by an allocation map": {Alloc: rbd(data(0, block))},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				f := repotest.New(t)
				old := filled(1, sizes[0])
				f.Backup(old)
				now := old.Clone()
				now.Resize(sizes[1])
				now.Punch(block, 2*block)
				s := newSource(t, now)
				o.Base, o.Map, o.Check = "last", rbd(zero(block, sizes[1]-block)), 2
				if a, ok := o.Alloc.(io.Seeker); ok {
					a.Seek(0, io.SeekStart)
				}
				got, err := run(t, f, s, o)
				must(t, err)
				got.want(t, old, s)
			})
		}
	}
}

// The grid of blocks begins at 0 wherever the holes are, a short last block too.
func TestGrid(t *testing.T) {
	d := repotest.NewDisk(10*block + 7)
	d.WriteAt([]byte("x"), 2*block+100<<10)
	d.WriteAt([]byte("y"), 10*block+6)
	d.WriteAt(make([]byte, block), 5*block) // written zeroes
	got, err := run(t, nil, newSource(t, d), read.Options{})
	must(t, err)
	want := []extent.Extent{data(2*block, block), data(10*block, 7)} // what is not mentioned is zero
	if !slices.Equal(got.list, want) {
		t.Errorf("extents %v, want %v", got.list, want)
	}
}

// What a map leaves out is looked at here and there. If it is another, all is read in place of the map.
func TestMapThatLies(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(d *repotest.Disk)
		o      read.Options
		mode   string
	}{
		"a change that is not named": {func(d *repotest.Disk) { d.WriteAt([]byte("new"), 3*block) },
			read.Options{Base: "last", Map: rbd(data(0, 10))}, repo.ReadCompare},
		"a block called zero that is not": {func(d *repotest.Disk) { d.WriteAt([]byte("new"), 3*block) },
			read.Options{Base: "last", Map: rbd(data(0, 10), zero(2*block, 2*block))}, repo.ReadCompare},
		"an empty map": {func(d *repotest.Disk) { d.Punch(2*block, block) },
			read.Options{Base: "last", Map: rbd()}, repo.ReadCompare},
		"data that the allocation map does not name": {func(*repotest.Disk) {},
			read.Options{Alloc: rbd(data(0, 3*block))}, repo.ReadFull},
		"the same, compared with a base": {func(d *repotest.Disk) { d.WriteAt([]byte("new"), 3*block) },
			read.Options{Base: "last", Alloc: rbd(data(0, 3*block))}, repo.ReadCompare},
		"data behind the base's end that the allocation map does not name": {func(d *repotest.Disk) { d.Resize(7 * block); d.WriteAt([]byte("new"), 6*block) },
			read.Options{Base: "last", Map: rbd(data(5*block, 2*block)), Alloc: rbd(data(0, 6*block))}, repo.ReadCompare},
	} {
		t.Run(name, func(t *testing.T) {
			f := repotest.New(t)
			old := filled(1, 5*block)
			f.Backup(old)
			now := old.Clone()
			tt.change(now)
			s := newSource(t, now)
			var said bytes.Buffer
			o := tt.o
			o.Check, o.Log = read.DefaultCheck, slog.New(slog.NewTextHandler(&said, nil))
			got, err := run(t, f, s, o)
			must(t, err)
			base := old
			if o.Base == "" {
				base = nil
			}
			got.want(t, base, s)
			if got.note.Mode != tt.mode || got.note.Bytes < now.Size() || !strings.Contains(said.String(), "the map is wrong") {
				t.Errorf("mode %s, %d bytes read; said %s", got.note.Mode, got.note.Bytes, &said)
			}

			// Without the check it is believed: that is what the check is for.
			for _, r := range []io.Reader{o.Map, o.Alloc} {
				if r != nil {
					r.(io.Seeker).Seek(0, io.SeekStart)
				}
			}
			o.Check = 0
			got, err = run(t, f, s, o)
			must(t, err)
			if got.apply(t, base).Diff(now) == "" {
				t.Error("the map did not lie: this test shows nothing")
			}
		})
	}
}

// The check ends at the first lie, while more blocks are on their way; the backup goes on all the same.
func TestMapThatLiesEverywhere(t *testing.T) {
	f := repotest.New(t)
	f.Backup(filled(1, 40*block))
	s := newSource(t, filled(2, 40*block))
	for range 10 {
		got, err := run(t, f, s, read.Options{Base: "last", Map: rbd(), Check: 40})
		must(t, err)
		if got.note.Mode != repo.ReadCompare || got.sent() != 40 {
			t.Errorf("%+v; %d blocks sent", got.note, got.sent())
		}
	}
}

// The cursor of the map check comes round: after enough backups each block was looked at.
func TestMapCheckComesRound(t *testing.T) {
	f := repotest.New(t)
	old := filled(1, 20*block)
	f.Backup(old)
	s := newSource(t, old)
	seen := map[int64]bool{}
	at := int64(0)
	for range 5 {
		looked := &spy{Disk: old}
		got, err := run(t, f, s, read.Options{Base: "last", Map: rbd(), Check: 8, Disk: looked, Random: func(int64) int64 { return 0 }})
		must(t, err)
		for _, b := range looked.blocks {
			seen[b] = true
		}
		if len(got.list) != 0 || got.note.Mode != repo.ReadMap {
			t.Fatalf("%v, %+v", got.list, got.note)
		}
		at = got.note.Cursor
		// The next backup goes on where the last one's note says.
		rev := repo.Revision{ID: repo.NewID(), Time: f.Now(), Size: old.Size(), Block: block, Read: repo.ReadMap, Cursor: at}
		commit(t, f, rev)
	}
	if len(seen) != 20 || at != 20 {
		t.Errorf("looked at %d of 20 blocks; the cursor is at %d", len(seen), at)
	}
}

// commit stores a revision with the newest one's content.
func commit(t testing.TB, f *repotest.Fixture, rev repo.Revision) {
	t.Helper()
	base, err := f.Job.Base("last")
	must(t, err)
	w, err := f.Job.NewWriter(repo.WriterOptions{})
	must(t, err)
	defer w.Close()
	must(t, w.Begin(base.ID, base.Root, base.Block))
	rev.Root = base.Root
	_, err = w.Commit(ctx, rev, nil, repotest.Quiet)
	must(t, err)
}

// spy is a disk that notes which blocks are read.
type spy struct {
	*repotest.Disk
	mu     sync.Mutex
	blocks []int64
}

func (s *spy) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	s.blocks = append(s.blocks, off/block)
	s.mu.Unlock()
	return s.Disk.ReadAt(p, off)
}

// Blocks whose chunk is marked as bad are read and sent, whatever the map says; so are those below a lost page.
func TestLostInTheBase(t *testing.T) {
	for name, tt := range map[string]struct {
		page bool
		mark bool
		o    read.Options
		sent int
	}{
		"a chunk, compare":          {false, true, read.Options{}, 1},
		"a chunk, by map":           {false, true, read.Options{Map: rbd()}, 1},
		"a page, compare":           {true, true, read.Options{}, 4},
		"a page, by map":            {true, true, read.Options{Map: rbd()}, 4},
		"a page, not known of":      {true, false, read.Options{}, 4},
		"a page, no holes are read": {true, true, read.Options{NoHoles: true}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			f := repotest.New(t)
			old := filled(1, 4*block)
			old.Resize(1030*block - 5) // two pages, and one above
			old.WriteAt([]byte("on the second page"), 1029*block)
			base := f.Backup(old)
			key := f.Chunks(base)[2]
			if tt.page {
				key = f.Pages(base)[1]
			}
			f.Spoil(key, false)
			if tt.mark {
				must(t, f.Mark(key, "test"))
			}
			o := tt.o
			o.Base, o.Check = "last", 20
			if m, ok := o.Map.(io.Seeker); ok {
				m.Seek(0, io.SeekStart)
			}
			s := newSource(t, old)
			got, err := run(t, f, s, o)
			must(t, err)
			if got.sent() != tt.sent {
				t.Errorf("%d blocks sent, want %d", got.sent(), tt.sent)
			}
			// What the base has below the lost page counts for nothing: all of it is in the stream.
			was := old.Clone()
			if tt.page {
				for i := range int64(1024) {
					was.WriteAt([]byte{0xff}, i*block)
				}
			} else {
				was.WriteAt(bytes.Repeat([]byte{0xff}, block), 2*block)
			}
			got.want(t, was, s)
		})
	}
}

// A page that cannot be read just now says nothing about what is below it: that is a failure, not a reason to go on.
func TestPageThatCannotBeRead(t *testing.T) {
	f := repotest.New(t)
	old := filled(1, 3*block)
	base := f.Backup(old)
	path := f.Objects().Path(f.Pages(base)[0])
	must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o750)))
	_, err := run(t, f, newSource(t, old), read.Options{Base: "last"})
	if err == nil || errors.Is(err, object.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A source that fails or shrinks makes the stream one without an end; one that grows is told of.
func TestSourceChanges(t *testing.T) {
	s := newSource(t, filled(1, 5*block))
	during := func(change func() error) (*result, string, error) {
		var said, out bytes.Buffer
		d, err := file.Open(s.path, file.Options{})
		must(t, err)
		defer d.Close()
		_, err = run(t, nil, s, read.Options{Disk: d, Log: slog.New(slog.NewTextHandler(&said, nil)), Out: writerFunc(func(p []byte) (int, error) {
			if change != nil {
				must(t, change())
				change = nil
			}
			return out.Write(p)
		})})
		return &result{stream: out.Bytes()}, said.String(), err
	}
	whole := func(stream []byte) bool {
		x, err := extent.NewReader(bytes.NewReader(stream))
		for err == nil {
			_, err = x.Next()
		}
		return errors.Is(err, io.EOF)
	}
	got, said, err := during(func() error { return os.Truncate(s.path, 9*block) })
	if err == nil {
		_, err = extent.NewReader(bytes.NewReader(got.stream))
	}
	if err != nil || !whole(got.stream) || !strings.Contains(said, "grew") {
		t.Errorf("grows: %v; said %s", err, said)
	}
	for size, name := range map[int64]string{9*block - 1: "by a byte", block: "much", 0: "to nothing"} {
		must(t, os.Truncate(s.path, 9*block))
		got, _, err := during(func() error { return os.Truncate(s.path, size) })
		if !errors.Is(err, disk.ErrShrunk) || whole(got.stream) {
			t.Errorf("shrinks %s: %v", name, err)
		}
	}
	broken := filled(1, 9*block)
	bad := errors.New("a bad sector")
	broken.Fail = func(off int64) error {
		if off == 7*block {
			return bad
		}
		return nil
	}
	var out bytes.Buffer
	if _, err := run(t, nil, nil, read.Options{Disk: broken, Out: &out}); !errors.Is(err, bad) || whole(out.Bytes()) {
		t.Errorf("a bad sector: %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A stream has to have the length that was said.
func TestStream(t *testing.T) {
	s := newSource(t, filled(1, 3*block+5))
	for size, says := range map[int64]string{
		s.Size(): "", s.Size() + 1: "ends after 786437 bytes, and --size says 786438", s.Size() - 1: "goes on after", 4 * block: "ends after", block: "goes on", 0: "goes on",
	} {
		got, err := run(t, nil, s, read.Options{Stream: readerOf(s), Size: size})
		if says == "" {
			must(t, err)
			got.want(t, nil, s)
		} else if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	if _, err := run(t, nil, s, read.Options{Stream: io.MultiReader(readerOf(s), failing{}), Size: s.Size()}); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("a stream that fails at its end: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut off") }

// What does not go together is refused before anything is written.
func TestRefuses(t *testing.T) {
	f := repotest.New(t)
	s := newSource(t, filled(1, 3*block))
	f.Backup(s.Disk)
	for name, tt := range map[string]struct {
		f    *repotest.Fixture
		o    read.Options
		says string
	}{
		"a base without a repository": {nil, read.Options{Base: "last"}, "-b DIR"},
		"a map without a base":        {f, read.Options{Map: rbd()}, "name it with --base"},
		"a map of a stream":           {f, read.Options{Base: "last", Map: rbd(), Stream: readerOf(s), Size: 1}, "no use"},
		"an unknown base":             {f, read.Options{Base: "nope"}, "no such revision"},
		"another block size":          {f, read.Options{Base: "0", Block: 2 * block}, "--block"},
		"no block size":               {nil, read.Options{Block: 12345}, "power of two"},
		"a map that is none":          {f, read.Options{Base: "last", Map: strings.NewReader("{}")}, "the change map: "},
		"a map of another disk":       {f, read.Options{Base: "last", Map: rbd(data(0, 99*block))}, "passes the size"},
		"a map that overlaps":         {f, read.Options{Base: "last", Map: rbd(data(0, 10), data(9, 2))}, "overlaps"},
		"an allocation map as change": {f, read.Options{Base: "last", Map: strings.NewReader(`[{"start":0,"length":786432,"depth":0,"present":true,"zero":false,"data":true,"offset":0}]`)}, "does not say what changed"},
		"an allocation map that ends": {f, read.Options{Alloc: strings.NewReader(`[{"offset":0,`)}, "ends in the middle"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := run(t, tt.f, s, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.says) || len(got.stream) > 0 {
				t.Errorf("got %v with %d bytes, want an error that says %q", err, len(got.stream), tt.says)
			}
		})
	}
	// But "last" where there is nothing to build on, or blocks have another size, reads everything.
	for _, o := range []read.Options{{Base: "last", Block: 2 * block, Map: rbd()}, {Base: "latest", Block: 2 * block}} {
		got, err := run(t, f, s, o)
		must(t, err)
		got.want(t, nil, s)
		if got.note.Mode != repo.ReadFull {
			t.Errorf("%+v", got.note)
		}
	}
	empty := repotest.New(t)
	got, err := run(t, empty, s, read.Options{Base: "last", Map: rbd()})
	must(t, err)
	got.want(t, nil, s)
}

// The rate holds for what is read.
func TestRate(t *testing.T) {
	s := newSource(t, filled(1, 4*block))
	for _, o := range []read.Options{{Rate: 1 << 40}, {Rate: 64 * block}, {Rate: 64 * block, Stream: readerOf(s), Size: s.Size()}} {
		got, err := run(t, nil, s, o)
		must(t, err)
		got.want(t, nil, s)
	}
}

// A note tells what the stream cannot; the job's next read of the same source removes what nobody needs any more.
func TestNotes(t *testing.T) {
	f := repotest.New(t)
	s := newSource(t, filled(1, 2*block+1))
	first, err := run(t, f, s, read.Options{Source: "file:disk"})
	must(t, err)
	if n := first.note; n.Job != "vm1" || n.Source != "file:disk" || n.Host == "" || n.Bytes != s.Size() || n.Mode != repo.ReadFull || n.Start.IsZero() {
		t.Errorf("note %+v", n)
	}
	second, err := run(t, f, s, read.Options{Source: "file:disk"})
	must(t, err)
	if _, err := f.ReadNote(first.note.ID); err == nil {
		t.Error("the note of a read that came to nothing is still there")
	}
	if _, err := run(t, f, s, read.Options{Source: "file:other"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadNote(second.note.ID); err != nil {
		t.Errorf("a read of another source removed the note: %v", err)
	}
}

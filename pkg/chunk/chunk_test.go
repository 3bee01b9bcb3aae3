package chunk_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"backy/pkg/chunk"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// randomRecords are records that ascend and do not overlap, most of them unaligned, some empty, some all zero.
func randomRecords(r *rand.Rand, size int64) (list []record) {
	gap := 1 + size/(1+r.Int64N(8))
	for off := r.Int64N(gap); off < size; off += r.Int64N(gap) {
		length := min(size-off, r.Int64N(3*block))
		if r.IntN(3) == 0 {
			length = min(size-off, r.Int64N(size)) // may be huge
		}
		if r.IntN(3) == 0 { // aligned
			off = off / block * block
			if n := len(list); n > 0 {
				off = max(off, list[n-1].off+list[n-1].length)
			}
			length = min(size-off, (length+block-1)/block*block)
		}
		switch k := r.IntN(8); {
		case k < 3 || length > 5*block:
			list = append(list, z(off, length))
		case k == 3:
			list = append(list, w(off, make([]byte, length)))
		default:
			list = append(list, w(off, repotest.Noise(r, length)))
		}
		off += length
	}
	return list
}

// Whatever the extents, sizes and bases, the revisions hold what a disk would that the extents were written to, and equal
// disks have equal roots.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	f := repotest.New(t)
	type backup struct {
		rev  repo.Revision
		disk *repotest.Disk
	}
	var done []backup
	sizes := []int64{1, 1000, block, 3*block - 1, 5*block + 77, 1023 * block, 1024*block + 1, 1030*block - 3, 2100 * block}
	for round := range 30 {
		size := sizes[r.IntN(len(sizes))]
		if r.IntN(3) == 0 {
			size += r.Int64N(block)
		}
		disk, h := repotest.NewDisk(size), extent.Header{Size: size}
		if len(done) > 0 && r.IntN(5) > 0 {
			base := done[max(0, len(done)-1-r.IntN(3))]
			h = from(base.rev, size)
			disk = base.disk.Clone()
			disk.Resize(size)
		}
		records := randomRecords(r, size)
		apply(disk, records)
		out, err := run(f, write(t, h, records...), chunk.Options{Memory: []int64{0, 1, 3 * block}[r.IntN(3)]})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s, err := repotest.Parse(out)
		must(t, err)
		if err := s.Ordered(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		rev, err := f.Commit(out)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		f.Want(rev, disk)
		done = append(done, backup{rev, disk})

		alone, err := run(nil, whole(t, disk), chunk.Options{Block: block})
		must(t, err)
		s, err = repotest.Parse(alone)
		must(t, err)
		if root, _ := repo.ParseRoot(s.Last.Get("root")); root != rev.Root {
			t.Fatalf("round %d: the root is not that of the same disk read whole", round)
		}
		if err := s.Ordered(); err != nil {
			t.Errorf("round %d, read whole: %v", round, err)
		}
	}
}

// The cases that the model may miss, each by its name.
func TestExtents(t *testing.T) {
	large := filled(1, 2, 0)
	large.Resize(1026 * block)
	large.WriteAt([]byte("on another page"), 1025*block)
	noise := func(n int64) []byte { return repotest.Noise(rand.New(rand.NewPCG(1, uint64(n))), n) }
	for name, tt := range map[string]struct {
		base    *repotest.Disk // nil: none
		size    int64
		records []record
	}{
		"empty disk":                         {nil, 0, nil},
		"nothing said, no base":              {nil, 3*block + 5, nil},
		"nothing said":                       {filled(1, 3, 5), 3*block + 5, nil},
		"empty records":                      {filled(1, 3, 0), 3 * block, []record{w(block, []byte{}), z(2*block, 0), z(3*block, 0)}},
		"one byte, no base":                  {nil, 2 * block, []record{w(block+9, []byte{1})}},
		"one byte":                           {filled(1, 2, 0), 2 * block, []record{w(block+9, []byte{1})}},
		"several records in a block":         {filled(1, 1, 0), block, []record{w(1, noise(9)), z(10, 5), w(20, noise(7)), z(block-1, 1)}},
		"a record over three blocks":         {filled(1, 4, 0), 4 * block, []record{w(block/2, noise(3*block))}},
		"all of a block by pieces":           {filled(1, 1, 0), block, []record{w(0, noise(block/2)), w(block/2, noise(block/2))}},
		"data that is zero":                  {filled(1, 3, 0), 3 * block, []record{w(block, make([]byte, block))}},
		"zero makes a block zero by halves":  {filled(1, 2, 0), 2 * block, []record{z(0, block/2), z(block/2, block/2)}},
		"zero from the middle to the middle": {filled(1, 5, 0), 5 * block, []record{z(block/2, 3*block)}},
		"zero over the short last block":     {filled(1, 2, 7), 2*block + 7, []record{z(2*block, 7)}},
		"zero over a part of the last block": {filled(1, 2, 7), 2*block + 7, []record{z(2*block, 6)}},
		"grows from a short block":           {filled(1, 1, 100), 3 * block, nil},
		"grows, and the short block changes": {filled(1, 1, 100), 3 * block, []record{w(block+50, noise(100))}},
		"grows over a level":                 {filled(1, 2, 100), 1025 * block, []record{w(1024*block, noise(5))}},
		"shrinks into a block":               {filled(1, 3, 0), 2*block - 100, nil},
		"shrinks into a zero block":          {repotest.NewDisk(3 * block), 2*block - 100, nil},
		"shrinks, and the cut block changes": {filled(1, 3, 0), 2*block - 100, []record{w(block, noise(10))}},
		"shrinks to a block's end":           {filled(1, 3, 0), 2 * block, nil},
		"shrinks to nothing":                 {filled(1, 3, 0), 0, nil},
		"shrinks under a level":              {large, block + 1, nil},
		"shrinks within its last block":      {filled(1, 2, 500), 2*block + 3, nil},
		"all becomes zero":                   {large, 1026 * block, []record{z(0, 1026*block)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := repotest.New(t)
			disk, h := repotest.NewDisk(tt.size), extent.Header{Size: tt.size}
			if tt.base != nil {
				h = from(stored(t, f, tt.base), tt.size)
				disk = tt.base.Clone()
				disk.Resize(tt.size)
			}
			apply(disk, tt.records)
			out, err := run(f, write(t, h, tt.records...), chunk.Options{})
			must(t, err)
			rev, err := f.Commit(out)
			must(t, err)
			f.Want(rev, disk)
		})
	}
}

// Only what the repository lacks is sent, and a page comes after what it names, also where blocks beside each other in
// time, and on different pages, are equal.
func TestSendsOnce(t *testing.T) {
	same := bytes.Repeat([]byte("same"), block/4)
	for range 5 {
		var records []record
		for i := range int64(40) {
			records = append(records, w((1004+i)*block, same))
		}
		out, err := run(nil, write(t, extent.Header{Size: 1044 * block}, records...), chunk.Options{Block: block})
		must(t, err)
		s, err := repotest.Parse(out)
		must(t, err)
		if n := s.Count(object.Chunk); n != 1 {
			t.Errorf("%d chunks, want 1", n)
		}
		if err := s.Ordered(); err != nil {
			t.Error(err)
		}
		if n, err := s.Last.Int("objects"); err != nil || int(n) != len(s.Objects) {
			t.Errorf("says %d objects, %v; %d came", n, err, len(s.Objects))
		}
	}
	f := repotest.New(t)
	d := filled(3, 4, 9)
	d.Resize(1026 * block)
	d.WriteAt(same[1:], 1023*block+1)
	base := stored(t, f, d) // to complete a block takes longer than to take one as it is
	out, err := run(f, write(t, from(base, d.Size()), w(1023*block, same[:1]), w(1024*block, same)), chunk.Options{})
	must(t, err)
	if s, err := repotest.Parse(out); err != nil || s.Ordered() != nil || s.Count(object.Chunk) != 1 {
		t.Errorf("%v, %v; %d chunks", err, s.Ordered(), s.Count(object.Chunk))
	}
	out, err = run(f, whole(t, d), chunk.Options{})
	must(t, err)
	if s, err := repotest.Parse(out); err != nil || len(s.Objects) != 0 {
		t.Errorf("of what is all there, %d objects were sent, %v", len(s.Objects), err)
	}
}

// A zero record of 5 TiB costs neither memory nor time, and data costs what --memory says.
func TestMemory(t *testing.T) {
	f := repotest.New(t)
	huge := int64(15) << 40
	out, err := run(f, write(t, extent.Header{Size: huge}, w(5<<40, []byte("x"))), chunk.Options{})
	must(t, err)
	base, err := f.Commit(out)
	must(t, err)
	out, err = run(f, write(t, from(base, huge), z(0, 5<<40), w(10<<40, []byte("y"))), chunk.Options{})
	must(t, err)
	if len(out) > 1<<20 {
		t.Errorf("%d bytes of objects", len(out))
	}
	rev, err := f.Commit(out)
	must(t, err)
	want := repotest.NewDisk(huge)
	want.WriteAt([]byte("x"), 5<<40)
	want.WriteAt([]byte("y"), 10<<40)
	f.Want(rev, want)

	const size = 256 << 20
	pr, pw := io.Pipe()
	go func() {
		x, err := extent.NewWriter(pw, extent.Header{Size: size})
		r := rand.New(rand.NewPCG(1, 1))
		for off := int64(0); err == nil && off < size; off += block {
			err = x.Data(off, repotest.Noise(r, block))
		}
		pw.CloseWithError(errors.Join(err, x.Close()))
	}()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	err = chunk.Run(ctx, chunk.Options{In: pr, Block: block, Memory: 8 << 20, Now: repotest.Clock(), Log: repotest.Quiet, Out: writerFunc(func(p []byte) (int, error) {
		if peak == 0 || rand.IntN(50) == 0 {
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc)
		}
		return len(p), nil
	})})
	must(t, err)
	if used := int64(peak) - int64(before.HeapAlloc); used > 100<<20 {
		t.Errorf("%d MiB for 8 MiB of blocks on their way", used>>20)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// refused fails unless the run fails, says this, and leaves the stream of objects without its end.
func refused(t *testing.T, f *repotest.Fixture, in []byte, o chunk.Options, says string) error {
	t.Helper()
	out, err := run(f, in, o)
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want an error that says %q", err, says)
	}
	if s, perr := repotest.Parse(out); perr == nil {
		t.Errorf("the stream of objects has an end: %v", s.Last)
	}
	return err
}

// A base is named, never guessed.
func TestBase(t *testing.T) {
	f := repotest.New(t)
	disk := filled(1, 2, 0)
	base := stored(t, f, disk)
	other := stored(t, f, filled(2, 2, 0))
	unknown := repo.NewID()
	foreign := extent.Header{From: "yesterday", To: "today", Size: disk.Size()}
	ours := from(base, disk.Size())

	refused(t, nil, write(t, ours), chunk.Options{}, "so the job that has it is needed: -b DIR")
	refused(t, f, write(t, foreign), chunk.Options{}, `snapshot "yesterday", which is none of backy's`)
	refused(t, f, write(t, extent.Header{From: "backy-", Size: 1}), chunk.Options{}, "none of backy's")
	refused(t, f, write(t, extent.Header{From: "backy-../../../etc/passwd22", Size: 1}), chunk.Options{}, "none of backy's")
	refused(t, f, write(t, extent.Header{From: repo.SnapshotName(unknown), Size: 1}), chunk.Options{}, "no such revision")
	refused(t, f, write(t, ours), chunk.Options{Base: other.ID}, "which is not "+other.ID)
	refused(t, f, write(t, ours), chunk.Options{Base: "nothing"}, "no such revision")
	refused(t, f, write(t, extent.Header{Size: 1}), chunk.Options{Base: base.ID}, "leave --base away")
	refused(t, f, write(t, ours), chunk.Options{Block: 2 * block}, "--block")
	refused(t, f, write(t, extent.Header{Size: 1}), chunk.Options{Block: 3 * block}, "power of two")
	elsewhere, err := f.Repo.Job("vm2")
	must(t, err)
	_ = elsewhere // it has no revisions; a base of vm1 is none of vm2's
	var out bytes.Buffer
	if err := chunk.Run(ctx, chunk.Options{In: bytes.NewReader(write(t, ours)), Out: &out, Repo: f.Repo, Job: "vm2", Now: repotest.Clock(), Log: repotest.Quiet}); !errors.Is(err, repo.ErrNoRevision) {
		t.Errorf("a base of another job: %v", err)
	}

	// The operator's word: which revision the foreign snapshot became.
	for _, spec := range []string{base.ID, "first", "1"} {
		out, err := run(f, write(t, foreign, w(5, []byte("new"))), chunk.Options{Base: spec})
		must(t, err)
		s, err := repotest.Parse(out)
		must(t, err)
		if s.First.Get("base") != base.ID || s.First.Get("base-root") != base.Root.String() || s.First.Get("snapshot") != "today" {
			t.Errorf("first entry %v", s.First)
		}
	}
	// A stream that names its revision is taken at its word; one that names another snapshot gets a new id.
	out1, err := run(f, write(t, ours), chunk.Options{Base: base.ID})
	must(t, err)
	if s, _ := repotest.Parse(out1); repo.SnapshotName(s.First.Get("id")) != ours.To || s.First.Get("snapshot") != "" {
		t.Errorf("first entry %v", s.First)
	}

	// A read of ours whose base is gone meanwhile: nothing is wrong, run it again.
	h := extent.Header{From: repo.SnapshotName(unknown), To: repo.SnapshotName(repo.NewID()), Size: 1}
	must(t, f.NoteRead(repo.ReadNote{ID: strings.TrimPrefix(h.To, "backy-"), Job: "vm1", Session: repo.NewID(), Start: repotest.Clock()(), Mode: repo.ReadCompare}))
	if err := refused(t, f, write(t, h), chunk.Options{}, "forgotten meanwhile"); !errors.As(err, new(*repo.AgainError)) {
		t.Errorf("no reason to run again: %v", err)
	}
}

// Which one is the last, if another cannot be read? Then a stream that does not tell is not taken for one that builds on it.
func TestBaseBesideOneThatCannotBeRead(t *testing.T) {
	f := repotest.New(t)
	base := stored(t, f, filled(1, 2, 0))
	must(t, os.WriteFile(filepath.Join(f.Job.Dir(), repo.NewID()+".rev"), []byte("?"), 0o640))
	foreign := write(t, extent.Header{From: "yesterday", Size: block})
	refused(t, f, foreign, chunk.Options{Base: "last"}, "name the one by its id")
	for spec, stream := range map[string][]byte{base.ID: foreign, "last": write(t, from(base, block))} {
		_, err := run(f, stream, chunk.Options{Base: spec})
		must(t, err)
	}
}

// A revision that is distrusted, or whose state is not known, is no base.
func TestUnfitBase(t *testing.T) {
	f := repotest.New(t)
	base := stored(t, f, filled(1, 2, 0))
	writeState(t, f, base, repo.State{Trust: repo.Distrusted, Why: repo.WhyMap})
	refused(t, f, write(t, from(base, block)), chunk.Options{}, "is no base")
	refused(t, f, write(t, extent.Header{From: "x", Size: block}), chunk.Options{Base: base.ID}, "is no base")
	writeState(t, f, base, repo.State{Trust: repo.Distrusted, Why: repo.WhyDamage})
	_, err := run(f, write(t, from(base, block)), chunk.Options{})
	must(t, err)
	writeState(t, f, base, repo.State{Trust: "rubbish"})
	refused(t, f, write(t, from(base, block)), chunk.Options{}, "is no base")
}

// Nothing is made of a stream that is cut anywhere, or goes on after its end, or is out of order.
func TestBrokenStreams(t *testing.T) {
	good := write(t, extent.Header{From: "", To: "now", Size: 2 * block}, w(10, []byte("data")), z(block, 100), w(block+100, []byte("more")))
	if _, err := run(nil, good, chunk.Options{Block: block}); err != nil {
		t.Fatal(err)
	}
	for cut := range len(good) {
		if out, err := run(nil, good[:cut], chunk.Options{Block: block}); err == nil {
			t.Fatalf("cut at %d of %d: taken", cut, len(good))
		} else if _, perr := repotest.Parse(out); perr == nil {
			t.Fatalf("cut at %d: objects have an end", cut)
		}
	}
	record := func(kind byte, off, length uint64) []byte {
		b := []byte{kind}
		for _, n := range []uint64{off, length} {
			for i := range 8 {
				b = append(b, byte(n>>(8*i)))
			}
		}
		return b
	}
	head := write(t, extent.Header{Size: 2 * block})
	head = head[:len(head)-1]
	join := func(parts ...[]byte) []byte { return append(bytes.Join(append([][]byte{head}, parts...), nil), 'e') }
	for name, in := range map[string][]byte{
		"trailing byte":        append(bytes.Clone(good), 0),
		"trailing stream":      append(bytes.Clone(good), good...),
		"garbage":              []byte("this is no stream of extents at all, but text"),
		"a tar archive":        append([]byte("stream\x00"), make([]byte, 600)...),
		"out of order":         join(record('z', block, 1), record('z', 0, 1)),
		"overlap":              join(record('z', 0, 10), record('z', 9, 1)),
		"passes the size":      join(record('z', 0, 2*block+1)),
		"offset passes":        join(record('z', 2*block+1, 0)),
		"wraps around":         join(record('z', 1, math.MaxUint64)),
		"data of 16 EiB":       join(record('w', 0, math.MaxUint64)),
		"unknown record":       join([]byte{'q'}),
		"a second size":        append([]byte(extent.Magic), "s\x01\x00\x00\x00\x00\x00\x00\x00s\x01\x00\x00\x00\x00\x00\x00\x00e"...),
		"no size":              append([]byte(extent.Magic), 'e'),
		"name of 4 GiB":        append([]byte(extent.Magic), "t\xff\xff\xff\xff"...),
		"a disk of 8 EiB":      append([]byte(extent.Magic), "s\xff\xff\xff\xff\xff\xff\xff\x7fe"...),
		"8 EiB of zeroes":      append(append([]byte(extent.Magic), "s\xff\xff\xff\xff\xff\xff\xff\x7f"...), append(record('z', 0, math.MaxInt64), 'e')...),
		"a disk of 16 EiB - 1": append([]byte(extent.Magic), "s\xff\xff\xff\xff\xff\xff\xff\xffe"...),
	} {
		t.Run(name, func(t *testing.T) { refused(t, nil, in, chunk.Options{Block: block}, "") })
	}
}

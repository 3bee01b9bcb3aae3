package store_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"backy/pkg/blockmap"
	"backy/pkg/keyval"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
	"backy/pkg/store"
)

const (
	block = repotest.Block
	boot  = "this-host-since-it-started"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// disk has two pages, equal blocks, zero ones, and a short last block.
func disk() *repotest.Disk {
	r := rand.New(rand.NewPCG(1, 1))
	d := repotest.NewDisk(1030*block + 1000)
	same := repotest.Noise(r, block)
	for _, b := range []int64{0, 2, 1025} {
		d.WriteAt(same, b*block)
	}
	d.WriteAt(repotest.Noise(r, 2*block), 4*block)
	d.WriteAt([]byte("the end"), 1030*block+993)
	return d
}

// save stores a stream in the job.
func save(f *repotest.Fixture, stream []byte, change ...func(*store.Options)) (repo.Revision, error) {
	o := store.Options{In: bytes.NewReader(stream), Job: f.Job, Repo: f.Repo, BootID: boot, Log: repotest.Quiet}
	for _, c := range change {
		c(&o)
	}
	return store.Run(ctx, o)
}

func verify(o *store.Options) { o.Verify = true }

func exported(t testing.TB, f *repotest.Fixture, rev repo.Revision) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, store.Export(ctx, f.Repo, rev, &b))
	return b.Bytes()
}

// rebuilt is a stream with something changed in it.
func rebuilt(t testing.TB, stream []byte, change func(*repotest.Stream)) []byte {
	t.Helper()
	s, err := repotest.Parse(stream)
	must(t, err)
	change(s)
	var b bytes.Buffer
	w, err := object.NewStreamWriter(&b, s.First)
	must(t, err)
	for _, o := range s.Objects {
		must(t, w.Put(o.Key, o.Frame))
	}
	must(t, w.Close(s.Last))
	return b.Bytes()
}

// files are all files of a repository but what comes and goes: sessions and locks.
func files(t testing.TB, f *repotest.Fixture) (list []string) {
	t.Helper()
	must(t, filepath.WalkDir(f.Base, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.Contains(path, "/sessions/") && !strings.Contains(path, "/lock/") {
			list = append(list, strings.TrimPrefix(path, f.Base))
		}
		return err
	}))
	return list
}

// What is exported and imported elsewhere is the same revision; what is there already is not stored again.
func TestExportImport(t *testing.T) {
	f, d := repotest.New(t), disk()
	rev := f.Backup(d)
	must(t, f.Job.Change(ctx, rev.ID, func(s *repo.State) error { s.Tags = []string{"daily", "manual:x y"}[:1]; return nil }))
	rev, err := f.Job.Get(rev.ID)
	must(t, err)
	stream := exported(t, f, rev)
	s, err := repotest.Parse(stream)
	must(t, err)
	must(t, s.Ordered())

	other := repotest.New(t)
	got, err := save(other, stream)
	must(t, err)
	if got.ID != rev.ID || got.Root != rev.Root || got.Size != rev.Size || got.Block != rev.Block || !got.Time.Equal(rev.Time) ||
		got.Read != rev.Read || got.ReadBytes != rev.ReadBytes || !slices.Equal(got.State.Tags, rev.State.Tags) {
		t.Errorf("got %+v\nwant %+v", got, rev)
	}
	other.Want(got, d)
	if got.Stored == 0 {
		t.Error("nothing was stored")
	}

	before := files(t, other)
	again, err := save(other, stream)
	must(t, err)
	if again.ID != rev.ID || !slices.Equal(files(t, other), before) {
		t.Errorf("the same once more: %+v", again)
	}

	tagged, err := save(repotest.New(t), stream, func(o *store.Options) { o.Tags = []string{"imported"} })
	must(t, err)
	if !slices.Equal(tagged.State.Tags, []string{"imported"}) {
		t.Errorf("tags %v", tagged.State.Tags)
	}
	untagged, err := save(repotest.New(t), stream, func(o *store.Options) { o.Tags = []string{} })
	must(t, err)
	if len(untagged.State.Tags) != 0 {
		t.Errorf("tags %v", untagged.State.Tags)
	}
	if _, err := save(repotest.New(t), stream, func(o *store.Options) { o.Tags = []string{"a b"} }); err == nil {
		t.Error("a tag with a space was taken")
	}

	empty := f.Backup(repotest.NewDisk(3 * block))
	got, err = save(other, exported(t, f, empty))
	must(t, err)
	other.Want(got, repotest.NewDisk(3*block))
}

// At the first bad object the export stops, and what it wrote cannot be imported.
func TestExportStopsAtDamage(t *testing.T) {
	for name, spoil := range map[string]func(f *repotest.Fixture, rev repo.Revision){
		"chunk flipped": func(f *repotest.Fixture, rev repo.Revision) { f.Spoil(f.Chunks(rev)[1], false) },
		"chunk missing": func(f *repotest.Fixture, rev repo.Revision) { f.Spoil(f.Chunks(rev)[1], true) },
		"page flipped":  func(f *repotest.Fixture, rev repo.Revision) { f.Spoil(f.Pages(rev)[2], false) },
		"root missing":  func(f *repotest.Fixture, rev repo.Revision) { f.Spoil(f.Pages(rev)[0], true) },
	} {
		t.Run(name, func(t *testing.T) {
			f := repotest.New(t)
			rev := f.Backup(disk())
			spoil(f, rev)
			var b bytes.Buffer
			if err := store.Export(ctx, f.Repo, rev, &b); err == nil || !strings.Contains(err.Error(), "cannot be imported") {
				t.Errorf("export: %v", err)
			}
			if _, err := save(repotest.New(t), b.Bytes()); err == nil {
				t.Error("imported")
			}
		})
	}
}

// A stream that is cut anywhere, or goes on, is never committed; the next one works, and finds what there is.
func TestCutStreams(t *testing.T) {
	f, d := repotest.New(t), disk()
	stream := exported(t, f, f.Backup(d))
	other := repotest.New(t)
	cuts := []int{0, 1, 511, 512, 600, 1024, 1536, len(stream) / 2, len(stream) - 2048, len(stream) - 1024, len(stream) - 512, len(stream) - 1}
	for i := range 20 {
		cuts = append(cuts, i*len(stream)/20)
	}
	for _, cut := range cuts {
		if _, err := save(other, stream[:cut]); err == nil {
			t.Fatalf("cut at %d of %d: taken", cut, len(stream))
		}
	}
	for name, tail := range map[string][]byte{"a byte": {1}, "itself": stream, "garbage after padding": append(make([]byte, 10240), "more"...)} {
		if _, err := save(other, append(bytes.Clone(stream), tail...)); !errors.Is(err, object.ErrStreamEnd) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	for name, garbage := range map[string][]byte{"text": []byte(strings.Repeat("garbage ", 1000)), "zeroes": make([]byte, 1<<20), "extents": []byte("rbd diff v1\ns\x00\x00\x00\x00\x00\x00\x00\x00e")} {
		if _, err := save(other, garbage); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if list, broken, err := other.Job.List(); err != nil || len(list) != 0 || len(broken) != 0 {
		t.Fatalf("%v, %v, %v", list, broken, err)
	}
	if _, err := os.Stat(other.Job.Dir()); err == nil {
		t.Error("the job's directory was made before the commit")
	}
	if left, _ := os.ReadDir(filepath.Join(other.Base, repo.Dot, "tmp")); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
	rev, err := save(other, append(bytes.Clone(stream), make([]byte, 9000)...))
	must(t, err)
	other.Want(rev, d)
	if rev.Stored != 0 {
		t.Errorf("%d bytes stored again", rev.Stored)
	}
}

// Nothing is made of a stream that says what cannot be.
func TestWrongStreams(t *testing.T) {
	f := repotest.New(t)
	stream := exported(t, f, f.Backup(disk()))
	enc, err := object.NewEncoder()
	must(t, err)
	frame := func(content []byte) []byte {
		b, err := enc.Encode(nil, content)
		must(t, err)
		return b
	}
	first := func(key, value string) func(*repotest.Stream) {
		return func(s *repotest.Stream) { s.First.Set(key, value) }
	}
	last := func(key, value string) func(*repotest.Stream) {
		return func(s *repotest.Stream) { s.Last.Set(key, value) }
	}
	chunkOf := func(s *repotest.Stream) *repotest.Object {
		i := slices.IndexFunc(s.Objects, func(o repotest.Object) bool { return o.Key.Kind == object.Chunk })
		return &s.Objects[i]
	}
	for name, tt := range map[string]struct {
		change func(*repotest.Stream)
		says   string
	}{
		"a newer format":             {first("format", "2"), "not known to this version"},
		"an id that leaves":          {first("id", "../../../etc/cron.d/evil"), "is no id"},
		"an id that is a path":       {first("id", "aaaaaaaaaa/aaaaaaaaaaa"), "is no id"},
		"no id":                      {first("id", ""), "is no id"},
		"a base that leaves":         {first("base", "../vm2/aaaaaaaaaaaaaaa"), "is no id"},
		"a base without a root":      {first("base", repo.NewID()), "root: "},
		"no block size":              {first("block", "0"), "power of two"},
		"an odd block size":          {first("block", "300000"), "power of two"},
		"a negative size":            {first("size", "-1"), "no size or count"},
		"a size of 8 EiB":            {first("size", "9223372036854775807"), "at most"},
		"no time":                    {first("start", "yesterday"), "is no time"},
		"a time that cannot be told": {first("start", "9999-12-31T23:59:59-14:00"), "time"},
		"a duration too long":        {first("duration-ms", "9223372036854775807"), "duration"},
		"a trust that is none":       {first("trust", "rubbish"), "trust"},
		"a tag that is none":         {func(s *repotest.Stream) { s.First.SetList("tags", []string{"a b"}) }, "is no tag"},
		"another number of objects":  {last("objects", "3"), "says it had 3"},
		"no number of objects":       {func(s *repotest.Stream) { s.Last = s.Last.Without("objects") }, "objects"},
		"no root":                    {func(s *repotest.Stream) { s.Last = s.Last.Without("root") }, "root"},
		"a root that is none":        {last("root", "../../x"), "root"},
		"a root that did not come":   {last("root", strings.Repeat("ab", 32)), "missing"},
		"a chunk that did not come": {func(s *repotest.Stream) {
			s.Objects = s.Objects[1:]
			s.Last.SetInt("objects", int64(len(s.Objects)))
		}, "not in the repository"},
		"a page that did not come": {func(s *repotest.Stream) {
			i := slices.IndexFunc(s.Objects, func(o repotest.Object) bool { return o.Key.Kind == object.Page })
			s.Objects = slices.Delete(s.Objects, i, i+1)
			s.Last.SetInt("objects", int64(len(s.Objects)))
		}, "missing"},
		"a frame that does not decode": {func(s *repotest.Stream) { chunkOf(s).Frame = []byte("rubbish") }, "is damaged: does not decode"},
		"a frame of another chunk":     {func(s *repotest.Stream) { chunkOf(s).Frame = frame(make([]byte, block)) }, "is damaged: hash is"},
		"a flipped bit": {func(s *repotest.Stream) {
			o := chunkOf(s)
			o.Frame = bytes.Clone(o.Frame)
			o.Frame[len(o.Frame)/2] ^= 1
		}, "is damaged"},
		"a chunk that is no block": {func(s *repotest.Stream) {
			content := []byte("short")
			s.Objects = append(s.Objects, repotest.Object{Key: object.Key{Kind: object.Chunk, Name: object.Sum(content)}, Frame: frame(content)})
			s.Last.SetInt("objects", int64(len(s.Objects)))
		}, "and a block has"},
		"a bomb": {func(s *repotest.Stream) { chunkOf(s).Frame = frame(make([]byte, 64<<20)) }, "is damaged"},
		"a page that is not canonical": {func(s *repotest.Stream) {
			text := []byte(strings.Repeat("-\n", 2))
			root := object.Sum(text)
			s.Objects = append(s.Objects, repotest.Object{Key: object.Key{Kind: object.Page, Name: root}, Frame: frame(text)})
			s.Last.Set("root", root.String())
			s.Last.SetInt("objects", int64(len(s.Objects)))
		}, "ends in an empty line"},
		"a page that names blocks beyond the end": {func(s *repotest.Stream) {
			name := chunkOf(s).Key.Name
			text := blockmap.Lines{name, name}.Text()
			s.Objects = append(s.Objects, repotest.Object{Key: object.Key{Kind: object.Page, Name: object.Sum(text)}, Frame: frame(text)})
			s.First.SetInt("size", block)
			s.Last.Set("root", object.Sum(text).String())
			s.Last.SetInt("objects", int64(len(s.Objects)))
		}, "beyond"},
		"a page that is too large": {func(s *repotest.Stream) {
			text := blockmap.Lines(slices.Repeat([]object.Name{chunkOf(s).Key.Name}, 1025)).Text()
			s.Objects = append(s.Objects, repotest.Object{Key: object.Key{Kind: object.Page, Name: object.Sum(text)}, Frame: frame(text)})
			s.Last.SetInt("objects", int64(len(s.Objects)))
		}, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			other := repotest.New(t)
			_, err := save(other, rebuilt(t, stream, tt.change), verify)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error that says %q", err, tt.says)
			}
			if list, broken, err := other.Job.List(); err != nil || len(list) != 0 || len(broken) != 0 {
				t.Errorf("%v, %v, %v", list, broken, err)
			}
			for _, path := range files(t, other) { // whatever was published is what it is called
				if key, err := object.ParseKey(strings.TrimPrefix(path, "/"+repo.Dot+"/")); err == nil {
					dec, err := object.NewDecoder(repo.MaxBlock)
					must(t, err)
					if _, _, err := object.Fetch(ctx, other.Objects(), dec, key, nil, nil); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// Entries of the archive that are no objects.
func TestWrongEntries(t *testing.T) {
	f := repotest.New(t)
	stream := exported(t, f, f.Backup(disk()))
	s, err := repotest.Parse(stream)
	must(t, err)
	name := s.Objects[0].Key.String()
	at := bytes.Index(stream, []byte(name)) // the header of its entry
	for what, change := range map[string]func(header []byte){
		"a path that leaves":   func(h []byte) { copy(h, "../../../../../../etc/passwd\x00") },
		"an absolute path":     func(h []byte) { copy(h, "/etc/passwd\x00") },
		"another folder":       func(h []byte) { copy(h, "limbos") },
		"another prefix":       func(h []byte) { copy(h[7:], "000") },
		"a link":               func(h []byte) { h[156] = '2' },
		"a directory":          func(h []byte) { h[156] = '5' },
		"an object of 8 GiB":   func(h []byte) { copy(h[124:], "77777777777\x00") },
		"an object of nothing": func(h []byte) { copy(h[124:], "00000000000\x00") },
		"a wrong checksum":     func(h []byte) { h[148]++ },
	} {
		t.Run(what, func(t *testing.T) {
			b := bytes.Clone(stream)
			header := b[at : at+512]
			change(header)
			if what != "a wrong checksum" {
				sum := 8 * int(' ')
				for i, c := range header {
					if i < 148 || i >= 156 {
						sum += int(c)
					}
				}
				copy(header[148:], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
			}
			other := repotest.New(t)
			before := files(t, other)
			if _, err := save(other, b); err == nil {
				t.Error("taken")
			}
			if got := files(t, other); !slices.Equal(got, before) {
				t.Errorf("files %v", got)
			}
		})
	}
}

// A stream that builds on a base is taken only where that base is what the stream thinks it is.
func TestBase(t *testing.T) {
	f := repotest.New(t)
	d := disk()
	base := f.Backup(d)
	small := repotest.NewDisk(block)
	small.WriteAt([]byte("x"), 5)
	stream := exported(t, f, f.Backup(small))
	on := func(id string, root object.Name, size int64) []byte {
		return rebuilt(t, stream, func(s *repotest.Stream) {
			s.First.Set("id", repo.NewID())
			s.First.Set("base", id)
			s.First.Set("base-root", repo.FormatRoot(root))
			s.First.SetInt("block", size)
			if size != block {
				s.Objects, s.Last = nil, s.Last.Without("objects", "root")
				s.Last.Set("root", "none")
				s.Last.SetInt("objects", 0)
			}
		})
	}
	rev, err := save(f, on(base.ID, base.Root, block))
	must(t, err)
	if rev.Base != base.ID {
		t.Errorf("base %s", rev.Base)
	}
	f.Want(rev, small)
	if _, err := save(f, on(base.ID, object.Sum([]byte("x")), block)); err == nil || !strings.Contains(err.Error(), "another root") {
		t.Errorf("another root: %v", err)
	}
	if _, err := save(f, on(base.ID, base.Root, 2*block)); err == nil || !strings.Contains(err.Error(), "block size") {
		t.Errorf("another block size: %v", err)
	}
	var again *repo.AgainError
	if _, err := save(f, on(repo.NewID(), base.Root, block)); !errors.As(err, &again) || !strings.Contains(err.Error(), "forgotten meanwhile") {
		t.Errorf("a base that is not there: %v", err)
	}
	if _, err := save(repotest.New(t), on(base.ID, base.Root, block)); !errors.As(err, &again) {
		t.Errorf("in another repository: %v", err)
	}
}

// The same id with another content is refused: a revision never changes.
func TestSameID(t *testing.T) {
	f := repotest.New(t)
	first := repotest.NewDisk(block)
	first.WriteAt([]byte("x"), 5)
	rev := f.Backup(first)
	second := repotest.NewDisk(block)
	second.WriteAt([]byte("y"), 5)
	stream := rebuilt(t, exported(t, f, f.Backup(second)), func(s *repotest.Stream) { s.First.Set("id", rev.ID) })
	if _, err := save(f, stream); err == nil || !strings.Contains(err.Error(), "with another content") {
		t.Errorf("got %v", err)
	}
	f.Want(rev, first)
}

// What comes from this host just now is not unpacked again; what comes from a file, or from elsewhere, is.
func TestVerify(t *testing.T) {
	f := repotest.New(t)
	d := repotest.NewDisk(block)
	d.WriteAt([]byte("x"), 5)
	good := exported(t, f, f.Backup(d))
	bad := func(bootID string) []byte {
		return rebuilt(t, good, func(s *repotest.Stream) {
			s.First.Set("boot-id", bootID)
			s.Objects[0].Frame = []byte("rubbish")
		})
	}
	for name, tt := range map[string]struct {
		stream []byte
		own    string
		verify bool
		taken  bool
	}{
		"this host":                {bad(boot), boot, false, true},
		"this host, from a file":   {bad(boot), boot, true, false},
		"another host":             {bad("another"), boot, false, false},
		"an unknown host":          {bad(""), boot, false, false},
		"both are unknown":         {bad(""), "", false, false},
		"an export from this host": {rebuilt(t, good, func(s *repotest.Stream) { s.Objects[0].Frame = []byte("rubbish") }), boot, false, false},
	} {
		other := repotest.New(t)
		_, err := save(other, tt.stream, func(o *store.Options) { o.BootID, o.Verify = tt.own, tt.verify })
		if bad := (*object.BadError)(nil); (err == nil) != tt.taken || err != nil && !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A page that is in place but damaged is marked when the commit stumbles over it, and the next run heals it.
func TestDamagedPageInPlace(t *testing.T) {
	f, d := repotest.New(t), disk()
	rev := f.Backup(d)
	stream := exported(t, f, rev)
	bad := f.Pages(rev)[1]
	f.Spoil(bad, false)
	again := rebuilt(t, stream, func(s *repotest.Stream) { s.First.Set("id", repo.NewID()) })
	if _, err := save(f, again); !errors.As(err, new(*repo.AgainError)) {
		t.Errorf("got %v", err)
	}
	if marks, err := f.Marks(); err != nil || !marks[bad] {
		t.Errorf("marks %v, %v", marks, err)
	}
	healed, err := save(f, again)
	must(t, err)
	f.Want(healed, d)
	f.Want(rev, d)
	if marks, err := f.Marks(); err != nil || len(marks) != 0 {
		t.Errorf("marks left: %v, %v", marks, err)
	}
}

// What backy-read noted of the read is taken over; a read that did not come to its end is not stored.
func TestNote(t *testing.T) {
	f := repotest.New(t)
	d := repotest.NewDisk(block)
	stream := func(id string) []byte {
		var b bytes.Buffer
		var first, last keyval.Pairs
		first.SetInt("format", 1)
		first.Set("id", id)
		first.SetInt("block", block)
		first.SetInt("size", block)
		first.Set("start", "2026-11-21T10:00:00Z")
		last.Set("root", "none")
		last.SetInt("changed", 0)
		last.SetInt("objects", 0)
		w, err := object.NewStreamWriter(&b, first)
		must(t, err)
		must(t, w.Close(last))
		return b.Bytes()
	}
	note := repo.ReadNote{ID: repo.NewID(), Job: "vm1", Session: repo.NewID(), Source: "disk", Host: "here", Start: f.Now()}
	must(t, f.NoteRead(note))
	if _, err := save(f, stream(note.ID)); err == nil || !strings.Contains(err.Error(), "nothing is committed") {
		t.Errorf("a read that did not end: %v", err)
	}
	note.Mode, note.Bytes, note.Cursor = repo.ReadMap, 77, 5
	must(t, f.NoteRead(note))
	rev, err := save(f, stream(note.ID))
	must(t, err)
	if rev.Read != repo.ReadMap || rev.ReadBytes != 77 || rev.Cursor != 5 || rev.Source != "disk" || rev.Host != "here" {
		t.Errorf("%+v", rev)
	}
	f.Want(rev, d)
	rev, err = save(f, stream(repo.NewID()))
	must(t, err)
	if rev.Read != repo.ReadForeign {
		t.Errorf("%+v", rev)
	}
}

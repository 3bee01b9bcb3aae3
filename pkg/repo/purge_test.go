package repo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backy/pkg/blockmap"
	"backy/pkg/object"
)

// purged purges and fails the test where that fails.
func purged(t *testing.T, r *Repo, o PurgeOptions) PurgeReport {
	t.Helper()
	report, err := r.Purge(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// forgotten takes revisions away as Forget does, whatever there is to be said against it.
func forgotten(t *testing.T, j *Job, ids ...string) {
	t.Helper()
	if err := j.Forget(ctx, ids, Guard{Force: true}); err != nil {
		t.Fatal(err)
	}
}

// objects counts the objects below a folder of the repository.
func objects(t *testing.T, r *Repo, folder ...string) (n int) {
	t.Helper()
	err := filepath.WalkDir(r.path(folder...), func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".zst") {
			n++
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return n
}

func stored(t *testing.T, j *Job, base string, disk content) Revision {
	t.Helper()
	r, err := backup(t, j, base, disk, WriterOptions{}, nil)
	return must(t, r, err)
}

// empty fails unless nothing is left in these folders.
func empty(t *testing.T, r *Repo, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		if left, err := os.ReadDir(r.path(folder)); err != nil || len(left) != 0 {
			t.Errorf("left in %s: %v, %v", folder, left, err)
		}
	}
}

func TestPurgeAtRestFreesAllInOneCall(t *testing.T) {
	j := newJob(t)
	first := stored(t, j, "", content{"a", "b", "", "c"})
	second := stored(t, j, first.ID, content{"a", "d", "", "c"})
	forgotten(t, j, first.ID)
	dry := purged(t, j.repo, PurgeOptions{DryRun: true})
	if dry.Moved.Objects != 2 || dry.Moved.Bytes == 0 || dry.Kept != 4 || len(dry.Ended) != 2 || objects(t, j.repo) != 6 {
		t.Errorf("dry run: %+v, and there are %d objects", dry, objects(t, j.repo))
	}
	report := purged(t, j.repo, PurgeOptions{})
	if report.Freed != dry.Moved || report.Moved != dry.Moved || report.Kept != 4 || report.Passes != 2 || len(report.Limbo) != 0 || len(report.Ended) != 2 {
		t.Errorf("%+v", report)
	}
	if objects(t, j.repo) != 4 {
		t.Errorf("%d objects are left", objects(t, j.repo))
	}
	whole(t, j, second)
	empty(t, j.repo, "sessions", "tmp", "limbo")
	if again := purged(t, j.repo, PurgeOptions{}); again.Moved.Objects+again.Freed.Objects != 0 || again.Passes != 1 {
		t.Errorf("once more: %+v", again)
	}
}

func TestPurgeByParts(t *testing.T) {
	j := newJob(t)
	var disk, other content
	for i := range 30 {
		disk = append(disk, string(rune('a'+i)))
		other = append(other, string(rune('a'+i+i%2*100)))
	}
	first := stored(t, j, "", disk)
	second := stored(t, j, first.ID, other)
	forgotten(t, j, first.ID)
	_, err := j.repo.Purge(ctx, PurgeOptions{Memory: 16}) // a chunk at a time, so that one that goes is more than half of them
	if err == nil || !strings.Contains(err.Error(), "stopped on its way") || objects(t, j.repo, "limbo") == 0 {
		t.Errorf("it stopped after the first parts: %v", err)
	}
	report := purged(t, j.repo, PurgeOptions{Memory: 16, Force: true})
	if report.Freed.Objects != 16 || report.Kept != 31 || objects(t, j.repo) != 31 {
		t.Errorf("%+v", report)
	}
	whole(t, j, second)
}

func TestPurgeWaitsForNobodyButSaysForWhom(t *testing.T) {
	j := newJob(t)
	first := stored(t, j, "", content{"a", "b", "c", "d"})
	second := stored(t, j, "", content{"a", "b", "c", "e"})
	forgotten(t, j, first.ID)
	other, err := j.repo.Job("vm2")
	if err != nil {
		t.Fatal(err)
	}
	w, err := other.NewWriter(WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Begin("", object.Name{}, MinBlock); err != nil {
		t.Fatal(err)
	}
	report := purged(t, j.repo, PurgeOptions{})
	if report.Freed.Objects != 0 || len(report.Limbo) != 1 || report.Limbo[0].Objects != 2 || len(report.Limbo[0].For) != 1 || report.Limbo[0].For[0].PID != int64(os.Getpid()) {
		t.Fatalf("%+v", report)
	}
	report = purged(t, j.repo, PurgeOptions{End: []string{w.id}})
	if report.Freed.Objects != 2 || len(report.Limbo) != 0 {
		t.Errorf("%+v", report)
	}
	_, err = w.Commit(ctx, Revision{ID: NewID(), Time: start, Block: MinBlock, Size: MinBlock, Read: ReadFull}, nil, quiet)
	if !errors.Is(err, ErrSessionEnded) {
		t.Errorf("a writer that was ended: %v", err)
	}
	w.Close()
	whole(t, j, second)
	if _, err := j.repo.Purge(ctx, PurgeOptions{End: []string{w.id}}); err == nil {
		t.Error("a session that is not there was ended")
	}
}

// What purge is not sure of stops it, before it moves or deletes anything.
func TestPurgeStops(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, j *Job, kept Revision)
		want string
	}{
		{"a revision that cannot be parsed", func(t *testing.T, j *Job, _ Revision) {
			write(t, j.file(NewID()+revSuffix), "format: 1\n")
		}, "forget it"},
		{"a revision that is empty", func(t *testing.T, j *Job, _ Revision) { write(t, j.file(NewID()+revSuffix), "") }, "forget it"},
		{"a revision of an unknown format", func(t *testing.T, j *Job, r Revision) {
			write(t, j.file(r.ID+revSuffix), strings.Replace(string(r.Bytes()), "format: 1", "format: 2", 1))
		}, "not known"},
		{"a revision under another's name", func(t *testing.T, j *Job, r Revision) {
			write(t, j.file(NewID()+revSuffix), string(r.Bytes()))
		}, "it is that of"},
		{"a symbolic link to a directory", func(t *testing.T, j *Job, _ Revision) {
			os.Symlink(t.TempDir(), filepath.Join(j.repo.Base, "elsewhere"))
		}, "symbolic link"},
		{"a revision that is a link to nothing", func(t *testing.T, j *Job, _ Revision) {
			os.Symlink("nowhere", j.file(NewID()+revSuffix))
		}, "leads nowhere"},
		{"a page that is missing", func(t *testing.T, j *Job, r Revision) {
			os.Remove(j.repo.pool.Path(object.Key{Kind: object.Page, Name: r.Root}))
		}, "cannot be read"},
		{"a page that is damaged", func(t *testing.T, j *Job, r Revision) {
			write(t, j.repo.pool.Path(object.Key{Kind: object.Page, Name: r.Root}), "x")
		}, "does not decode"},
		{"a registration that cannot be understood", func(t *testing.T, j *Job, _ Revision) {
			write(t, j.repo.path("sessions", NewID()), "format: 1\nkind: mount\nroot: none\n")
		}, "kind"},
		{"more than half would go", func(t *testing.T, j *Job, r Revision) { forgotten(t, j, r.ID) }, "more than half"},
		{"a damaged page below a reader's root alone", func(t *testing.T, j *Job, r Revision) {
			s, _, err := j.repo.Read(r)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			forgotten(t, j, r.ID)
			write(t, j.repo.pool.Path(object.Key{Kind: object.Page, Name: r.Root}), "x")
		}, "damaged page"},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := newJob(t)
			gone := stored(t, j, "", content{"a", "b", "c"})
			kept := stored(t, j, "", content{"a", "b", "d", "e"})
			forgotten(t, j, gone.ID)
			test.do(t, j, kept)
			there := objects(t, j.repo)
			_, err := j.repo.Purge(ctx, PurgeOptions{})
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want something with %q", err, test.want)
			}
			if objects(t, j.repo) != there || objects(t, j.repo, "limbo") != 0 {
				t.Error("something was moved or deleted")
			}
		})
	}
	t.Run("but not a missing page that only a registration names", func(t *testing.T) {
		j := newJob(t)
		s, _, err := j.repo.reader(object.Sum([]byte("other")), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		purged(t, j.repo, PurgeOptions{})
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// Revisions may be anywhere below the base directory, also where no job can be.
func TestPurgeFindsEveryRevision(t *testing.T) {
	j := newJob(t)
	r := stored(t, j, "", content{"a", "b"})
	strange := filepath.Join(j.repo.Base, "a b", ".hidden", "x..y")
	if err := os.MkdirAll(filepath.Dir(strange), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(j.Dir(), strange); err != nil {
		t.Fatal(err)
	}
	os.Mkdir(filepath.Join(j.repo.Base, "lost+found"), 0)
	os.Symlink("nowhere", filepath.Join(j.repo.Base, "link"))
	write(t, filepath.Join(strange, "not-an-id.rev"), "")
	if report := purged(t, j.repo, PurgeOptions{}); report.Kept != 3 || report.Moved.Objects != 0 {
		t.Errorf("%+v", report)
	}
	whole(t, j, r)
}

// A reader keeps what is below its root, at any height, also when its revision is forgotten.
func TestPurgeKeepsWhatReadersRead(t *testing.T) {
	j := newJob(t)
	disk := make(content, blockmap.Fanout+10)
	disk[0], disk[blockmap.Fanout+1] = "a", "b"
	r := stored(t, j, "", disk)
	stored(t, j, "", content{"c"})
	s, _, err := j.repo.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	forgotten(t, j, r.ID)
	for _, memory := range []int64{0, 16} {
		if report := purged(t, j.repo, PurgeOptions{Force: true, Memory: memory}); report.Moved.Objects != 0 || report.Kept != 7 {
			t.Errorf("with a reader: %+v", report)
		}
	}
	whole(t, j, r)
	s.Close()
	if report := purged(t, j.repo, PurgeOptions{Force: true}); report.Freed.Objects != 5 {
		t.Errorf("after the reader: %+v", report)
	}
}

// What lies in tmp is taken away, and notes of reads in the making, unless somebody is about to use it.
func TestPurgeRemovesDeadStagings(t *testing.T) {
	j := newJob(t)
	for _, dead := range []string{NewID(), NewID() + overSuffix} {
		if err := os.MkdirAll(j.repo.path("tmp", dead, "x"), 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, j.repo.path("tmp", dead, "sent"), "")
	}
	noting := "." + live(t, j)
	for _, name := range []string{"." + NewID(), noting} {
		write(t, j.repo.path("reads", name), "format: 1\njo")
	}
	w, err := j.NewWriter(WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	purged(t, j.repo, PurgeOptions{})
	if err := w.Begin("", object.Name{}, MinBlock); err != nil {
		t.Error(err)
	}
	w.Close()
	purged(t, j.repo, PurgeOptions{})
	empty(t, j.repo, "tmp")
	if notes, err := os.ReadDir(j.repo.path("reads")); err != nil || len(notes) != 1 || notes[0].Name() != noting {
		t.Errorf("notes in the making: %v, %v; want that of the session that lives", notes, err)
	}
}

func TestPurgeCancelled(t *testing.T) {
	j := newJob(t)
	first := stored(t, j, "", content{"a", "b", "c"})
	kept := stored(t, j, "", content{"d", "e", "f", "c"})
	forgotten(t, j, first.ID)
	cancelled, cancel := context.WithCancel(ctx)
	r, _, err := Open(j.repo.Base, World{Now: j.repo.Now, Step: func(s Step, _ string) {
		if s == StepMove {
			cancel()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Purge(cancelled, PurgeOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if report := purged(t, j.repo, PurgeOptions{}); report.Freed.Objects != 3 {
		t.Errorf("after a purge that was stopped: %+v", report)
	}
	whole(t, j, kept)
	empty(t, j.repo, "limbo")
}

// A job that is moved back and forth all the time is found, or it is said that it may not have been.
func TestPurgeFindsJobsThatAreMoved(t *testing.T) {
	j := newJob(t)
	r := stored(t, j, "", content{"a"})
	var places []string
	for i := range 40 { // it takes a while to walk past these
		dir := filepath.Join(j.repo.Base, string(rune('A'+i/26))+string(rune('a'+i%26)), "x")
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		places = append(places, filepath.Join(dir, "job"))
	}
	place := j.Dir()
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			to := places[i%2*(len(places)-1)]
			if os.Rename(place, to) == nil {
				place = to
			}
		}
	}()
	found, said := 0, 0
	for range 100 {
		list, err := j.repo.everyRevision(ctx)
		switch more := (*AgainError)(nil); {
		case errors.As(err, &more):
			said++
		case err != nil:
			t.Fatal(err)
		case len(list) == 0:
			t.Error("it was missed, and nothing was said")
		case list[0].ID == r.ID:
			found++
		}
	}
	close(stop)
	<-stopped
	t.Logf("found %d times, said so %d times", found, said)
}

// Of two copies, that in place stays: it may have been stored to heal the one in limbo. Where both are one file, one name
// goes.
func TestPurgeMovesBackWithoutReplacing(t *testing.T) {
	for _, same := range []bool{false, true} {
		j := newJob(t)
		r := stored(t, j, "", content{"a"})
		key := object.Key{Kind: object.Chunk, Name: chunksOf(t, j, r)[0]}
		limbo := j.repo.path("limbo", "1", filepath.FromSlash(key.String()))
		if err := os.MkdirAll(filepath.Dir(limbo), 0o750); err != nil {
			t.Fatal(err)
		}
		if same {
			os.Link(j.repo.pool.Path(key), limbo)
		} else {
			write(t, limbo, "bad")
		}
		write(t, j.repo.path("limbo", "1", recordFile), recordFormat+"\n"+recordEnd+"\n")
		if report := purged(t, j.repo, PurgeOptions{}); report.Back.Objects != 1 {
			t.Errorf("%+v", report)
		}
		whole(t, j, r)
		empty(t, j.repo, "limbo")
	}
}

func chunksOf(t *testing.T, j *Job, r Revision) (names []object.Name) {
	t.Helper()
	pages, err := blockmap.NewPages(j.repo.pool)
	if err != nil {
		t.Fatal(err)
	}
	if err := blockmap.Walk(ctx, pages, r.Map(), blockmap.Visitor{Block: func(_ int64, _, name object.Name) error {
		names = append(names, name)
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	return names
}

// A record that is not whole is none: it would read as if nobody had to be waited for.
func TestRecordIsWholeOrNone(t *testing.T) {
	j := newJob(t)
	id := NewID()
	for text, whole := range map[string]bool{
		"": false, "format: 1\n": false, "end\n": false, "format: 1\nend": false, "format: 2\nend\n": false,
		"format: 1\nwriter: x\nend\n": false, "format: 1\nwriter: " + id + "\n": false, "format: 1\nreader: " + id + "\nend\n": false,
		"format: 1\nend\n": true, "format: 1\nwriter: " + id + "\nend\n": true,
	} {
		if err := os.MkdirAll(j.repo.path("limbo", "1"), 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, j.repo.path("limbo", "1", recordFile), text)
		if _, got, err := j.repo.readRecord("1"); got != whole || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// With Wait, purge ends when the writer that it waited for has ended and what it moved is gone.
func TestPurgeWaits(t *testing.T) {
	j := newJob(t)
	first := stored(t, j, "", content{"a", "b", "c"})
	kept := stored(t, j, "", content{"a", "b", "d"})
	forgotten(t, j, first.ID)
	w, err := j.NewWriter(WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Begin(kept.ID, kept.Root, MinBlock); err != nil {
		t.Fatal(err)
	}
	r, _, err := Open(j.repo.Base, World{Now: j.repo.Now, Step: func(s Step, _ string) {
		if s == StepRecord {
			go w.Close() // once it is waited for
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if report := purged(t, r, PurgeOptions{Wait: true}); report.Freed.Objects != 2 || len(report.Limbo) != 0 {
		t.Errorf("%+v", report)
	}
	whole(t, j, kept)
}

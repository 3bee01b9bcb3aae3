package chunk_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"backy/pkg/chunk"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

func writeState(t testing.TB, f *repotest.Fixture, rev repo.Revision, s repo.State) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(f.Job.Dir(), rev.ID+".state"), s.Bytes(), 0o640))
}

// marked fails unless exactly these objects are marked as bad.
func marked(t testing.TB, f *repotest.Fixture, want ...object.Key) {
	t.Helper()
	marks, err := f.Marks()
	must(t, err)
	if len(marks) != len(want) {
		t.Errorf("%d marks, want %d", len(marks), len(want))
	}
	for _, key := range want {
		if !marks[key] {
			t.Errorf("%s is not marked", key)
		}
	}
}

// noted notes the read of a stream as one of backy-read's, which can be run again.
func noted(t testing.TB, f *repotest.Fixture, to string) {
	t.Helper()
	id, ok := repo.SnapshotID(to)
	if !ok {
		t.Fatal(to)
	}
	must(t, f.NoteRead(repo.ReadNote{ID: id, Job: "vm1", Session: repo.NewID(), Start: repotest.Clock()(), Mode: repo.ReadCompare}))
}

// A chunk of the base that is needed to complete a block, and is damaged or missing, is marked. Nothing is committed, and
// it is run again; what then comes with the whole block heals it.
func TestDamagedBaseChunk(t *testing.T) {
	for name, remove := range map[string]bool{"flipped": false, "missing": true} {
		t.Run(name, func(t *testing.T) {
			f := repotest.New(t)
			disk := filled(1, 3, 0)
			base := stored(t, f, disk)
			bad := f.Chunks(base)[1]
			f.Spoil(bad, remove)

			h := from(base, disk.Size())
			noted(t, f, h.To)
			err := refused(t, f, write(t, h, w(block+5, []byte("partly"))), chunk.Options{}, bad.String())
			if !errors.As(err, new(*repo.AgainError)) {
				t.Errorf("no reason to run again: %v", err)
			}
			marked(t, f, bad)

			// The next run reads that block whole. It is as it was, and so replaces the bad one.
			data := make([]byte, block)
			disk.ReadAt(data, block)
			out, err := run(f, write(t, from(base, disk.Size()), w(block, data)), chunk.Options{})
			must(t, err)
			rev, err := f.Commit(out)
			must(t, err)
			f.Want(rev, disk)
			f.Want(base, disk)
			marked(t, f)
		})
	}
}

// Somebody else's stream would be the same when it is run again: that does not help.
func TestDamagedBaseOfForeignStream(t *testing.T) {
	f := repotest.New(t)
	disk := filled(1, 3, 0)
	base := stored(t, f, disk)
	bad := f.Chunks(base)[1]
	f.Spoil(bad, false)
	err := refused(t, f, write(t, from(base, disk.Size()), w(block+5, []byte("partly"))), chunk.Options{}, "send the whole disk")
	if errors.As(err, new(*repo.AgainError)) {
		t.Errorf("it asks to be run again: %v", err)
	}
	marked(t, f, bad)
}

// A page of the base that is damaged or missing is marked, and nothing is built on it. The next run sends all below it.
func TestDamagedBasePage(t *testing.T) {
	for name, remove := range map[string]bool{"flipped": false, "missing": true} {
		for what, all := range map[string]bool{"a block below it": false, "all below it": true} {
			t.Run(name+", "+what, func(t *testing.T) {
				f := repotest.New(t)
				disk := filled(1, 3, 0)
				base := stored(t, f, disk)
				bad := f.Pages(base)[0]
				f.Spoil(bad, remove)

				data := make([]byte, disk.Size())
				disk.ReadAt(data, 0)
				h := from(base, disk.Size())
				noted(t, f, h.To)
				records := []record{w(0, data)}
				if !all {
					records = []record{w(block, data[block:2*block])}
				}
				err := refused(t, f, write(t, h, records...), chunk.Options{}, bad.String())
				if !errors.As(err, new(*repo.AgainError)) {
					t.Errorf("no reason to run again: %v", err)
				}
				marked(t, f, bad)

				h = from(base, disk.Size())
				noted(t, f, h.To)
				out, err := run(f, write(t, h, w(0, data)), chunk.Options{})
				must(t, err)
				rev, err := f.Commit(out)
				must(t, err)
				f.Want(rev, disk)
				f.Want(base, disk)
				marked(t, f)
			})
		}
	}
}

// All that is bad is found in one run, for there may be no third.
func TestAllDamageIsFound(t *testing.T) {
	f := repotest.New(t)
	disk := filled(1, 5, 0)
	disk.Resize(1028 * block)
	disk.WriteAt([]byte("on another page"), 1026*block)
	base := stored(t, f, disk)
	chunks, pages := f.Chunks(base), f.Pages(base)
	bad := []object.Key{chunks[1], chunks[3], pages[2]}
	for _, key := range bad {
		f.Spoil(key, false)
	}
	h := from(base, disk.Size())
	noted(t, f, h.To)
	err := refused(t, f, write(t, h, w(block, []byte("a")), w(3*block, []byte("b")), w(1025*block, []byte("c"))), chunk.Options{}, "")
	if !errors.As(err, new(*repo.AgainError)) {
		t.Errorf("no reason to run again: %v", err)
	}
	marked(t, f, bad...)
}

// What is marked counts as absent, and is sent again; where a revision of the job is distrusted, what is there is read
// before it is reused.
func TestReuse(t *testing.T) {
	f := repotest.New(t)
	disk := filled(1, 3, 0)
	base := stored(t, f, disk)
	bad := f.Chunks(base)[2]
	f.Spoil(bad, false)
	sent := func() []repotest.Object {
		t.Helper()
		out, err := run(f, whole(t, disk), chunk.Options{})
		must(t, err)
		s, err := repotest.Parse(out)
		must(t, err)
		return s.Objects
	}
	if got := sent(); len(got) != 0 {
		t.Errorf("%d objects sent: a look-up does not read", len(got))
	}
	writeState(t, f, base, repo.State{Trust: repo.Distrusted, Why: repo.WhyMap})
	if got := sent(); len(got) != 1 || got[0].Key != bad {
		t.Errorf("sent %v, want what is bad", got)
	}
	marked(t, f, bad)
	writeState(t, f, base, repo.State{Trust: repo.Trusted})
	if got := sent(); len(got) != 1 || got[0].Key != bad {
		t.Errorf("sent %v, want what is marked", got)
	}
}

package repo

import (
	"errors"
	"os"
	"slices"
	"testing"

	"backy/pkg/object"
)

// noted notes a read of a snapshot of its own; change may say what is different.
func noted(t *testing.T, j *Job, id string, change func(*ReadNote)) ReadNote {
	t.Helper()
	n := ReadNote{ID: id, Job: j.Name, Source: "disk", Start: start, Session: NewID(), Snapshot: SnapshotName(id), Made: start.Add(7)}
	if change != nil {
		change(&n)
	}
	if err := j.repo.NoteRead(n); err != nil {
		t.Fatal(err)
	}
	if got, err := j.repo.ReadNote(n.ID); err != nil || got != n {
		t.Errorf("%+v came back as %+v, %v", n, got, err)
	}
	return n
}

// swept is whether a sweep of the reads of this disk removes this note, and with it its snapshot.
func swept(t *testing.T, j *Job, n ReadNote) bool {
	t.Helper()
	var removed []string
	left, err := j.SweepReads(ctx, "disk", func(name string) error { removed = append(removed, name); return nil }, quiet)
	if err != nil || left != 0 {
		t.Fatalf("%d left, %v", left, err)
	}
	note := gone(j.repo.path("reads", n.ID))
	if snapshot := slices.Contains(removed, n.Snapshot); snapshot != note && n.Snapshot != "" {
		t.Errorf("note gone: %v, snapshot gone: %v", note, snapshot)
	}
	return note
}

// live is a session that goes on until the test ends.
func live(t *testing.T, j *Job) string {
	t.Helper()
	s, unregistered, err := j.repo.Visit()
	if err != nil || unregistered != nil {
		t.Fatal(err, unregistered)
	}
	t.Cleanup(s.Close)
	return s.ID
}

// Which notes a sweep removes, with their snapshots. Each job here has three revisions.
func TestSweepReads(t *testing.T) {
	for name, tt := range map[string]struct {
		revision int // of the job that the note is of, oldest first; -1 is none
		change   func(*testing.T, *Job, *ReadNote)
		want     bool
	}{
		"of a revision that is superseded":       {1, nil, true},
		"of the newest":                          {2, nil, false},
		"of a read that came to nothing":         {-1, nil, true},
		"the same, without a snapshot":           {-1, func(_ *testing.T, _ *Job, n *ReadNote) { n.Snapshot = "" }, true},
		"of a read that goes on":                 {-1, func(t *testing.T, j *Job, n *ReadNote) { n.Session = live(t, j) }, false},
		"of a superseded one, somebody lives":    {0, func(t *testing.T, j *Job, n *ReadNote) { n.Session = live(t, j) }, true},
		"temporary, of the newest":               {2, func(_ *testing.T, _ *Job, n *ReadNote) { n.Temporary = true }, true},
		"temporary, of a read that goes on":      {2, func(t *testing.T, j *Job, n *ReadNote) { n.Temporary, n.Session = true, live(t, j) }, false},
		"of another source":                      {1, func(_ *testing.T, _ *Job, n *ReadNote) { n.Source = "other" }, false},
		"of another job":                         {-1, func(_ *testing.T, _ *Job, n *ReadNote) { n.Job = "vm2" }, false},
		"of this job when it had another name":   {1, func(_ *testing.T, _ *Job, n *ReadNote) { n.Job = "vm2" }, true},
		"of its newest, when it had another one": {2, func(_ *testing.T, _ *Job, n *ReadNote) { n.Job = "vm2" }, false},
		"of a revision that cannot be read": {1, func(t *testing.T, j *Job, n *ReadNote) {
			if err := os.WriteFile(j.file(n.ID+revSuffix), []byte("x"), 0o640); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJob(t)
			var ids []string
			for range 3 {
				r, err := backup(t, j, "", content{"a"}, WriterOptions{}, nil)
				ids = append(ids, must(t, r, err).ID)
			}
			id := NewID()
			if tt.revision >= 0 {
				id = ids[tt.revision]
			}
			n := noted(t, j, id, func(n *ReadNote) {
				if tt.change != nil {
					tt.change(t, j, n)
				}
			})
			if got := swept(t, j, n); got != tt.want {
				t.Errorf("removed: %v", got)
			}
		})
	}
}

// A sweep beside the writer of the revision, whose read has ended, lets its note alone; also when it sees the commit between
// its looks. Once the writer has failed, it does not.
func TestSweepBesideAWriter(t *testing.T) {
	j := newJob(t)
	id := NewID()
	n := noted(t, j, id, nil)
	w, err := j.NewWriter(WriterOptions{Revision: id})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Begin("", object.Name{}, MinBlock); err != nil {
		t.Fatal(err)
	}
	if swept(t, j, n) {
		t.Error("removed beside its writer")
	}
	rev, err := w.Commit(ctx, Revision{ID: id, Time: start, Size: 1, Block: MinBlock, Read: ReadFull}, nil, quiet)
	w.Close()
	must(t, rev, err)
	if swept(t, j, n) {
		t.Error("removed, though it is the newest revision's")
	}

	failed := noted(t, j, NewID(), nil)
	w, err = j.NewWriter(WriterOptions{Revision: failed.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Begin("", object.Name{}, MinBlock); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if !swept(t, j, failed) {
		t.Error("not removed, though nothing came of it")
	}
}

// What cannot be removed keeps its note, and is tried again. A snapshot that is not the note's own is never touched.
func TestSweepFails(t *testing.T) {
	j := newJob(t)
	stuck := errors.New("it is in use")
	n := noted(t, j, NewID(), nil)
	for _, remove := range []func(string) error{func(string) error { return stuck }, nil} {
		if left, err := j.SweepReads(ctx, "disk", remove, quiet); left != 1 || err != nil {
			t.Errorf("%d left, %v", left, err)
		}
	}
	if !swept(t, j, n) {
		t.Error("not removed when it could be")
	}
	noted(t, j, NewID(), func(n *ReadNote) { n.Snapshot = "monday" })
	noted(t, j, NewID(), func(n *ReadNote) { n.Snapshot = SnapshotName(NewID()) })
	left, err := j.SweepReads(ctx, "disk", func(name string) error {
		t.Errorf("%s is removed", name)
		return nil
	}, quiet)
	if left != 2 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
}

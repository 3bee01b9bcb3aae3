package read_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/extent"
	"backy/pkg/freeze"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// An image is read from a snapshot of its own, and from the second time on by what the disk says has changed. Only the newest
// revision's snapshot stays; those that others made are let alone, whatever they are called.
func TestOwnSnapshots(t *testing.T) {
	i := newImage(t, filled(1, 9*block+5))
	foreign := []string{"monday", repo.SnapshotName(repo.NewID())}
	for _, name := range foreign {
		must(t, i.Snapshot(ctx, name))
	}
	last := i.backup(read.Options{Base: "last"})
	if last.Read != repo.ReadFull || last.Snapshot != snapshotOf(last) || last.Source != "rbd:vms/vm1" {
		t.Errorf("%+v", last)
	}
	whole := last.Time
	r := rand.New(rand.NewPCG(5, 5))
	for round := range 20 {
		i.Mutate(r)
		if r.IntN(3) == 0 {
			i.Resize(1 + r.Int64N(12*block))
		}
		rev := i.backup(read.Options{Base: "last", Check: 3})
		if rev.Read != repo.ReadMap || rev.Base != last.ID || rev.Snapshot != snapshotOf(rev) || !rev.WholeRead().Equal(whole) {
			t.Errorf("round %d: %+v", round, rev)
		}
		i.want(append(foreign, snapshotOf(last), snapshotOf(rev))...)
		left, err := read.Sweep(ctx, i.f.Job, i.Image, "rbd:vms/vm1", repotest.Quiet)
		if err != nil || left > 0 {
			t.Error(left, err)
		}
		i.want(append(foreign, snapshotOf(rev))...)
		if there := i.notes(last.ID, rev.ID); !slices.Equal(there, []string{rev.ID}) {
			t.Errorf("round %d: notes %q", round, there)
		}
		last = rev
		if round%5 == 0 { // when all was read is known without the revision that was made then
			must(t, i.f.Job.Forget(ctx, without(i.f.Job, rev.ID), repo.Guard{}))
		}
	}
}

// without lists the revisions of a job, but for one.
func without(j *repo.Job, id string) (ids []string) {
	list, _, _ := j.List()
	for _, r := range list {
		if r.ID != id {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// What is written while it is read is not in the backup: the snapshot is what is read.
func TestReadsTheSnapshot(t *testing.T) {
	i := newImage(t, filled(1, 6*block))
	then := i.Clone()
	r, _, err := i.read(read.Options{Freeze: freezer(func(ctx context.Context, s freeze.Snapshot) error {
		err := s.Make(ctx)
		i.Resize(block)
		return err
	})})
	must(t, err)
	r.want(t, nil, &source{Disk: then})
}

type freezer func(context.Context, freeze.Snapshot) error

func (f freezer) Around(ctx context.Context, s freeze.Snapshot) error { return f(ctx, s) }

// Of what is changed by a little only that is read.
func TestReadsWhatChanged(t *testing.T) {
	i := newImage(t, filled(1, 100*block))
	i.backup(read.Options{})
	i.WriteAt([]byte("x"), 50*block)
	i.Punch(60*block, 2*block)
	rev := i.backup(read.Options{Base: "last", Check: 4})
	if rev.Read != repo.ReadMap || rev.ReadBytes != 5*block || rev.Changed != 3*block {
		t.Errorf("%+v", rev)
	}
}

// How an image is read, and what is said of it.
func TestModes(t *testing.T) {
	gone := func(i *image, base repo.Revision) { must(i.t, i.RemoveSnapshot(ctx, snapshotOf(base))) }
	for name, tt := range map[string]struct {
		first  read.Options
		change func(*image, repo.Revision)
		o      read.Options
		mode   string
		says   string
	}{
		"by the map":     {mode: repo.ReadMap},
		"a named base":   {o: read.Options{Base: "0"}, mode: repo.ReadMap},
		"to be compared": {o: read.Options{Compare: true}, mode: repo.ReadCompare},
		"in full":        {o: read.Options{Full: true}, mode: repo.ReadFull},
		"after one in full": {first: read.Options{Full: true}, mode: repo.ReadCompare,
			says: "not read from a snapshot of this disk that was kept"},
		"another image":       {o: read.Options{Source: "rbd:vms/vm2"}, mode: repo.ReadCompare, says: "not read from a snapshot of this disk"},
		"a snapshot is named": {first: read.Options{Source: "rbd:vms/vm1@a", Disk: &repotest.Snapshot{}}, mode: repo.ReadCompare, says: "not read from a snapshot of this disk"},
		"a lost snapshot":     {change: gone, mode: repo.ReadCompare, says: "the base's snapshot is gone"},
		"one made anew": {change: func(i *image, base repo.Revision) {
			gone(i, base)
			i.Resize(3 * block)
			must(i.t, i.Snapshot(ctx, snapshotOf(base)))
			i.Resize(8 * block)
		}, mode: repo.ReadCompare, says: "it has 786432 bytes, and the base has 2097152"},
		"one made anew, as large": {change: func(i *image, base repo.Revision) {
			gone(i, base)
			must(i.t, i.Snapshot(ctx, snapshotOf(base))) // it has what was written before it, so the map does not tell of that
		}, mode: repo.ReadCompare, says: "it is not the one that the base was read from, but another of its name, made at 1970-01-01T00:00:02Z"},
		"the disk cannot tell": {change: func(i *image, _ repo.Revision) {
			i.Lie = func(extent.Map) (extent.Map, error) { return nil, errors.New("object map is broken") }
		}, mode: repo.ReadCompare, says: "object map is broken"},
		"a map past the end": {change: func(i *image, _ repo.Revision) {
			i.Lie = func(extent.Map) (extent.Map, error) { return extent.Map{data(8*block, 1)}, nil }
		}, mode: repo.ReadCompare, says: "passes the size of the disk"},
		"a map that overlaps": {change: func(i *image, _ repo.Revision) {
			i.Lie = func(extent.Map) (extent.Map, error) { return extent.Map{data(0, 10), data(5, 10)}, nil }
		}, mode: repo.ReadCompare, says: "overlaps"},
		"the snapshot goes while it is asked": {change: func(i *image, base repo.Revision) {
			i.Lie = func(m extent.Map) (extent.Map, error) { gone(i, base); return m, nil }
		}, mode: repo.ReadCompare, says: "the base's snapshot is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImage(t, filled(1, 8*block))
			if tt.first.Disk != nil {
				tt.first.Disk = i.take("a")
			}
			base := i.backup(tt.first)
			i.WriteAt([]byte("new"), 5*block)
			if tt.change != nil {
				tt.change(i, base)
			}
			if tt.o.Base == "" {
				tt.o.Base = "last"
			}
			r, said, err := i.read(tt.o)
			must(t, err)
			rev, err := i.store(r)
			must(t, err)
			i.f.Want(rev, i.Disk)
			if rev.Read != tt.mode || !strings.Contains(said, tt.says) || tt.says == "" && said != "" {
				t.Errorf("read: %s, want %s; said %s", rev.Read, tt.mode, said)
			}
			if from := map[bool]string{false: snapshotOf(base)}[tt.o.Full]; r.header.From != from {
				t.Errorf("%+v", r.header)
			}
			if kept := map[bool]string{false: snapshotOf(rev)}[tt.o.Full]; rev.Snapshot != kept || r.note.Temporary != tt.o.Full {
				t.Errorf("snapshot %q, want %q; %+v", rev.Snapshot, kept, r.note)
			}
		})
	}
}

// The snapshot of a read in full goes with the next sweep, though its revision is the newest.
func TestTemporary(t *testing.T) {
	i := newImage(t, filled(1, 3*block))
	rev := i.backup(read.Options{Full: true})
	i.want(snapshotOf(rev))
	_, err := read.Sweep(ctx, i.f.Job, i.Image, "rbd:vms/vm1", repotest.Quiet)
	must(t, err)
	i.want()
	if there := i.notes(rev.ID); there != nil {
		t.Errorf("notes %q", there)
	}
}

// Nothing of our own is made of a snapshot that is named, nor without a job.
func TestNoOwnSnapshot(t *testing.T) {
	i := newImage(t, filled(1, 3*block))
	a := i.take("a")
	r, said, err := i.read(read.Options{Disk: a, Source: "rbd:vms/vm1@a"})
	must(t, err)
	if r.note.Snapshot != "" || said != "" {
		t.Errorf("%+v; said %s", r.note, said)
	}
	i.f = nil
	if _, said, err = i.read(read.Options{}); err != nil || !strings.Contains(said, "name a snapshot, or a job with -b") {
		t.Errorf("%v; said %s", err, said)
	}
	i.want("a")
}

// A read that fails takes its snapshot away, and the note with it; where that cannot be, the note stays.
func TestFails(t *testing.T) {
	bad := errors.New("a bad sector")
	i := newImage(t, filled(1, 6*block))
	i.Fail = func(off int64) error { return map[bool]error{true: bad}[off >= 3*block] }
	base := i.f.Backup(i.Disk)
	for range 3 {
		if _, _, err := i.read(read.Options{Base: base.ID}); !errors.Is(err, bad) {
			t.Fatal(err)
		}
		i.want()
	}
	stays := &stubborn{i.Image, errors.New("the cluster is silent")}
	if _, said, err := i.read(read.Options{Disk: stays}); !errors.Is(err, bad) || !strings.Contains(said, "the cluster is silent") {
		t.Fatalf("%v; said %s", err, said)
	}
	if n := len(i.Snapshots()); n != 1 {
		t.Fatalf("%d snapshots", n)
	}
	i.Fail = nil
	rev := i.backup(read.Options{})
	i.want(snapshotOf(rev))
}

// stubborn is an image whose snapshots cannot be removed.
type stubborn struct {
	*repotest.Image
	err error
}

func (s *stubborn) RemoveSnapshot(context.Context, string) error { return s.err }

// Who is interrupted takes the snapshot away all the same.
func TestInterrupted(t *testing.T) {
	i := newImage(t, filled(1, 30*block))
	ended, cancel := context.WithCancelCause(ctx)
	stop := errors.New("interrupted")
	i.Fail = func(off int64) error {
		if off > 5*block {
			cancel(stop)
		}
		return nil
	}
	err := read.Run(ended, read.Options{Out: new(bytes.Buffer), Disk: i.Image, Source: "rbd:vms/vm1", Repo: i.f.Repo, Job: "vm1", Now: i.f.Now, Log: repotest.Quiet})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	i.want()
}

// A read that overtakes another one makes its revision, and what that supersedes goes. The other one's snapshot stays, and
// its base's is missed: it compares.
func TestTwoAtOnce(t *testing.T) {
	i := newImage(t, filled(1, 6*block))
	i.backup(read.Options{})
	i.WriteAt([]byte("both"), 2*block)
	var overtaker repo.Revision
	first, said, err := i.read(read.Options{Base: "last", Freeze: freezer(func(ctx context.Context, s freeze.Snapshot) error {
		must(t, s.Make(ctx))
		overtaker = i.backup(read.Options{Base: "last"})
		left, err := read.Sweep(ctx, i.f.Job, i.Image, "rbd:vms/vm1", repotest.Quiet)
		if err != nil || left > 0 || overtaker.Read != repo.ReadMap {
			t.Errorf("%d left, %v; read: %s", left, err, overtaker.Read)
		}
		i.want(s.Name, snapshotOf(overtaker))
		return nil
	})})
	must(t, err)
	if first.note.Mode != repo.ReadCompare || !strings.Contains(said, "the base's snapshot is gone") {
		t.Errorf("%+v; said %s", first.note, said)
	}
	rev, err := i.store(first)
	must(t, err)
	i.f.Want(rev, i.Disk)
	_, err = read.Sweep(ctx, i.f.Job, i.Image, "rbd:vms/vm1", repotest.Quiet)
	must(t, err)
	i.want(snapshotOf(rev))
}

// The freezer decides who makes the snapshot, and when. If it fails, nothing is read; what may still come is noted.
func TestFreeze(t *testing.T) {
	refuses := errors.New("no")
	for name, tt := range map[string]struct {
		around func(ctx context.Context, i *image, s freeze.Snapshot) error
		err    error
		noted  bool
	}{
		"made in between": {func(ctx context.Context, i *image, s freeze.Snapshot) error { return s.Make(ctx) }, nil, true},
		"made by somebody else": {func(ctx context.Context, i *image, s freeze.Snapshot) error {
			if there, err := s.There(ctx); err != nil || there {
				t.Errorf("there: %v, %v", there, err)
			}
			err := i.Snapshot(ctx, s.Name)
			if there, err := s.There(ctx); err != nil || !there {
				t.Errorf("there: %v, %v", there, err)
			}
			return err
		}, nil, true},
		"refused":              {func(ctx context.Context, i *image, s freeze.Snapshot) error { return refuses }, refuses, true},
		"made, and not thawed": {func(ctx context.Context, i *image, s freeze.Snapshot) error { return errors.Join(s.Make(ctx), refuses) }, refuses, false},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImage(t, filled(1, 3*block))
			var asked freeze.Snapshot
			r, _, err := i.read(read.Options{Freeze: freezer(func(ctx context.Context, s freeze.Snapshot) error {
				asked = s
				id, ours := repo.SnapshotID(s.Name)
				if note, err := i.f.ReadNote(id); !ours || err != nil || note.Snapshot != s.Name {
					t.Errorf("%s is not noted: %+v, %v", s.Name, note, err)
				}
				return tt.around(ctx, i, s)
			})})
			if !errors.Is(err, tt.err) {
				t.Fatal(err)
			}
			id, _ := repo.SnapshotID(asked.Name)
			if noted := i.notes(id) != nil; noted != tt.noted {
				t.Errorf("noted: %v", noted)
			}
			if err != nil {
				i.want()
				return
			}
			i.want(asked.Name)
			r.want(t, nil, &source{Disk: i.Disk})
		})
	}
}

// What does not go together with images is refused before a snapshot is made.
func TestImageRefuses(t *testing.T) {
	i := newImage(t, filled(1, 3*block))
	i.f.Backup(i.Disk)
	file := newSource(t, i.Disk)
	none := freezer(func(context.Context, freeze.Snapshot) error { return nil })
	for name, tt := range map[string]struct {
		o    read.Options
		says string
	}{
		"a map of another snapshot":   {read.Options{Base: "last", Map: rbd()}, "name that, as in rbd:vms/vm1@SNAPSHOT"},
		"an allocation map":           {read.Options{Alloc: rbd()}, "name that, as in rbd:vms/vm1@SNAPSHOT"},
		"a map, and in full":          {read.Options{Base: "last", Map: rbd(), Full: true}, "leave one of them away"},
		"a map, and compared":         {read.Options{Base: "last", Map: rbd(), Compare: true}, "leave one of them away"},
		"in full, and compared":       {read.Options{Full: true, Compare: true}, "either full"},
		"a file that is to be frozen": {read.Options{Disk: file.Disk, Source: "file:disk.img", Freeze: none}, "nothing can be frozen for file:disk.img"},
	} {
		t.Run(name, func(t *testing.T) {
			if r, _, err := i.read(tt.o); err == nil || !strings.Contains(err.Error(), tt.says) || len(r.stream) > 0 {
				t.Errorf("got %v", err)
			}
			i.want()
		})
	}
}

var _ disk.Snapshotter = (*stubborn)(nil)

// Who may not make snapshots leaves nothing behind; but what somebody else was asked for may come yet.
func TestMayNotSnapshot(t *testing.T) {
	for name, asks := range map[string]bool{"alone": false, "somebody else was asked": true} {
		t.Run(name, func(t *testing.T) {
			i := newImage(t, filled(1, 3*block))
			o := read.Options{Disk: &forbidden{i.Image}}
			if asks {
				o.Freeze = freezer(func(ctx context.Context, s freeze.Snapshot) error {
					if there, err := s.There(ctx); there || err != nil {
						t.Error(there, err)
					}
					return s.Make(ctx)
				})
			}
			if _, said, err := i.read(o); !errors.Is(err, fs.ErrPermission) || said != "" {
				t.Errorf("%v; said %s", err, said)
			}
			notes, err := os.ReadDir(filepath.Join(i.f.Base, ".backy", "reads"))
			must(t, err)
			if len(notes) > 0 != asks {
				t.Errorf("notes: %v", notes)
			}
		})
	}
}

// forbidden is an image of somebody who may only read it.
type forbidden struct{ *repotest.Image }

func (*forbidden) Snapshot(context.Context, string) error       { return syscall.EPERM }
func (*forbidden) RemoveSnapshot(context.Context, string) error { return syscall.EPERM }

// While something is frozen the snapshot is made, and no more.
func TestOpensAfterTheThaw(t *testing.T) {
	i := newImage(t, filled(1, 3*block))
	d := &freezing{Image: i.Image}
	r, _, err := i.read(read.Options{Disk: d, Freeze: freezer(func(ctx context.Context, s freeze.Snapshot) error {
		d.frozen = true
		defer func() { d.frozen = false }()
		return s.Make(ctx)
	})})
	must(t, err)
	r.want(t, nil, &source{Disk: i.Disk})
}

// freezing is an image whose snapshots cannot be opened while somebody waits for that.
type freezing struct {
	*repotest.Image
	frozen bool
}

func (f *freezing) OpenSnapshot(ctx context.Context, name string) (disk.Disk, error) {
	if f.frozen {
		return nil, errors.New("not while it is frozen")
	}
	return f.Image.OpenSnapshot(ctx, name)
}

// Nothing stays frozen for a cluster that is silent: while it is, the making of the snapshot has a limit.
func TestSnapshotWhileFrozen(t *testing.T) {
	i := newImage(t, filled(1, 3*block))
	d := &limited{Image: i.Image}
	_, _, err := i.read(read.Options{Disk: d})
	must(t, err)
	if d.limit {
		t.Error("there is a limit though nothing is frozen")
	}
	_, _, err = i.read(read.Options{Disk: d, Freeze: freezer(func(ctx context.Context, s freeze.Snapshot) error { return s.Make(ctx) })})
	must(t, err)
	if !d.limit {
		t.Error("there is no limit though something is frozen")
	}
}

// limited is an image that notes whether there is a limit to how long a snapshot may take.
type limited struct {
	*repotest.Image
	limit bool
}

func (l *limited) Snapshot(ctx context.Context, name string) error {
	_, l.limit = ctx.Deadline()
	return l.Image.Snapshot(ctx, name)
}

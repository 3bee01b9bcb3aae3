package read_test

import (
	"bytes"
	"log/slog"
	"slices"
	"testing"

	"backy/pkg/chunk"
	"backy/pkg/disk"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
	"backy/pkg/store"
)

// image is a source that snapshots are made of, and what is done with it.
type image struct {
	*repotest.Image
	t     testing.TB
	f     *repotest.Fixture
	block int64 // of what is stored; 0 is the base's or the repository's
}

func newImage(t testing.TB, d *repotest.Disk) *image {
	return &image{Image: repotest.NewImage(d), t: t, f: repotest.New(t)}
}

// read reads it, as rbd:vms/vm1 if nothing else is said.
func (i *image) read(o read.Options) (*result, string, error) {
	i.t.Helper()
	var said bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&said, nil))
	if o.Disk == nil {
		o.Disk = i.Image
	}
	if o.Source == "" {
		o.Source = "rbd:vms/vm1"
	}
	r, err := run(i.t, i.f, nil, o)
	return r, said.String(), err
}

// store makes a revision of what was read.
func (i *image) store(r *result) (repo.Revision, error) {
	var objects bytes.Buffer
	err := chunk.Run(ctx, chunk.Options{In: bytes.NewReader(r.stream), Out: &objects, Repo: i.f.Repo, Job: i.f.Job.Name, Block: i.block, Now: i.f.Now, Log: repotest.Quiet})
	if err != nil {
		return repo.Revision{}, err
	}
	return store.Run(ctx, store.Options{In: &objects, Job: i.f.Job, Repo: i.f.Repo, Log: repotest.Quiet})
}

// backup reads the image and makes a revision of it, which has to hold what the image does.
func (i *image) backup(o read.Options) repo.Revision {
	i.t.Helper()
	now := i.Clone()
	r, _, err := i.read(o)
	must(i.t, err)
	rev, err := i.store(r)
	must(i.t, err)
	i.f.Want(rev, now)
	return rev
}

// take makes a snapshot and opens it.
func (i *image) take(name string) disk.Disk {
	i.t.Helper()
	must(i.t, i.Snapshot(ctx, name))
	s, err := i.OpenSnapshot(ctx, name)
	must(i.t, err)
	return s
}

// notes are the ids of the reads that are noted.
func (i *image) notes(ids ...string) (there []string) {
	for _, id := range ids {
		if _, err := i.f.ReadNote(id); err == nil {
			there = append(there, id)
		}
	}
	return there
}

// want fails unless the image has these snapshots.
func (i *image) want(names ...string) {
	i.t.Helper()
	slices.Sort(names)
	if got := i.Snapshots(); !slices.Equal(got, names) {
		i.t.Errorf("snapshots %q, want %q", got, names)
	}
}

func snapshotOf(r repo.Revision) string { return repo.SnapshotName(r.ID) }

// Package cmd_test tests the commands together: the stages joined in one process here, and as they are installed by the
// scripts in testdata.
package cmd_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"backy/pkg/chunk"
	"backy/pkg/disk/file"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
	"backy/pkg/store"
)

const block = repotest.Block

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// backup joins the stages by pipes. What is wrong is the first stage's error that is not of a later stage's end.
func backup(f *repotest.Fixture, o read.Options, verify bool) (repo.Revision, error) {
	ctx := context.Background()
	extents, extentsIn := io.Pipe()
	objects, objectsIn := io.Pipe()
	errs := make(chan error, 2)
	go func() {
		o.Out, o.Repo, o.Job, o.Now, o.Log = extentsIn, f.Repo, "vm1", repotest.Clock(), repotest.Quiet
		err := read.Run(ctx, o)
		extentsIn.CloseWithError(err)
		errs <- err
	}()
	go func() {
		err := chunk.Run(ctx, chunk.Options{In: extents, Out: objectsIn, Repo: f.Repo, Job: "vm1", Now: repotest.Clock(), Log: repotest.Quiet})
		extents.CloseWithError(err)
		objectsIn.CloseWithError(err)
		errs <- err
	}()
	rev, err := store.Run(ctx, store.Options{In: objects, Job: f.Job, Repo: f.Repo, BootID: chunk.BootID(), Verify: verify, Log: repotest.Quiet})
	objects.CloseWithError(err)
	return rev, errors.Join(err, <-errs, <-errs)
}

// Thirty backups of a disk that changes, grows and shrinks, in each mode, on any base; objects are lost on the way. After
// each, every revision that is not known to be damaged is the disk as it was, and a second run heals what was bad.
func TestPipe(t *testing.T) {
	type backed struct {
		rev     repo.Revision
		disk    *repotest.Disk
		touched []extent.Extent // since
	}
	r := rand.New(rand.NewPCG(5, 5))
	f := repotest.New(t)
	path := filepath.Join(t.TempDir(), "disk.img")
	disk := repotest.NewDisk(5*block + 100)
	var done []*backed
	touch := func(list ...extent.Extent) {
		for _, b := range done {
			b.touched = append(b.touched, list...)
		}
	}
	sizes := []int64{1, block - 1, 4 * block, 6*block + 5, 1023 * block, 1024*block + 3, 1030 * block}
	for round := range 30 {
		if r.IntN(3) == 0 {
			was := disk.Size()
			disk.Resize(sizes[r.IntN(len(sizes))])
			if disk.Size() < was {
				touch(extent.Extent{Offset: disk.Size(), Length: was - disk.Size()})
			}
		}
		touch(disk.Mutate(r)...)
		disk.WriteFile(t, path)

		mode, alloc, check, noHoles := r.IntN(3), r.IntN(4) == 0, r.IntN(40), r.IntN(2) == 0 // mode 0 is by map, 1 a stream
		var base *backed
		spoiled := map[object.Key][]byte{}
		if len(done) > 0 && r.IntN(4) > 0 {
			base = done[max(0, len(done)-1-r.IntN(2))]
			chunks, pages := f.Chunks(base.rev), f.Pages(base.rev)
			if all := append(chunks, pages...); len(all) > 0 && r.IntN(3) == 0 {
				key := all[r.IntN(len(all))]
				frame, err := f.Objects().Get(context.Background(), key, nil)
				must(t, err)
				spoiled[key] = frame
				f.Spoil(key, r.IntN(2) == 0)
				if key.Kind == object.Chunk || mode == 0 || r.IntN(2) == 0 { // a page that is read is found out to be bad
					must(t, f.Mark(key, "test"))
				}
			}
		}
		run := func() (repo.Revision, error) {
			d, err := file.Open(path, file.Options{Direct: r.IntN(4) == 0})
			must(t, err)
			defer d.Close()
			o := read.Options{Disk: d, Source: path, Check: check, NoHoles: noHoles}
			if base != nil {
				o.Base = base.rev.ID
				if mode == 0 {
					o.Map = repotest.RBD(disk.ChangeMap(r, base.touched)...)
				}
			}
			if mode == 1 {
				o.Disk, o.Stream, o.Size = nil, io.NewSectionReader(d, 0, d.Size()), d.Size()
			} else if alloc {
				o.Alloc = repotest.RBD(disk.AllocationMap()...)
			}
			return backup(f, o, r.IntN(2) == 0)
		}
		rev, err := run()
		if errors.As(err, new(*repo.AgainError)) {
			rev, err = run()
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		done = append(done, &backed{rev: rev, disk: disk.Clone()})
		f.Want(rev, disk)
		for key, frame := range spoiled { // the disk may not hold it any more, so that it could not heal
			if marks, err := f.Marks(); err != nil || marks[key] {
				must(t, errors.Join(err, os.WriteFile(f.Objects().Path(key), frame, 0o640), os.Remove(filepath.Join(f.Base, repo.Dot, "bad", key.Name.String()))))
			}
		}
	}
	for _, b := range done {
		f.Want(b.rev, b.disk)
	}
}

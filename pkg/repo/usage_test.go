package repo_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// commit makes a revision of a job out of the names of its blocks' contents; "" is a block of zeroes.
func commit(t *testing.T, f *repotest.Fixture, job string, blocks ...string) {
	t.Helper()
	ctx := context.Background()
	j, err := f.Repo.Job(job)
	if err != nil {
		t.Fatal(err)
	}
	w, err := j.NewWriter(repo.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	enc, _ := object.NewEncoder()
	put := func(kind object.Kind, content []byte) object.Name {
		name := object.Sum(content)
		frame, err := enc.Encode(nil, content)
		if err = errors.Join(err, w.Put(ctx, object.Key{Kind: kind, Name: name}, frame)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if err := w.Begin("", object.Name{}, repotest.Block); err != nil {
		t.Fatal(err)
	}
	rev := repo.Revision{ID: repo.NewID(), Block: repotest.Block, Size: int64(len(blocks)) * repotest.Block, Time: f.Now(), Read: repo.ReadForeign}
	e := blockmap.NewEditor(blockmap.NewCursor(nil, blockmap.Map{BlockSize: rev.Block}), rev.Size, func(_ object.Name, text []byte) error {
		put(object.Page, text)
		return nil
	})
	for i, text := range blocks {
		if text == "" {
			continue
		}
		content := make([]byte, repotest.Block)
		copy(content, text)
		if err := e.Set(ctx, int64(i), put(object.Chunk, content)); err != nil {
			t.Fatal(err)
		}
	}
	if rev.Root, err = e.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(ctx, rev, []string{}, repotest.Quiet); err != nil {
		t.Fatal(err)
	}
}

// Where there are many objects, they are counted in parts of the name space.
func TestUsageInParts(t *testing.T) {
	repo.SmallUsage(t)
	testUsage(t)
}

func TestUsage(t *testing.T) { testUsage(t) }

func testUsage(t *testing.T) {
	f := repotest.New(t)
	commit(t, f, "vm1", "a", "b", "", "s")
	commit(t, f, "vm1", "a", "a", "c", "s", "")
	commit(t, f, "group/vm2", "s", "x", "x")
	commit(t, f, "group/vm3")
	all, jobs, err := f.Usage(context.Background(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	const b = repotest.Block
	want := []repo.Usage{
		{Job: "group/vm2", Revisions: 1, Virtual: 3 * b, Shared: b, Exclusive: 2 * b, Deduplicated: b},
		{Job: "group/vm3", Revisions: 1},
		{Job: "vm1", Revisions: 2, Virtual: 9 * b, Sparse: 2 * b, Shared: 2 * b, Exclusive: 5 * b, Deduplicated: 3 * b},
	}
	if len(jobs) != len(want) {
		t.Fatalf("%+v", jobs)
	}
	for i, u := range jobs {
		if (u.Compressed > 0) != (u.Deduplicated > 0) {
			t.Errorf("%s: compressed %d", u.Job, u.Compressed)
		}
		if u.Compressed = 0; u != want[i] {
			t.Errorf("%+v, want %+v", u, want[i])
		}
	}
	stored := int64(0)
	for _, kind := range object.Kinds {
		for prefix := range 1 << 12 {
			keys, _ := f.Objects().List(kind, prefix)
			for _, key := range keys {
				info, err := os.Stat(f.Objects().Path(key))
				if err != nil {
					t.Fatal(err)
				}
				stored += info.Size()
			}
		}
	}
	if want := (repo.Usage{Revisions: 4, Virtual: 12 * b, Sparse: 2 * b, Shared: 3 * b, Exclusive: 7 * b, Deduplicated: 5 * b, Compressed: stored}); all != want {
		t.Errorf("%+v, want %+v", all, want)
	}
}

// A page that is lost is told of, once, also where it is of the lowest level and there are many parts.
func TestUsageTellsOfWhatIsLost(t *testing.T) {
	repo.SmallUsage(t)
	f := repotest.New(t)
	commit(t, f, "vm1", "a", "b", "c", "d", "e", "f")
	list, _, _ := f.Job.List()
	f.Spoil(f.Pages(list[0])[0], true)
	lost := 0
	if _, _, err := f.Usage(context.Background(), func(error) { lost++ }); err != nil || lost != 1 {
		t.Errorf("%d things are lost, want 1; %v", lost, err)
	}
}

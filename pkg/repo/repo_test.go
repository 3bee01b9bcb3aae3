package repo

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/object/objecttest"
)

var (
	ctx   = context.Background()
	start = time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC)
	quiet = slog.New(slog.DiscardHandler)
)

func world() World { return World{Now: func() time.Time { return start.Add(time.Minute) }} }

func newJob(t *testing.T) *Job {
	t.Helper()
	r, err := Init(t.TempDir(), MinBlock, world())
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.Job("vm1")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// content is a disk in blocks: a word for each, "" for zero.
type content []string

// backup stores a revision of a disk with this content, as the stages would; before the commit it calls hook.
func backup(t *testing.T, j *Job, base string, disk content, o WriterOptions, hook func(*Writer)) (Revision, error) {
	t.Helper()
	w, err := j.NewWriter(o)
	if err != nil {
		return Revision{}, err
	}
	defer w.Close()
	m := blockmap.Map{BlockSize: MinBlock}
	if base != "" {
		r, err := j.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		m = r.Map()
	}
	if err := w.Begin(base, m.Root, MinBlock); err != nil {
		return Revision{}, err
	}
	pages, err := blockmap.NewPages(j.repo.pool)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := object.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	e := blockmap.NewEditor(blockmap.NewCursor(pages, m), int64(len(disk))*MinBlock, func(name object.Name, text []byte) error {
		frame, _ := enc.Encode(nil, text)
		return w.Put(ctx, object.Key{Kind: object.Page, Name: name}, frame)
	})
	for i, word := range disk {
		var name object.Name
		if word != "" {
			key, frame := objecttest.Object(t, object.Chunk, word, MinBlock)
			if name = key.Name; !strings.HasPrefix(word, "unsent") {
				if err := w.Put(ctx, key, frame); err != nil {
					return Revision{}, err
				}
			}
		}
		if err := e.Set(ctx, int64(i), name); err != nil {
			t.Fatal(err)
		}
	}
	root, err := e.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if hook != nil {
		hook(w)
	}
	return w.Commit(ctx, Revision{ID: NewID(), Time: start, Source: "test", Host: "here", Size: e.Size, Block: MinBlock, Root: root, Read: ReadFull}, []string{"daily"}, quiet)
}

func must(t *testing.T, r Revision, err error) Revision {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// whole fails unless all that the revision reaches is there and good.
func whole(t *testing.T, j *Job, r Revision) {
	t.Helper()
	pages, err := blockmap.NewPages(j.repo.pool)
	if err != nil {
		t.Fatal(err)
	}
	d, err := object.NewDecoder(MinBlock)
	if err != nil {
		t.Fatal(err)
	}
	if err := blockmap.Walk(ctx, pages, r.Map(), blockmap.Visitor{Block: func(_ int64, _, name object.Name) error {
		_, _, err := object.Fetch(ctx, j.repo.pool, d, object.Key{Name: name}, nil, nil)
		return err
	}}); err != nil {
		t.Errorf("revision %s: %v", r.ID, err)
	}
}

func TestCommit(t *testing.T) {
	j := newJob(t)
	var first, second Revision
	var err error
	first, err = backup(t, j, "", content{"a", "", "b"}, WriterOptions{}, nil)
	first = must(t, first, err)
	second, err = backup(t, j, first.ID, content{"a", "c", "b", "a"}, WriterOptions{Verify: true, MinFree: 0.0001}, nil)
	second = must(t, second, err)
	list, broken, err := j.List()
	if err != nil || len(broken) != 0 || len(list) != 2 || list[0].ID != first.ID || list[1].Base != first.ID {
		t.Fatalf("list: %v, %v, %v", list, broken, err)
	}
	if !second.Time.Equal(start.Add(time.Microsecond)) || second.Duration != time.Minute {
		t.Errorf("second is of %s and took %s", second.Time, second.Duration)
	}
	for _, r := range list {
		whole(t, j, r)
		if r.StateErr != nil || r.State.Trust != Trusted || len(r.State.Tags) != 1 {
			t.Errorf("state of %s: %+v, %v", r.ID, r.State, r.StateErr)
		}
	}
	left, err := os.ReadDir(j.repo.path("tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	if regs, _ := os.ReadDir(j.repo.path("sessions")); len(regs) != 2 {
		t.Errorf("%d registrations, want 2: they outlive their sessions", len(regs))
	}
}

func TestCommitRefuses(t *testing.T) {
	var again *AgainError
	j := newJob(t)
	if _, err := backup(t, j, "", content{"a", "unsent"}, WriterOptions{}, nil); !errors.As(err, &again) {
		t.Errorf("a chunk that was not sent: %v", err)
	}
	first, err := backup(t, j, "", content{"a", "b"}, WriterOptions{}, nil)
	first = must(t, first, err)
	if _, err := backup(t, j, first.ID, content{"a", "b", "c"}, WriterOptions{}, func(w *Writer) {
		os.Rename(j.repo.path("tmp", w.id), j.repo.path("tmp", w.id+".over"))
	}); !errors.As(err, &again) || !errors.Is(err, ErrSessionEnded) {
		t.Errorf("fenced: %v", err)
	}
	if _, err := backup(t, j, first.ID, content{"a", "b", "c"}, WriterOptions{}, func(w *Writer) {
		os.Rename(j.Dir(), j.Dir()+"-moved")
	}); err == nil || errors.As(err, &again) {
		t.Errorf("the job's directory renamed: %v", err)
	}
	os.Rename(j.Dir()+"-moved", j.Dir())
	if _, err := backup(t, j, "", content{"a"}, WriterOptions{MinFree: 0.9999}, nil); err == nil || !strings.Contains(err.Error(), "free") {
		t.Errorf("no room: %v", err)
	}
	w, err := j.NewWriter(WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if _, err := j.NewWriter(WriterOptions{}); !errors.As(err, &held) || !strings.Contains(err.Error(), "pid") {
		t.Errorf("a second backup: %v", err)
	}
	os.Remove(j.file(first.ID + revSuffix))
	if err := w.Begin(first.ID, first.Root, MinBlock); !errors.As(err, &again) {
		t.Errorf("base forgotten: %v", err)
	}
	w.Close()
	if list, _, _ := j.List(); len(list) != 0 {
		t.Errorf("%d revisions", len(list))
	}
}

// What a purge beside the backup moves to limbo after it was stored is no reason to fail; what was only found is.
func TestMovedMeanwhile(t *testing.T) {
	limbo := func(j *Job, word string) func(*Writer) {
		return func(w *Writer) {
			if err := w.pool.Publish(ctx); err != nil {
				t.Fatal(err)
			}
			key, _ := objecttest.Object(t, object.Chunk, word, MinBlock)
			to := j.repo.path("limbo", "1", filepath.FromSlash(key.String()))
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o750), os.Rename(j.repo.pool.Path(key), to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	j := newJob(t)
	r, err := backup(t, j, "", content{"a"}, WriterOptions{}, limbo(j, "a"))
	whole(t, j, must(t, r, err))
	if _, err := backup(t, j, "", content{"b"}, WriterOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	var again *AgainError
	if _, err := backup(t, j, "", content{"b"}, WriterOptions{}, limbo(j, "b")); !errors.As(err, &again) {
		t.Errorf("found, then moved: %v", err)
	}
}

func TestOneBrokenRevision(t *testing.T) {
	j := newJob(t)
	first, err := backup(t, j, "", content{"a"}, WriterOptions{}, nil)
	first = must(t, first, err)
	second, err := backup(t, j, "", content{"b"}, WriterOptions{}, nil)
	second = must(t, second, err)
	if err := os.WriteFile(j.file(first.ID+revSuffix), []byte("rubbish"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(j.file(second.ID + stateSuffix)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", j.file(NewID()+revSuffix)); err != nil {
		t.Fatal(err)
	}
	list, broken, err := j.List()
	if err != nil || len(list) != 1 || len(broken) != 2 || list[0].StateErr == nil {
		t.Errorf("%v, %v, %v", list, broken, err)
	}
	if _, err := j.Base("last"); !errors.Is(err, ErrNoRevision) {
		t.Errorf("a revision without a state is a base: %v", err)
	}
	if _, err := j.Find("1"); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("find: %v", err)
	}
}

func TestReader(t *testing.T) {
	j := newJob(t)
	first, err := backup(t, j, "", content{"a"}, WriterOptions{}, nil)
	first = must(t, first, err)
	s, unregistered, err := j.repo.Read(first)
	if err != nil || unregistered != nil {
		t.Fatal(unregistered, err)
	}
	text, err := os.ReadFile(j.repo.path("sessions", s.ID))
	if err != nil || !strings.Contains(string(text), "\nroot: "+first.Root.String()+"\n") {
		t.Errorf("registration: %s, %v", text, err)
	}
	if over, err := j.repo.Ended(s.ID); over || err != nil {
		t.Errorf("ended: %v, %v", over, err)
	}
	os.Remove(j.repo.path("sessions", s.ID))
	if err := s.Alive(); !errors.Is(err, ErrSessionEnded) {
		t.Errorf("alive: %v", err)
	}
	s.Close()
	s, _, err = j.repo.Read(first)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if over, err := j.repo.Ended(s.ID); !over || err != nil {
		t.Errorf("ended: %v, %v", over, err)
	}
	var again *AgainError
	os.Remove(j.file(first.ID + revSuffix))
	if _, _, err := j.repo.Read(first); !errors.As(err, &again) {
		t.Errorf("forgotten: %v", err)
	}
}

func TestOpen(t *testing.T) {
	j := newJob(t)
	base := j.repo.Base
	for path, want := range map[string]string{"": "", "vm1": "vm1", "a/b.c/d": "a/b.c/d", "vm1/../vm2": "vm2"} {
		if r, job, err := Open(filepath.Join(base, path), world()); err != nil || job != want || r.ID != j.repo.ID || r.Base != base {
			t.Errorf("%q: job %q, %v", path, job, err)
		}
	}
	for _, name := range []string{".hidden", "a..b", "a/.b", "a b", "a.", "-a", "ä", strings.Repeat("a", 300), ".backy/chunks"} {
		if _, _, err := Open(filepath.Join(base, name), world()); err == nil {
			t.Errorf("%q was taken for a job", name)
		}
	}
	if _, _, err := Open("/", world()); !errors.Is(err, ErrNoRepository) {
		t.Errorf("no repository: %v", err)
	}
	if _, err := Init(filepath.Join(base, "inner"), MinBlock, world()); err == nil {
		t.Error("a repository in a repository")
	}
	text, err := os.ReadFile(j.repo.path(configFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{{"format: 1", "format: 2"}, {"sha256", "sha512"}, {"seal: none", "seal: age"}, {"fanout: 1024", "fanout: 512"}, {"block: 262144", "block: 262145"}, {"\nhash", "\nnew: x\nhash"}} {
		os.WriteFile(j.repo.path(configFile), []byte(strings.Replace(string(text), change[0], change[1], 1)), 0o640)
		if _, _, err := Open(base, world()); err == nil {
			t.Errorf("%s was taken", change[1])
		}
	}
}

func TestFind(t *testing.T) {
	at := func(s string) time.Time { v, _ := time.Parse(time.RFC3339, s); return v }
	list := []Revision{
		{ID: "AAAABBBBBBBBBBBBBBBBBB", Time: at("2026-01-01T10:00:00Z"), State: State{Tags: []string{"daily", "weekly"}}},
		{ID: "AAAACCCCCCCCCCCCCCCCCC", Time: at("2026-01-02T10:00:00Z"), State: State{Tags: []string{"daily"}}},
		{ID: "DDDDDDDDDDDDDDDDDDDDDD", Time: at("2026-01-03T10:00:00Z"), State: State{Tags: []string{"manual:x"}}},
	}
	for spec, want := range map[string]int{
		"0": 2, "2": 0, "last": 2, "latest": 2, "first": 0, "AAAACCCCCCCCCCCCCCCCCC": 1, "daily": 1, "weekly": 0, "manual:x": 2,
		"AAAAB": 0, "DDDD": 2, "2026-01-02": 1, "2026-01-03T09:00": 1, "2026-01-09": 2, "3": -1, "AAAA": -1, "DDD": -1, "2025-01-01": -1, "": -1, "nope": -1, "-1": -1,
	} {
		got, err := find(list, spec)
		if (want < 0) != (err != nil) || want >= 0 && got.ID != list[want].ID {
			t.Errorf("%q: %s, %v", spec, got.ID, err)
		}
	}
}

func TestMountTable(t *testing.T) {
	line := func(point, kind, opts string) string {
		return "36 35 0:1 / " + point + " rw shared:1 - " + kind + " src " + opts + "\n"
	}
	root := line("/", "ext4", "rw")
	for _, tt := range []struct {
		table string
		ok    bool
	}{
		{root, true},
		{root + line("/srv", "nfs", "rw,vers=3"), false},
		{root + line("/srv", "nfs4", "rw,vers=4.2"), false},
		{root + line("/srv", "nfs4", "rw,vers=4.2,lookupcache=none,local_lock=none"), true},
		{root + line("/srv", "nfs4", "rw,lookupcache=none,local_lock=all"), false},
		{root + line("/srv/other", "nfs", "rw"), true},
		{root + line("/srv", "nfs", "rw") + line("/srv/backy", "xfs", "rw"), true},
	} {
		if err := checkMountTable(tt.table, "/srv/backy"); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.table, err)
		}
	}
}

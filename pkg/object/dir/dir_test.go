package dir

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"backy/pkg/durable"
	"backy/pkg/object"
	"backy/pkg/object/objecttest"
)

func open(t *testing.T, ops durable.Ops) *Writer {
	root := t.TempDir()
	staging := filepath.Join(root, "tmp")
	if err := os.Mkdir(staging, 0o750); err != nil {
		t.Fatal(err)
	}
	w := Open(root).Writer(staging, ops)
	t.Cleanup(w.Close)
	return w
}

func TestStore(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return open(t, durable.Ops{}) })
}

func TestReadsFromLimboButDoesNotCountIt(t *testing.T) {
	ctx, w := context.Background(), open(t, durable.Ops{})
	key, frame := objecttest.Object(t, object.Chunk, "limbo", 100)
	path := filepath.Join(w.root, Limbo, "7", filepath.FromSlash(key.String()))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, frame, 0o640)); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.Has(ctx, key); ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	if got, err := w.Get(ctx, key, nil); err != nil || !bytes.Equal(got, frame) {
		t.Errorf("get: %v", err)
	}
}

func TestAnErrorOfSyncIsTheEnd(t *testing.T) {
	ctx, calls := context.Background(), 0
	w := open(t, durable.Ops{Fdatasync: func(*os.File) error {
		if calls++; calls == 1 {
			return syscall.EIO
		}
		return nil
	}})
	key, frame := objecttest.Object(t, object.Chunk, "eio", 100)
	if err := errors.Join(w.Put(ctx, key, frame)); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		if err := w.Publish(ctx); !errors.Is(err, syscall.EIO) {
			t.Errorf("publish %d: %v", n, err)
		}
	}
	if err := w.Put(ctx, key, frame); !errors.Is(err, syscall.EIO) {
		t.Errorf("put: %v", err)
	}
	if ok, _ := w.Has(ctx, key); ok || calls != 1 {
		t.Errorf("visible %v after %d syncs", ok, calls)
	}
}

func TestStagingTakenAway(t *testing.T) {
	ctx, w := context.Background(), open(t, durable.Ops{})
	key, frame := objecttest.Object(t, object.Chunk, "fence", 100)
	if err := w.Put(ctx, key, frame); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(w.staging); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(ctx); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("publish: %v", err)
	}
}

func TestAFileGrownByDamageCostsNoMemory(t *testing.T) {
	ctx, w := context.Background(), open(t, durable.Ops{})
	key, frame := objecttest.Object(t, object.Chunk, "grown", 100)
	if err := errors.Join(w.Put(ctx, key, frame), w.Publish(ctx), os.Truncate(w.Path(key), 1<<40)); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Get(ctx, key, nil); err != nil || len(got) > 2*maxFile {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestList(t *testing.T) {
	ctx, w := context.Background(), open(t, durable.Ops{})
	want := map[object.Key]bool{}
	for i := range 50 {
		key, frame := objecttest.Object(t, object.Kinds[i%2], "listed"+string(rune('A'+i)), 100)
		want[key] = true
		if err := w.Put(ctx, key, frame); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Publish(ctx), os.WriteFile(filepath.Join(w.root, "chunks", "stray"), nil, 0o640)); err != nil {
		t.Fatal(err)
	}
	for _, kind := range object.Kinds {
		for prefix := range Prefixes {
			keys, err := w.List(kind, prefix)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				if !want[key] || key.Kind != kind {
					t.Errorf("%s is not wanted there", key)
				}
				delete(want, key)
			}
		}
	}
	if len(want) != 0 {
		t.Errorf("%d were not listed", len(want))
	}
}

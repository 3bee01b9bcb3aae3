package chunk

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"backy/pkg/object"
	"backy/pkg/object/faulty"
	"backy/pkg/repo/repotest"
)

// An object that the disk does not give back is sent again, and is marked, so that the one that is sent is put in its place.
// An error of any other kind says nothing of it.
func TestUnreadable(t *testing.T) {
	f := repotest.New(t)
	d := repotest.NewDisk(3 * repotest.Block)
	d.WriteAt(repotest.Noise(rand.New(rand.NewPCG(1, 0)), d.Size()), 0)
	rev := f.Backup(d)
	keys := append(f.Chunks(rev)[:2], f.Pages(rev)...)
	elsewhere := errors.New("too many open files")
	pool := struct {
		pool
		object.Putter
	}{pool: f.Objects()}
	var said bytes.Buffer
	l := &lookup{repo: f.Repo, verify: true, recent: map[object.Key]int64{}, log: slog.New(slog.NewTextHandler(&said, nil)),
		pool: &faulty.Store{Store: pool, Fail: func(op faulty.Op, _ int, key object.Key) error {
			switch {
			case op == faulty.Get && key == keys[1]:
				return elsewhere
			case op == faulty.Get:
				return syscall.EIO
			}
			return nil
		}}}
	for i, key := range keys {
		there, err := l.has(context.Background(), key, 0)
		if i == 1 && !errors.Is(err, elsewhere) || i != 1 && err != nil || there {
			t.Errorf("%s: %v, %v", key, there, err)
		}
		marks, err := f.Marks()
		if err != nil || marks[key] != (i != 1) || strings.Contains(said.String(), key.String()) != marks[key] {
			t.Errorf("%s is marked: %v, %v; said %s", key, marks[key], err, said.String())
		}
	}

	// What backy-store gets then is put over what is there, read back, and the mark goes.
	for i, key := range keys {
		if i != 1 {
			f.Spoil(key, false)
		}
	}
	rev = f.Backup(d)
	f.Want(rev, d)
	if marks, err := f.Marks(); err != nil || len(marks) > 0 {
		t.Errorf("marks: %v, %v", marks, err)
	}
}

package expire

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/repo"
)

// A full disk is when revisions have to go: what is set aside lets expire do its work, and is there again after it.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("backy-test", mount, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Errorf("unmount %s: %v", mount, err)
		}
	})
	r, err := repo.Init(filepath.Join(mount, "srv"), repo.MinBlock, repo.World{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.Job("vm1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(j.Dir(), 0o750); err != nil {
		t.Fatal(err)
	}
	want := week(t, j)
	f, err := os.Create(filepath.Join(mount, "filling"))
	if err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if f.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	reserve := func() int64 {
		i, err := os.Stat(filepath.Join(r.Base, repo.Dot, "reserve"))
		if err != nil {
			t.Fatal(err)
		}
		return i.Size()
	}
	before := reserve()
	if _, err := Run(ctx, options(j)); err != nil || tags(t, j) != want {
		t.Errorf("%s, %v", tags(t, j), err)
	}
	if before == 0 || reserve() < before/2 {
		t.Errorf("the reserve had %d bytes, and now %d", before, reserve())
	}
}

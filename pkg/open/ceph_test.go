//go:build ceph

package open

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/disk/rbd/rbdtest"
)

func TestMain(m *testing.M) {
	defer rbdtest.Stop()
	m.Run()
}

func TestCeph(t *testing.T) {
	rbdtest.Cluster(t)
	a := parse(t, "rbd:rbd/open")
	if d, err := Source(a, Options{}); d != nil || !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "open rbd:rbd/open: there is no image open") {
		t.Errorf("got %v, %v", d, err)
	}
	w, err := Target(a, 1000, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.(disk.Committer).Commit(), w.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rbdtest.RBD(t, "rm", "--no-progress", "rbd/open") })
	d, err := Source(a, Options{})
	if err != nil || d.Size() != 1000 {
		t.Fatal(err)
	}
	d.Close()
	if w, err := Target(a, 1000, false); w != nil || !errors.Is(err, fs.ErrExist) || !strings.HasPrefix(err.Error(), "rbd:rbd/open exists already; all of it would be written over, which takes --force") {
		t.Errorf("over an existing image: got %v, %v", w, err)
	}
	if w, err := Target(a, 1001, true); w != nil || err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("too small: got %v, %v", w, err)
	}
	if w, err = Target(a, 1000, true); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.(disk.Committer); ok {
		t.Error("an existing image is written in place, yet has a Commit")
	}
	w.Close()
	if w, err := Target(parse(t, "rbd:rbd/open@s"), 1000, true); w != nil || err == nil || !strings.Contains(err.Error(), "a snapshot cannot be written to") {
		t.Errorf("a snapshot: got %v, %v", w, err)
	}
}

//go:build ceph

package rbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	ceph "github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk"
	"backy/pkg/disk/disktest"
	"backy/pkg/disk/rbd"
	"backy/pkg/disk/rbd/rbdtest"
)

// A machine that writes keeps its lock while snapshots are made and removed, and each snapshot is of one moment: of two
// numbers in different objects, written by turns, the first is never behind the second, and never more than one ahead.
func TestSnapshotsOfMachine(t *testing.T) {
	for _, mode := range []string{"lock on demand", "lock for good"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			l, m := live(t, image(t, make([]byte, 4*object), small...))
			if mode == "lock for good" {
				must(t, m.img.LockAcquire(ceph.LockModeExclusive))
			}
			m.write(make([]byte, 8), 0)
			stop := make(chan struct{})
			var lost bool
			var writes uint64
			var all sync.WaitGroup
			all.Go(func() {
				for n := uint64(1); ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					p := binary.BigEndian.AppendUint64(nil, n)
					m.write(p, 0)
					m.write(p, 3*object)
					owner, err := m.img.LockIsExclusiveOwner()
					lost = lost || err != nil || !owner
					writes = n
				}
			})
			var last uint64
			for _, name := range []string{"a", "b", "c", "d"} {
				got := whole(t, take(t, l.Disk, name))
				first, second := binary.BigEndian.Uint64(got), binary.BigEndian.Uint64(got[3*object:])
				if first < second || first > second+1 || first < last {
					t.Errorf("snapshot %s: %d, then %d; before, it was %d", name, first, second, last)
				}
				last = first
				must(t, l.Disk.(disk.Snapshotter).RemoveSnapshot(t.Context(), name))
			}
			close(stop)
			all.Wait()
			if lost || last == 0 {
				t.Errorf("the machine lost its lock: %v; it had written %d at the last snapshot, %d in the end", lost, last, writes)
			}
		})
	}
}

func whole(t *testing.T, d disk.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	_, err := d.ReadAt(p, 0)
	must(t, err)
	return p
}

// With nobody there, the lock is free again afterwards.
func TestSnapshotLeavesNothing(t *testing.T) {
	a := image(t, disktest.Content(1<<20), small...)
	d := open(t, a)
	s := take(t, d, "s")
	must(t, d.RemoveSnapshot(t.Context(), "s"))
	m := start(t, a)
	for what, got := range map[string]func() (int, error){
		"watchers": func() (int, error) { list, err := m.img.ListWatchers(); return len(list) - 1, err },
		"owners": func() (int, error) {
			list, err := m.img.LockGetOwners()
			if errors.Is(err, ceph.ErrNotFound) {
				err = nil
			}
			return len(list), err
		},
	} {
		if n, err := got(); n != 0 || err != nil {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
	if !s.(disk.Fixed).Fixed() || d.Fixed() {
		t.Error("a snapshot is fixed, and nothing else")
	}
}

func TestRemoveSnapshot(t *testing.T) {
	a := image(t, disktest.Content(1<<20), small...)
	d := open(t, a)
	take(t, d, "s")
	at := a.String() + "@s"
	rbdtest.RBD(t, "snap", "protect", at)
	err := d.RemoveSnapshot(t.Context(), "s")
	if err == nil || err.Error() != "remove the snapshot rbd:"+at+": it is protected; `rbd snap unprotect "+at+"` allows it" {
		t.Errorf("protected: %v", err)
	}
	rbdtest.RBD(t, "snap", "unprotect", at)
	must(t, d.RemoveSnapshot(t.Context(), "s"))
	must(t, d.RemoveSnapshot(t.Context(), "s"))

	b := rbd.Address{Pool: "rbd", Image: name(t)}
	rbdtest.RBD(t, "create", "--size", "1M", b.String())
	gone := open(t, b)
	remove(t, b)
	must(t, gone.RemoveSnapshot(t.Context(), "s"))
	if err := gone.Snapshot(t.Context(), "s"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is no image "+b.Image) {
		t.Errorf("of an image that is gone: %v", err)
	}
	s := take(t, d, "s")
	for _, err := range []error{s.(*rbd.Image).Snapshot(t.Context(), "t"), s.(*rbd.Image).RemoveSnapshot(t.Context(), "t")} {
		if err == nil || !strings.Contains(err.Error(), at+": it is of a snapshot") {
			t.Errorf("of a snapshot: %v", err)
		}
	}
	must(t, errors.Join(s.Close(), d.RemoveSnapshot(t.Context(), "s"), d.Close()))
	if err := d.RemoveSnapshot(t.Context(), "s"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("of an image that is closed: %v", err)
	}
}

// Who may only read is told so, and reads what others make.
func TestSnapshotUser(t *testing.T) {
	a := image(t, disktest.Content(1<<20), small...)
	snapshot(t, a, "s")
	reader := user(t, "watcher", "mon", "profile rbd", "osd", "profile rbd-read-only pool=rbd")
	t.Setenv("CEPH_ARGS", reader)
	d := open(t, a)
	for _, err := range []error{d.Snapshot(t.Context(), "t"), d.RemoveSnapshot(t.Context(), "s")} {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "for client.watcher (to make and remove snapshots, its caps need `profile rbd` for pool rbd)") {
			t.Errorf("got %v", err)
		}
	}
	s, err := d.OpenSnapshot(t.Context(), "s")
	must(t, err)
	defer s.Close()
	if got := changes(t, s, "s", 4096); got != "" {
		t.Errorf("got %s", got)
	}
	t.Setenv("CEPH_ARGS", "--id backup")
	d = open(t, a)
	take(t, d, "t")
	must(t, d.RemoveSnapshot(t.Context(), "t"))
}

// An encrypted image is a row of bytes, to be had back as they are, whatever is written to it by who has the key.
func TestEncrypted(t *testing.T) {
	for format, load := range map[string]func(*ceph.Image) error{
		"luks1": func(img *ceph.Image) error {
			return img.EncryptionLoad(ceph.EncryptionOptionsLUKS1{Passphrase: []byte("secret")})
		},
		"luks2": func(img *ceph.Image) error {
			return img.EncryptionLoad(ceph.EncryptionOptionsLUKS2{Passphrase: []byte("secret")})
		},
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			a := create(t, 24<<20)
			key := t.TempDir() + "/key"
			must(t, os.WriteFile(key, []byte("secret"), 0o600))
			rbdtest.RBD(t, "encryption", "format", a.String(), format, key)
			m := start(t, a)
			must(t, load(m.img))
			d := open(t, a)
			take(t, d, "s")
			m.write(bytes.Repeat([]byte("plain"), 1000), 1<<20)
			s := take(t, d, "t")
			got := whole(t, s)
			if !bytes.HasPrefix(got, []byte("LUKS\xba\xbe")) || bytes.Contains(got, []byte("plainplain")) || !bytes.Equal(got, content(t, a)) {
				t.Errorf("it begins with %q, or is another than by rbd export, or not encrypted", got[:8])
			}
			if c := changes(t, s, "s", 4<<20); c == "" {
				t.Error("what was written is no change")
			}
			check(t, s.(*rbd.Image), got)
			must(t, errors.Join(s.Close(), d.RemoveSnapshot(t.Context(), "s"), d.RemoveSnapshot(t.Context(), "t")))
		})
	}
}

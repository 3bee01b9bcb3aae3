package fault

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"backy/pkg/durable"
	"backy/pkg/repo"
)

// small is a job on a small file system.
type small struct {
	t     *testing.T
	mnt   string
	repo  *repo.Repo
	disks map[string][]byte // by source
}

func newSmall(t *testing.T, fs string) *small {
	dir := filepath.Join(t.TempDir(), "rig")
	s := &small{t: t, mnt: filepath.Join(dir, "mnt"), disks: map[string][]byte{}}
	t.Cleanup(func() { rig(t, "small-fs", "stop", dir) })
	rig(t, "small-fs", "start", dir, "320M", fs)
	var err error
	if s.repo, err = repo.Init(filepath.Join(s.mnt, "srv"), block, world(durable.Ops{})); err != nil {
		t.Fatal(err)
	}
	s.disks["first"] = newDisk(newRandom(t), 8)
	if _, err := backup(s.repo, "vm1", "first", s.disks["first"]); err != nil {
		t.Fatal(err)
	}
	return s
}

// space is what everybody may still write, and the size of the file system, in bytes.
func (s *small) space() (free, size int64) {
	s.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(s.mnt, &st); err != nil {
		s.t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize
}

// fill takes all space and gives this much back, in bytes.
func (s *small) fill(left int64) (release func()) {
	s.t.Helper()
	path := filepath.Join(s.mnt, "filler")
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	var end int64
	for step := int64(64 << 20); step >= 4096; {
		if unix.Fallocate(int(f.Fd()), 0, end, step) != nil {
			step /= 2
		} else {
			end += step
		}
	}
	must(s.t, f.Truncate(end-left))
	run(s.t, "sync", "-f", s.mnt) // until then, some file systems do not hand it out again
	return func() { must(s.t, os.Remove(path)); run(s.t, "sync", "-f", s.mnt) }
}

// whole fails the test unless there are this many revisions to see, all of them whole, and nothing half-done.
func (s *small) whole(want int) {
	s.t.Helper()
	must(s.t, allWhole(s.repo, func(rev repo.Revision) []byte { return s.disks[rev.Source] }))
	if n, err := revisions(s.repo, "vm1"); n != want || err != nil {
		s.t.Errorf("%d revisions, %v; want %d", n, err, want)
	}
	if left, err := os.ReadDir(filepath.Join(s.repo.Base, repo.Dot, "tmp")); len(left) > 0 || err != nil {
		s.t.Errorf("staging is left behind: %v, %v", left, err)
	}
}

// TestSoakDiskFull backs up more than there is space for, with so much space left that it ends at different steps. In the
// soak, there may just be enough.
func TestSoakDiskFull(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		s, rnd, done := newSmall(t, fs), newRandom(t), 1
		const size = 20 * block
		spaces := []int64{0, 256 << 10, 2 << 20}
		for range soak(0, 20) {
			spaces = append(spaces, size-1<<20+rnd.Int64N(3<<20))
		}
		for i, left := range spaces {
			source, disk := fmt.Sprint("big ", i), make([]byte, size)
			random(rnd, disk)
			s.disks[source] = disk
			stream, err := objects(s.repo, "vm1", source, disk)
			must(t, err)
			release := s.fill(left)
			store, answer := feed(t, s.repo, "vm1", stream, 0, func() {})
			if store.ProcessState.Success() && left > size/2 {
				done++
			} else {
				oneLine(t, store, 1, "is full")
				if answer != "" {
					t.Errorf("it answers all the same: %s", answer)
				}
			}
			s.whole(done)
			release()
		}
		rev, err := backup(s.repo, "vm1", "big 0", s.disks["big 0"])
		must(t, err)
		must(t, restored(s.repo, rev, s.disks["big 0"]))
	})
}

// TestMinFree stops a backup before the disk is full for everybody: at its start, or when it has stored so much.
func TestMinFree(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		s := newSmall(t, fs)
		big := make([]byte, 320*block)
		random(newRandom(t), big)
		stream, err := objects(s.repo, "vm1", "big", big)
		must(t, err)
		free, size := s.space()
		for name, share := range map[string]float64{
			"at the start": float64(free+1<<20) / float64(size),
			"on the way":   float64(free-16<<20) / float64(size),
		} {
			before := poolSize(t, s.repo)
			c := command(t, "backy-store", "-b", filepath.Join(s.repo.Base, "vm1"), "--min-free", fmt.Sprintf("%.2f%%", 100*share))
			c.Stdin = bytes.NewReader(stream)
			_ = c.Run()
			oneLine(t, c, 1, "--min-free")
			if stored := poolSize(t, s.repo) - before; (stored > 0) != (name == "on the way") {
				t.Errorf("%s: %d bytes were stored", name, stored)
			} else if stored > 40<<20 { // btrfs counts what is on its way late
				t.Errorf("%s: %d bytes were stored, and there were 16 MiB to spare", name, stored)
			}
			s.whole(1)
		}
	})
}

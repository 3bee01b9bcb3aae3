package fault

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/repo"
)

// killing is a job that is backed up by the three commands, of which one is killed.
type killing struct {
	t     *testing.T
	rnd   *rand.Rand
	repo  *repo.Repo
	dir   string // of the job
	image string
	disk  []byte            // what is in the image
	disks map[string][]byte // by revision
	usual time.Duration     // that a backup takes
}

func newKilling(t *testing.T, rnd *rand.Rand) *killing {
	k := &killing{t: t, rnd: rnd, repo: newRepo(t), disk: newDisk(rnd, 64), disks: map[string][]byte{}, usual: time.Second}
	k.dir, k.image = filepath.Join(k.repo.Base, "vm1"), filepath.Join(t.TempDir(), "image")
	return k
}

// start starts a backup.
func (k *killing) start() []*exec.Cmd {
	k.t.Helper()
	stages := []*exec.Cmd{
		command(k.t, "backy-read", "-b", k.dir, "--base", "last", k.image),
		command(k.t, "backy-chunk", "-b", k.dir),
		command(k.t, "backy-store", "-b", k.dir, "-t", "test"),
	}
	start(k.t, stages...)
	return stages
}

// write changes about half of the image.
func (k *killing) write() {
	k.t.Helper()
	k.disk = change(k.rnd, k.disk, 2)
	if err := os.WriteFile(k.image, k.disk, 0o640); err != nil {
		k.t.Fatal(err)
	}
}

// look checks all that is visible, where a revision that was not there before is of the image as it is.
func (k *killing) look() {
	k.t.Helper()
	err := eachRevision(k.repo, func(rev repo.Revision) error {
		if _, known := k.disks[rev.ID]; !known {
			k.disks[rev.ID] = k.disk
		}
		return nil
	})
	must(k.t, err)
	must(k.t, allWhole(k.repo, func(rev repo.Revision) []byte { return k.disks[rev.ID] }))
	must(k.t, k.atRest())
}

// atRest fails where somebody seems to be at work, though nobody is.
func (k *killing) atRest() error {
	dot := filepath.Join(k.repo.Base, repo.Dot)
	err := eachFile(filepath.Join(dot, "lock"), func(path string, _ fs.FileInfo) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
			return fmt.Errorf("%s is held: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return eachFile(filepath.Join(dot, "sessions"), func(path string, _ fs.FileInfo) error {
		if ended, err := k.repo.Ended(filepath.Base(path)); err != nil || !ended {
			return fmt.Errorf("session %s is not over: %v", filepath.Base(path), err)
		}
		return nil
	})
}

// kill starts a backup, kills the victim at a random moment, or when the commit is seen to have begun, and waits for the
// others. It reports whether the victim was alive until then.
func (k *killing) kill(victim int, atCommit bool) bool {
	k.t.Helper()
	before, _ := filepath.Glob(filepath.Join(k.dir, "*.state"))
	wait := time.Duration(k.rnd.Int64N(int64(k.usual)))
	more := time.Duration(k.rnd.IntN(2000)) * time.Microsecond
	stages := k.start()
	var over atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if atCommit {
			for now := before; len(now) == len(before) && !over.Load(); {
				now, _ = filepath.Glob(filepath.Join(k.dir, "*.state"))
			}
			wait = more
		}
		time.Sleep(wait)
		_ = stages[victim].Process.Kill() // an error: it has ended by itself
	}()
	for _, c := range stages {
		_ = c.Wait() // how they end is looked at below
	}
	over.Store(true)
	<-ended
	killed := !stages[victim].ProcessState.Exited()
	n, err := revisions(k.repo, "vm1")
	must(k.t, err)
	committed := n > len(k.disks)
	for i, c := range stages {
		switch code := c.ProcessState.ExitCode(); {
		case i == victim && killed:
		case code == 0 && (i < victim || !killed || committed):
		case code == 0:
			k.t.Errorf("%s was killed, and %s says that all is well", filepath.Base(stages[victim].Path), filepath.Base(c.Path))
		case !killed:
			k.t.Errorf("%s: %v: %s", filepath.Base(c.Path), c.ProcessState, said(c))
		case strings.Contains(said(c), "panic"):
			k.t.Errorf("%s: %s", filepath.Base(c.Path), said(c))
		}
	}
	return killed
}

// TestSoakKill kills one of the three commands of a backup, any of them at any moment. Then every revision that is
// listed restores, nothing is locked, and the next backup works and stores only what the killed one had not published.
func TestSoakKill(t *testing.T) {
	rnd := newRandom(t)
	var k *killing
	killed, reused, committed := map[string]int{}, int64(0), 0
	kills, rounds := 0, 0
	for n := 0; kills < soak(20, 200) && n < soak(100, 1000); n++ {
		rounds++
		if n%5 == 0 {
			k = newKilling(t, rnd)
		}
		k.write()
		before := poolSize(t, k.repo)
		victim, atCommit := n%3, n%4 == 3
		if atCommit {
			victim = 2
		}
		names := []string{"read", "chunk", "store"}
		was := len(k.disks)
		if k.kill(victim, atCommit) {
			killed[names[victim]]++
			kills++
		}
		k.look()
		if len(k.disks) > was {
			committed++
			k.write() // or there would be nothing to store
			before = poolSize(t, k.repo)
		}
		published := poolSize(t, k.repo) - before
		reused += published

		begin := time.Now()
		stages := k.start()
		for _, c := range stages {
			if err := c.Wait(); err != nil {
				t.Errorf("the next backup: %s: %v: %s", filepath.Base(c.Path), err, said(c))
			}
		}
		k.usual = time.Since(begin)
		job, err := k.repo.Job("vm1")
		must(t, err)
		rev, err := job.Find("last")
		must(t, err)
		must(t, restored(k.repo, rev, k.disk))
		k.disks[rev.ID] = k.disk
		if rest := poolSize(t, k.repo) - before - published; rev.Stored != rest {
			t.Errorf("round %d: the next backup has stored %d bytes, %d of them anew; the killed one had published %d", n, rev.Stored, rest, published)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("in %d rounds: killed %v, %d of them after their commit; %d bytes that they had published were used again", rounds, killed, committed, reused)
	if reused == 0 {
		t.Error("nobody that was killed had published anything, so this shows little")
	}
}

package fault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/durable"
	"backy/pkg/repo"
)

// fence does what a purge does to a writer that it takes for dead, although it may be alive: it takes its staging
// directory away, with the .rev first, and then its registration.
func fence(r *repo.Repo) error {
	tmp := filepath.Join(r.Base, repo.Dot, "tmp")
	list, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, e := range list {
		over := filepath.Join(tmp, e.Name())
		if !isWriter(over) {
			continue
		}
		if !strings.HasSuffix(over, ".over") {
			if err := os.Rename(over, over+".over"); errors.Is(err, fs.ErrNotExist) {
				continue // it has ended by itself
			} else if err != nil {
				return err
			}
			over += ".over"
		}
		if err := os.Remove(filepath.Join(over, "rev")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err := os.RemoveAll(over)
		for errors.Is(err, unix.ENOTEMPTY) { // a file that was being made came late
			err = os.RemoveAll(over)
		}
		if err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(r.Base, repo.Dot, "sessions", e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// isWriter tells a writer's staging directory from a reader's.
func isWriter(staging string) bool {
	_, err := os.Lstat(filepath.Join(staging, "sent"))
	return err == nil || strings.HasSuffix(staging, ".over")
}

// fenced is the outcome of a backup that was fenced: it must not be there, must say that it is to be run again, and must
// not have made its staging anew.
func fenced(r *repo.Repo, job string, err error) error {
	var code interface{ ExitCode() int }
	if !errors.As(err, &code) || code.ExitCode() != 75 {
		return fmt.Errorf("ended with %v; want exit code 75", err)
	}
	if n, err := revisions(r, job); n > 0 || err != nil {
		return fmt.Errorf("it has committed all the same: %d revisions, %v", n, err)
	}
	if list, err := os.ReadDir(filepath.Join(r.Base, repo.Dot, "tmp")); len(list) > 0 || err != nil {
		return fmt.Errorf("there is staging again: %v, %v", list, err)
	}
	return nil
}

func revisions(r *repo.Repo, job string) (int, error) {
	j, err := r.Job(job)
	if err != nil {
		return 0, err
	}
	list, broken, err := j.List()
	return len(list) + len(broken), err
}

func newRepo(t *testing.T) *repo.Repo {
	t.Helper()
	r, err := repo.Init(t.TempDir(), block, world(durable.Ops{}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFencedAtEachSync fences a writer before each of the calls that make something durable: of its registration, of
// each object, of everything, and of the .rev. Only when the .rev is linked already, it is too late.
func TestFencedAtEachSync(t *testing.T) {
	rnd, r := newRandom(t), newRepo(t)
	at := map[string]int{} // how often it was fenced where
	for n, fired := 1, true; fired; n++ {
		job := fmt.Sprintf("vm%d", n)
		fired = false
		var mu sync.Mutex
		var calls int
		linked := false
		step := func(name string, f *os.File) error {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(name, "fdatasync") && !isWriter(filepath.Dir(f.Name())) {
				return nil
			}
			if calls++; calls != n {
				return nil
			}
			fired = true
			at[name]++
			there, err := revisions(r, job)
			linked = there > 0
			return errors.Join(err, fence(r))
		}
		r.Ops = durable.Ops{
			Fdatasync: func(f *os.File) error { return errors.Join(step("fdatasync "+kindOf(f), f), kernel.File(f)) },
			FsyncDir:  func(f *os.File) error { return errors.Join(step("fsync of a directory", f), kernel.Dir(f)) },
			Syncfs:    func(f *os.File) error { return errors.Join(step("syncfs", f), kernel.FS(f)) },
		}
		disk := distinct(rnd, 6)
		rev, err := backup(r, job, "disk", disk)
		switch {
		case fired && !linked:
			if err := fenced(r, job, err); err != nil {
				t.Errorf("before call %d (%v): %v", n, at, err)
			}
		case err != nil:
			t.Errorf("before call %d, not fenced: %v", n, err)
		default:
			if err := restored(r, rev, disk); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			return
		}
	}
	for _, name := range []string{"fdatasync registration", "fdatasync object", "syncfs", "fdatasync rev", "fsync of a directory"} {
		if at[name] == 0 {
			t.Errorf("never fenced before %s: %v", name, at)
		}
	}
	t.Log("fenced before: ", at)
}

// kindOf is what a file in the staging directory is.
func kindOf(f *os.File) string {
	base := filepath.Base(f.Name())
	if strings.Trim(base, "0123456789") == "" {
		return "object"
	}
	return base
}

// TestFencedWhileItReads fences a writer at each step of what it reads.
func TestFencedWhileItReads(t *testing.T) {
	rnd, r := newRandom(t), newRepo(t)
	fired, total := true, 0
	for n := 0; fired; n++ {
		job := fmt.Sprintf("vm%d", n)
		fired = false
		_, err := backupThrough(r, job, "disk", distinct(rnd, 3), func(in io.Reader) io.Reader {
			return &step{in, n, func() { fired = true; must(t, fence(r)) }}
		})
		if fired {
			total++
			if err := fenced(r, job, err); err != nil {
				t.Fatalf("at read %d: %v", n, err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("fenced at %d reads", total)
}

// step calls at before the read of that number.
type step struct {
	io.Reader
	left int
	at   func()
}

func (s *step) Read(p []byte) (int, error) {
	if s.left == 0 {
		s.at()
	}
	s.left--
	return s.Reader.Read(p)
}

// TestSoakFence fences writers at random moments, the link of the .rev among them: a backup that says it is done is
// there, and one that was fenced before is not.
func TestSoakFence(t *testing.T) {
	rnd, r := newRandom(t), newRepo(t)
	disk := newDisk(rnd, 2) // the objects are there from the first round on, so that the commit is most of the work
	begin := time.Now()
	if _, err := backup(r, "first", "disk", disk); err != nil {
		t.Fatal(err)
	}
	usual, done, rounds := time.Since(begin), 0, soak(200, 2000)
	for n := range rounds {
		job := fmt.Sprintf("vm%d", n)
		wait := time.Duration(rnd.Int64N(int64(usual + usual/4)))
		over := make(chan error)
		go func() {
			time.Sleep(wait)
			over <- fence(r)
		}()
		begin := time.Now()
		_, err := backup(r, job, "disk", disk)
		usual = (7*usual + time.Since(begin)) / 8
		must(t, <-over)
		there, lerr := revisions(r, job)
		must(t, lerr)
		if err == nil {
			done++
		}
		if (err == nil) != (there == 1) {
			t.Fatalf("round %d: %d revisions, and %v", n, there, err)
		}
	}
	t.Logf("%d of %d came before the fence", done, rounds)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

package repo

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestWhoBacksUp(t *testing.T) {
	r, err := Init(t.TempDir(), DefaultBlock, World{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	job, _ := r.Job("a/b")
	nobody := func(when string) {
		t.Helper()
		if h, err := job.Writer(); h != nil || err != nil || job.MaybeWriter() {
			t.Errorf("%s: %v, %v, %t", when, h, err, job.MaybeWriter())
		}
	}
	nobody("before the first backup")

	lock, err := r.lock(lockName(job.Name, "backup"), "the job")
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	h, err := job.Writer()
	if err != nil || h == nil || h.PID != os.Getpid() || h.Host != host || !job.MaybeWriter() {
		t.Fatalf("%+v, %v", h, err)
	}
	if want := whoami(); h.String() != want {
		t.Errorf("got %s, want %s", h, want)
	}
	if _, err := r.WriterSession(*h); !errors.Is(err, ErrNoSession) {
		t.Errorf("no session is registered: %v", err)
	}
	if err := os.WriteFile(r.path("lock", "a:b.backup"), []byte("x"), 0o640); err != nil { // as on a full disk
		t.Fatal(err)
	}
	if h, err = job.Writer(); err != nil || h == nil || h.PID != 0 || h.String() != "another process" {
		t.Errorf("whose words cannot be read: %+v, %v", h, err)
	}
	lock.Unlock()
	nobody("after it")

	// Who was killed has left words, and no lock.
	if err := os.WriteFile(r.path("lock", "a:b.backup"), []byte(whoami()+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if h, err := job.Writer(); h != nil || err != nil {
		t.Errorf("a dead writer: %v, %v", h, err)
	}
}

func TestOneScheduler(t *testing.T) {
	r, err := Init(t.TempDir(), DefaultBlock, World{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := r.LockScheduler()
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.LockScheduler()
	if held := (*HeldError)(nil); !errors.As(err, &held) || !strings.Contains(err.Error(), whoami()) {
		t.Errorf("a second one: %v", err)
	}
	lock.Unlock()
	if lock, err = r.LockScheduler(); err != nil {
		t.Fatal(err)
	}
	lock.Unlock()
}

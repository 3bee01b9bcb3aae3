//go:build ceph

package rbd_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"backy/pkg/disk/rbd"
	"backy/pkg/disk/rbd/rbdtest"
)

// user adds one to the cluster and returns the options that make Ceph's tools, and us, this user.
func user(t *testing.T, id string, caps ...string) string {
	t.Helper()
	keyring := filepath.Join(t.TempDir(), "keyring")
	key := rbdtest.Tool(t, nil, "ceph", append([]string{"auth", "get-or-create", "client." + id}, caps...)...)
	must(t, os.WriteFile(keyring, []byte(key), 0o600))
	t.Cleanup(func() {
		os.Setenv("CEPH_ARGS", "--id admin")
		rbdtest.Tool(t, nil, "ceph", "auth", "rm", "client."+id)
	})
	return "--id " + id + " --keyring " + keyring
}

func TestUser(t *testing.T) {
	a := create(t, 1<<20)
	s := snapshot(t, a, "s")
	reader := user(t, "reader", "mon", "profile rbd", "osd", "profile rbd-read-only pool=rbd")
	stranger := user(t, "stranger", "mon", "profile rbd", "osd", "profile rbd pool=other")

	t.Setenv("CEPH_ARGS", "--id backup") // profile rbd
	must(t, open(t, s).Close())
	w, err := rbd.OpenTarget(a, 1<<20)
	must(t, err)
	must(t, w.Close())

	t.Setenv("CEPH_ARGS", reader)
	d := open(t, s)
	if got := runs(t, d); len(got) > 0 {
		t.Errorf("data at %v", got)
	}
	_, err = d.Stat()
	must(t, err)
	if _, err := rbd.OpenTarget(a, 1<<20); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "for client.reader (its caps need `profile rbd`") {
		t.Errorf("a reader opens a target: %v", err)
	}
	if _, err := rbd.Create(rbd.Address{Pool: "rbd", Image: name(t)}, 1); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a reader creates an image: %v", err)
	}

	t.Setenv("CEPH_ARGS", stranger)
	if _, err := rbd.Open(s); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "for client.stranger") {
		t.Errorf("a stranger opens an image: %v", err)
	}
	t.Setenv("CEPH_ARGS", "--id nobody")
	if _, err := rbd.Open(s); err == nil || !strings.Contains(err.Error(), "the cluster does not let client.nobody in") {
		t.Errorf("nobody opens an image: %v", err)
	}
	t.Setenv("CEPH_ARGS", "--name backup")
	if _, err := rbd.Open(s); err == nil || !strings.Contains(err.Error(), "want TYPE.ID") {
		t.Errorf("got %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	a := create(t, 1<<20)
	conf := os.Getenv("CEPH_CONF")
	t.Setenv("CEPH_CONF", "/nosuch.conf")
	if _, err := rbd.Open(a); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "read Ceph's configuration /nosuch.conf: no such file") {
		t.Errorf("got %v", err)
	}
	t.Setenv("CEPH_ARGS", "--id admin -c "+conf)
	must(t, open(t, a).Close())
	os.Unsetenv("CEPH_CONF")
	must(t, open(t, a).Close())

	t.Setenv("CEPH_ARGS", "")
	t.Setenv("CEPH_CLUSTER", "nosuch")
	t.Setenv("HOME", t.TempDir())
	t.Chdir(t.TempDir())
	if _, err := rbd.Open(a); err == nil || !strings.Contains(err.Error(), "there is no /etc/ceph/nosuch.conf; CEPH_CONF names it") {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(conf)
	must(t, err)
	must(t, os.WriteFile("nosuch.conf", text, 0o600))
	must(t, open(t, a).Close())
}

// inAnother runs a test in a process of its own, and is false there. A thread of Ceph's library that aborts takes its process
// with it, and Go does not say then what was being tested; that happened where clients had been cut off.
func inAnother(t *testing.T) bool {
	t.Helper()
	if os.Getenv("RBD_TEST") == t.Name() {
		return false
	}
	rbdtest.Cluster(t)
	runtime.LockOSThread() // whose end is what ends the other
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "RBD_TEST="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() < 0:
		t.Errorf("the process of this test did not end by itself (%v); if Go says no more, a thread of Ceph's library aborted it:\n%s", err, out)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

// soon is what a call returns that does not wait for a cluster that is down.
func soon(t *testing.T, call func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		return errors.New("waits for a cluster that is down")
	}
}

// A cluster that is down is waited for, but not for ever, and not by who has no time for that; one that comes up again
// meanwhile has only been slow.
func TestClusterDown(t *testing.T) {
	if inAnother(t) {
		return
	}
	ones := bytes.Repeat([]byte{1}, 1<<20)
	a := image(t, ones)
	args := os.Getenv("CEPH_ARGS") + " --objecter_timeout 1 --objecter_tick_interval 0.5" // so that the library calls again soon
	t.Cleanup(func() { rbdtest.Rig(t, "up") })

	t.Setenv("CEPH_ARGS", args)
	patient := open(t, a)
	third := open(t, a)
	t.Setenv("CEPH_ARGS", args+" --rados_osd_op_timeout 1 --rados_mon_op_timeout 1")
	hasty := open(t, a)
	rbdtest.Rig(t, "kill", "osd")
	var all sync.WaitGroup
	for what, call := range map[string]func() error{
		"read":     func() error { return second(hasty.ReadAt(make([]byte, 100), 0)) },
		"snapshot": func() error { return hasty.Snapshot(t.Context(), "s") },
	} {
		all.Go(func() {
			if err := call(); err == nil || !strings.Contains(err.Error(), "the cluster has not answered in time") {
				t.Errorf("%s without an osd: %v", what, err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := third.Snapshot(ctx, "t"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a snapshot without an osd, and without time: %v", err)
	}
	all.Wait()
	must(t, soon(t, third.Close)) // the cluster is silent, and the snapshot under way
	done := make(chan error)
	p := make([]byte, len(ones))
	go func() {
		_, err := patient.ReadAt(p, 0)
		done <- err
	}()
	rbdtest.Rig(t, "up")
	if err := <-done; err != nil || !bytes.Equal(p, ones) {
		t.Errorf("read while the osd came up: %v", err)
	}
	third.Settle() // its snapshot may have been made
	for _, name := range []string{"s", "t"} {
		must(t, patient.RemoveSnapshot(t.Context(), name))
	}

	t.Setenv("CEPH_ARGS", args+" --client_mount_timeout 2")
	rbdtest.Rig(t, "kill", "mon")
	if _, err := rbd.Open(a); err == nil || !strings.Contains(err.Error(), "no monitor of the cluster has answered within 2 s") {
		t.Errorf("open without a mon: %v", err)
	}
	if _, err := patient.ReadAt(p, 0); err != nil {
		t.Errorf("read without a mon: %v", err)
	}
}

//go:build ceph

package rbdtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process that is killed takes its cluster with it.
func TestClusterEndsWithProcess(t *testing.T) {
	if os.Getenv("RBDTEST_DIE") != "" {
		Cluster(t)
		Rig(t, "status")
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	place := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "RBDTEST_DIE=1", "CEPH_RIG_DIR=", "TMPDIR="+place)
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "cannot be installed") {
		t.Skip(string(out))
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%v, want one that was killed: %s", err, out)
	}
	// The directory goes when the daemons are gone.
	for until := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		left, err := filepath.Glob(place + "/*")
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(until) {
			t.Setenv("CEPH_RIG_DIR", left[0])
			Rig(t, "down", "--purge")
			t.Fatalf("%s is still there", left[0])
		}
	}
}

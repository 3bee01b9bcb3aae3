// Package rbdtest gives tests a real Ceph cluster, a throwaway one from scripts/rigs/ceph-cluster.
package rbdtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// The cluster of this process.
var (
	once  sync.Once
	own   string // its directory, if it is to be removed
	skip  string // why there is none
	wrong error
)

// limit is the longest that a tool of Ceph's may take: without a cluster they wait for ever.
const limit = 3 * time.Minute

// Cluster makes sure that there is a cluster, and that CEPH_CONF and CEPH_ARGS of this process name it; it skips the test
// where Ceph's packages are missing and cannot be installed. It is the one in CEPH_RIG_DIR, if that is set, and then stays;
// else it is this process's own, and Stop ends it.
func Cluster(t testing.TB) {
	t.Helper()
	once.Do(start)
	if skip != "" {
		t.Skip(skip)
	}
	if wrong != nil {
		t.Fatal(wrong)
	}
}

func start() {
	dir := os.Getenv("CEPH_RIG_DIR")
	if dir == "" {
		if dir, wrong = os.MkdirTemp("", "ceph"); wrong != nil {
			return
		}
		own = dir
		os.Setenv("CEPH_RIG_DIR", dir)
	}
	if _, err := rig("up"); err != nil {
		exit := (*exec.ExitError)(nil)
		if errors.As(err, &exit) && exit.ExitCode() == 77 {
			skip = err.Error()
			return
		}
		wrong = err
		return
	}
	os.Setenv("CEPH_CONF", filepath.Join(dir, "ceph.conf"))
	os.Setenv("CEPH_ARGS", "--id admin")
}

// Stop ends this process's own cluster: defer it in TestMain.
func Stop() {
	if own != "" {
		rig("down", "--purge")
	}
}

// Rig calls scripts/rigs/ceph-cluster.
func Rig(t testing.TB, args ...string) {
	t.Helper()
	if _, err := rig(args...); err != nil {
		t.Fatal(err)
	}
}

func rig(args ...string) (string, error) {
	_, here, _, _ := runtime.Caller(0)
	script, err := filepath.Abs(filepath.Join(filepath.Dir(here), "../../../../scripts/rigs/ceph-cluster"))
	if err != nil {
		return "", err
	}
	return run(nil, script, args...)
}

// RBD calls the tool rbd and returns its standard output.
func RBD(t testing.TB, args ...string) string { return Tool(t, nil, "rbd", args...) }

// Tool calls a tool, with standard input, and returns its standard output.
func Tool(t testing.TB, in []byte, name string, args ...string) string {
	t.Helper()
	out, err := run(in, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func run(in []byte, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out, words bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &words
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", errors.Join(err, errors.New(filepath.Base(name)+" "+strings.Join(args, " ")+": "+strings.TrimSpace(words.String())))
	}
	return out.String(), nil
}

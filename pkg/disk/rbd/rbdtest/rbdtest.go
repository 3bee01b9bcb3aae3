// Package rbdtest gives tests a real Ceph cluster, a throwaway one from scripts/rigs/ceph-cluster.
package rbdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The cluster of this process.
var (
	once  sync.Once
	own   *holder // if it is to be removed
	skip  string  // why there is none
	wrong error
)

// holder is the process that ends this process's own cluster once the pipe to it is closed: by Stop, or by the end of this
// process, whatever ends it.
type holder struct {
	cmd  *exec.Cmd
	pipe io.Closer
}

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
		os.Setenv("CEPH_RIG_DIR", dir)
		own, wrong = hold()
	} else {
		_, wrong = rig("up")
	}
	if exit := (*exec.ExitError)(nil); errors.As(wrong, &exit) && exit.ExitCode() == 77 {
		skip = wrong.Error()
	}
	os.Setenv("CEPH_CONF", filepath.Join(dir, "ceph.conf"))
	os.Setenv("CEPH_ARGS", "--id admin")
}

// hold starts a cluster that ends with this process.
func hold() (*holder, error) {
	path, err := script()
	if err != nil {
		return nil, err
	}
	var words bytes.Buffer
	cmd := exec.Command(path, "hold")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a signal that is for our whole group is not for it
	cmd.Stderr = &words
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if said, err := io.ReadAll(out); err == nil && len(said) > 0 {
		return &holder{cmd, in}, nil
	}
	in.Close()
	return nil, failed(cmd.Wait(), cmd, words.String())
}

// Stop ends this process's own cluster: defer it in TestMain.
func Stop() {
	if own != nil {
		own.pipe.Close()
		own.cmd.Wait()
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
	path, err := script()
	if err != nil {
		return "", err
	}
	return run(nil, path, args...)
}

func script() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Abs(filepath.Join(filepath.Dir(here), "../../../../scripts/rigs/ceph-cluster"))
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
		return "", failed(err, cmd, words.String())
	}
	return out.String(), nil
}

func failed(err error, cmd *exec.Cmd, words string) error {
	return fmt.Errorf("%w\n%s %s: %s", err, filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), strings.TrimSpace(words))
}

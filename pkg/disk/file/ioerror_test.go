package file_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/disk"
	"backy/pkg/disk/file"
)

// failing makes a disk of 1 MiB whose reads or writes ("pread", "pwrite") fail with EIO: nbdkit's error filter, mounted as a
// file.
func failing(t *testing.T, op string) string {
	t.Helper()
	for _, tool := range []string{"nbdkit", "nbdfuse", "fusermount3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here (packages nbdkit, libnbd-bin, fuse3)", tool)
		}
	}
	dir := t.TempDir()
	socket, mount := filepath.Join(dir, "s"), filepath.Join(dir, "disk")
	if err := os.WriteFile(mount, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(name, args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	until := func(what string, ready func() bool) {
		for range 500 {
			if ready() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Skipf("%s does not come up here", what)
	}
	server := start("nbdkit", "-f", "-U", socket, "--filter=error", "memory", "1M", "error-"+op+"=EIO", "error-"+op+"-rate=100%")
	t.Cleanup(func() { server.Process.Signal(unix.SIGTERM); server.Wait() })
	until("nbdkit", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	fuse := start("nbdfuse", mount, "nbd+unix:///?socket="+socket)
	t.Cleanup(func() { exec.Command("fusermount3", "-u", mount).Run(); fuse.Wait() })
	until("nbdfuse", func() bool { i, err := os.Stat(mount); return err == nil && i.Size() == 1<<20 })
	return mount
}

func TestReadErrorSaysWhere(t *testing.T) {
	path := failing(t, "pread")
	d := open(t, path, file.Options{})
	n, err := d.ReadAt(make([]byte, 4096), 8192)
	if n != 0 || !errors.Is(err, unix.EIO) || errors.Is(err, disk.ErrShrunk) || err.Error() != "read "+path+" at byte 8192: input/output error" {
		t.Errorf("%d, %v", n, err)
	}
	d.Close() // before the mount goes
}

func TestSyncErrorIsForGood(t *testing.T) {
	dev := loop(t, failing(t, "pwrite"))
	w, err := file.OpenTarget(dev, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt(make([]byte, 300<<10), 0); err != nil && !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Sync(); !errors.Is(err, unix.EIO) || !strings.HasPrefix(err.Error(), "sync "+dev+": ") {
			t.Errorf("got %v, want input/output error", err)
		}
	}
}

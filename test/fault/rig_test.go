package fault

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// rig runs one of scripts/rigs and returns what it prints.
func rig(t *testing.T, name string, args ...string) string {
	t.Helper()
	return run(t, filepath.Join("..", "..", "scripts", "rigs", name), args...)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		said := ""
		if exit, ok := err.(*exec.ExitError); ok {
			said = string(exit.Stderr)
		}
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, said)
	}
	return strings.TrimSpace(string(out))
}

// fileSystems runs a test on each of the file systems that a repository is likely to lie on.
func fileSystems(t *testing.T, test func(t *testing.T, fs string)) {
	needRoot(t)
	for _, fs := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) { test(t, fs) })
	}
}

// recorder is a file system whose every write is recorded, so that the disk can be had as a power cut would have left it.
type recorder struct {
	t    *testing.T
	dir  string
	mnt  string // while it is recorded
	over bool
}

func newRecorder(t *testing.T, fs string) *recorder {
	dir := t.TempDir()
	r := &recorder{t: t, dir: filepath.Join(dir, "rig"), mnt: filepath.Join(dir, "rig", "mnt")}
	t.Cleanup(r.stop)
	rig(t, "crash-rig", "start", r.dir, fs)
	return r
}

// mark is the number of writes recorded so far.
func (r *recorder) mark() int { return number(r.t, rig(r.t, "crash-rig", "mark", r.dir)) }

// stop ends the recording.
func (r *recorder) stop() {
	if !r.over {
		r.over = true
		rig(r.t, "crash-rig", "stop", r.dir)
	}
}

// flushes are the numbers of writes after each of which all before it were on the disk for good.
func (r *recorder) flushes() []int {
	var list []int
	for _, word := range strings.Fields(rig(r.t, "crash-rig", "list", r.dir)) {
		list = append(list, number(r.t, word))
	}
	return list
}

// cut gives a test the file system as it is after a power cut after n writes. With a seed, some of the writes since the
// last flush are lost, too, and one may be torn: a drive's cache is not written in order.
func (r *recorder) cut(n int, seed uint32, test func(mnt string)) {
	r.t.Helper()
	image, mnt := filepath.Join(r.dir, "state"), filepath.Join(r.dir, "state.mnt")
	args := []string{"state", r.dir, image, strconv.Itoa(n)}
	if seed != 0 {
		args = append(args, strconv.FormatUint(uint64(seed), 10))
	}
	rig(r.t, "crash-rig", args...)
	defer os.Remove(image)
	defer func() {
		if r.t.Failed() {
			r.t.Logf("after %d writes, with seed %d", n, seed)
		}
	}()
	if err := os.MkdirAll(mnt, 0o750); err != nil {
		r.t.Fatal(err)
	}
	mounted(r.t, image, mnt, func() { test(mnt) })
}

// mounted mounts an image while f runs, whatever becomes of that.
func mounted(t *testing.T, image, mnt string, f func()) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", image, mnt).CombinedOutput(); err != nil {
		log, _ := exec.Command("dmesg").Output() // the kernel says there what is wrong
		t.Fatalf("mount %s: %v\n%s%s", image, err, out, log[max(0, len(log)-800):])
	}
	defer run(t, "umount", mnt)
	f()
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

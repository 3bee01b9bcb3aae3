package file_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backy/pkg/disk/disktest"
	"backy/pkg/disk/file"
)

func content(t *testing.T, path string) func() []byte {
	return func() []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// ones makes an image file that is full of 0xff.
func ones(t *testing.T, size int64) string { return image(t, bytes.Repeat([]byte{0xff}, int(size))) }

func openTarget(t *testing.T, path string, size int64) disktest.Target {
	t.Helper()
	w, err := file.OpenTarget(path, size)
	if err != nil {
		t.Fatal(err)
	}
	return disktest.Target{Writer: w, Content: content(t, path)}
}

func TestTarget(t *testing.T) {
	t.Run("new file", func(t *testing.T) {
		disktest.RunWriter(t, func(t *testing.T, size int64) disktest.Target {
			path := filepath.Join(t.TempDir(), "new.img")
			w, err := file.Create(path, size)
			if err != nil {
				t.Fatal(err)
			}
			return disktest.Target{Writer: w, Content: content(t, path)}
		})
	})
	t.Run("image file", func(t *testing.T) {
		disktest.RunWriter(t, func(t *testing.T, size int64) disktest.Target { return openTarget(t, ones(t, size), size) })
	})
	t.Run("larger image file", func(t *testing.T) {
		disktest.RunWriter(t, func(t *testing.T, size int64) disktest.Target { return openTarget(t, ones(t, size+5000), size) })
	})
	t.Run("block device", func(t *testing.T) {
		disktest.RunWriter(t, func(t *testing.T, size int64) disktest.Target { return openTarget(t, loop(t, ones(t, size)), size) })
	})
}

func TestLargerDeviceKeepsItsRest(t *testing.T) {
	const size = 1 << 20
	path := loop(t, ones(t, size+65536))
	w := openTarget(t, path, size)
	if err := errors.Join(w.Zero(0, size), w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
	want := append(make([]byte, size), bytes.Repeat([]byte{0xff}, 65536)...)
	if !bytes.Equal(w.Content(), want) {
		t.Error("other content than zeroes, and then what was there")
	}
}

func TestNewFileIsSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.img")
	w, err := file.Create(path, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	w.WriteAt(make([]byte, 4096), 1<<39)
	if err := errors.Join(w.Zero(0, 1<<39), w.Commit(), w.Close()); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Size != 1<<40 || st.Blocks > 1024 || st.Mode&0o777&^0o640 != 0 {
		t.Errorf("%v: size %d, %d blocks of 512 bytes, mode %o", err, st.Size, st.Blocks, st.Mode)
	}
}

func TestZeroFreesSpace(t *testing.T) {
	path := ones(t, 1<<20)
	w := openTarget(t, path, 1<<20)
	if err := errors.Join(w.Zero(0, 1<<20), w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Size != 1<<20 || st.Blocks > 64 {
		t.Errorf("%v: size %d, %d blocks of 512 bytes", err, st.Size, st.Blocks)
	}
}

func names(t *testing.T, dir string) string {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b []string
	for _, e := range list {
		b = append(b, e.Name())
	}
	return strings.Join(b, " ")
}

func TestNewFileAppearsWithCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new.img")
	create := func() *file.NewFile {
		w, err := file.Create(path, 1000)
		if err != nil {
			t.Fatal(err)
		}
		w.WriteAt([]byte("data"), 0)
		return w
	}
	w := create()
	if got := names(t, dir); got != "new.img.partial" {
		t.Errorf("while it is written: %s", got)
	}
	if _, err := file.Create(path, 1000); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "new.img.partial is there already") {
		t.Errorf("second restore: got %v", err)
	}
	w.Close()
	if got := names(t, dir); got != "" {
		t.Errorf("after Close: %s", got)
	}

	w = create()
	if err := errors.Join(w.Commit(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "new.img" {
		t.Errorf("after Commit: %s", got)
	}
	if _, err := file.Create(path, 1000); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing file: got %v", err)
	}

	// What has taken the name meanwhile is not replaced, and what was restored not lost.
	os.Remove(path)
	w = create()
	os.WriteFile(path, []byte("someone else's"), 0o600)
	if err := w.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("commit over a file: got %v", err)
	}
	w.Close()
	if got, _ := os.ReadFile(path); names(t, dir) != "new.img new.img.partial" || string(got) != "someone else's" {
		t.Errorf("%s, new.img holds %q", names(t, dir), got)
	}
}

func TestTargetRefuses(t *testing.T) {
	small := ones(t, 1000)
	dir := t.TempDir()
	for _, c := range []struct{ path, want string }{
		{filepath.Join(dir, "nothing"), "no such file or directory"},
		{dir, "is a directory"},
		{"/dev/null", "neither an image file nor a block device"},
		{small, "has 1000 bytes, too few for a disk of 1001 bytes"},
		{loop(t, ones(t, 4096)), "has 4096 bytes, too few"},
	} {
		size := int64(1001)
		if strings.HasPrefix(c.path, "/dev/loop") {
			size = 4097
		}
		if _, err := file.OpenTarget(c.path, size); err == nil || !strings.HasPrefix(err.Error(), "open "+c.path+": "+c.want) {
			t.Errorf("%s: got %v", c.path, err)
		}
	}
	if got := content(t, small)(); !bytes.Equal(got, bytes.Repeat([]byte{0xff}, 1000)) {
		t.Error("a target that was refused has other content")
	}
}

func TestDeviceInUseIsRefused(t *testing.T) {
	dev := loop(t, ones(t, 1<<20))
	claim, err := unix.Open(dev, unix.O_RDONLY|unix.O_EXCL, 0) // as a mount does
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(claim)
	if _, err := file.OpenTarget(dev, 1<<20); err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("got %v", err)
	}
}

func TestWriteErrorSaysWhere(t *testing.T) {
	w, err := file.Create(filepath.Join(t.TempDir(), "new.img"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	old := unix.Rlimit{}
	unix.Getrlimit(unix.RLIMIT_FSIZE, &old)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4096, Max: old.Max}); err != nil {
		t.Skip(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &old)
	if n, err := w.WriteAt(make([]byte, 100), 5000); err == nil || !strings.Contains(err.Error(), "new.img.partial at byte 5000: file too large") {
		t.Errorf("%d, %v", n, err)
	}
}

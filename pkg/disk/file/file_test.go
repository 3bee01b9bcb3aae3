package file_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backy/pkg/aligned"
	"backy/pkg/disk"
	"backy/pkg/disk/disktest"
	"backy/pkg/disk/file"
)

// image makes a sparse image file.
func image(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	disktest.WriteSparse(t, f, content)
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	return path
}

// loop makes a block device of an image file.
func loop(t *testing.T, path string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no loop devices")
	}
	out, err := exec.Command("losetup", "-f", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop devices here: losetup: %v", err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v: %s", dev, err, out)
		}
	})
	return dev
}

func open(t testing.TB, path string, o file.Options) *file.File {
	t.Helper()
	d, err := file.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestSource(t *testing.T) {
	for name, o := range map[string]file.Options{"tidy": {}, "direct": {Direct: true}, "keep cache": {KeepCache: true}} {
		t.Run("image file, "+name, func(t *testing.T) {
			disktest.Run(t, func(t *testing.T, content []byte) disk.Disk { return open(t, image(t, content), o) })
		})
		t.Run("block device, "+name, func(t *testing.T) {
			disktest.Run(t, func(t *testing.T, content []byte) disk.Disk { return open(t, loop(t, image(t, content)), o) })
		})
	}
	t.Run("standard input", func(t *testing.T) {
		disktest.Run(t, func(t *testing.T, content []byte) disk.Disk {
			f, err := os.Open(image(t, content))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close() // the disk goes on without it
			d, err := file.FromFile(f, file.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return d
		})
	})
}

func TestHoles(t *testing.T) {
	path := image(t, nil)
	if err := os.Truncate(path, 15<<40); err != nil {
		t.Skipf("no sparse file of 15 TiB here: %v", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var want []int64
	for _, at := range []int64{1 << 20, 5 << 40, 15<<40 - 65536} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 65536), at); err != nil {
			t.Fatal(err)
		}
		want = append(want, at, at+65536)
	}
	d := open(t, path, file.Options{})
	var got []int64
	for at := int64(0); ; {
		start, end, err := d.NextData(at)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, start, end)
		at = end
	}
	if !slices.Equal(got, want) {
		t.Errorf("data at %v, want %v", got, want)
	}
}

// resident counts the pages of a file that are in the page cache.
func resident(t *testing.T, path string) int {
	t.Helper()
	out, err := exec.Command("fincore", "--bytes", "--noheadings", "--output", "PAGES", path).Output()
	if err != nil {
		t.Skipf("fincore: %v", err)
	}
	n := 0
	for _, c := range bytes.TrimSpace(out) {
		n = n*10 + int(c-'0')
	}
	return n
}

func TestPageCacheIsLeftAsFound(t *testing.T) {
	path := image(t, bytes.Repeat([]byte{1}, 8<<20))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if n := resident(t, path); n > 0 {
		t.Skipf("%d pages stay in the page cache of this file system", n)
	}
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	for _, at := range []int64{0, 3 << 20, 4<<20 - 4096, 8<<20 - 4096} { // what somebody works with
		f.ReadAt(make([]byte, 4096), at)
	}
	before := resident(t, path)
	read := func(o file.Options) {
		d := open(t, path, o)
		for at := int64(0); at < d.Size(); at += 3 << 20 {
			if _, err := d.ReadAt(aligned.Buffer(3<<20), at); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
	}
	for name, o := range map[string]file.Options{"tidy": {}, "direct": {Direct: true}} {
		read(o)
		if after := resident(t, path); after != before {
			t.Errorf("%s: %d pages in the cache, before it was %d", name, after, before)
		}
	}
	read(file.Options{KeepCache: true})
	if after := resident(t, path); after != 2048 {
		t.Errorf("keep cache: %d pages in the cache, want all 2048", after)
	}
}

func TestSourceThatChanges(t *testing.T) {
	path := image(t, bytes.Repeat([]byte{1}, 10000))
	d := open(t, path, file.Options{})
	was, err := d.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if now, err := d.Stat(); err != nil || !was.Still(now) {
		t.Errorf("nobody has touched it, yet %+v is now %+v, %v", was, now, err)
	}
	p := make([]byte, 20000)

	os.Truncate(path, 15000)
	if n, err := d.ReadAt(p, 0); n != 10000 || err != io.EOF || d.Size() != 10000 {
		t.Errorf("grown: %d bytes, %v, size %d", n, err, d.Size())
	}
	if now, err := d.Stat(); err != nil || now.Size != 15000 || was.Still(now) {
		t.Errorf("grown: %+v, %v", now, err)
	}

	os.Truncate(path, 5000)
	if n, err := d.ReadAt(p, 0); n != 5000 || !errors.Is(err, disk.ErrShrunk) {
		t.Errorf("shrunk: %d bytes, %v", n, err)
	}
	if n, err := d.ReadAt(p[:10], 6000); n != 0 || !errors.Is(err, disk.ErrShrunk) || !strings.Contains(err.Error(), path+" at byte 6000") {
		t.Errorf("shrunk: %d bytes, %v", n, err)
	}
	if start, end, err := d.NextData(0); err == nil && end > 10000 || start > end {
		t.Errorf("shrunk: data from %d to %d, %v", start, end, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		is         error
	}{
		{filepath.Join(dir, "nothing"), "no such file or directory", fs.ErrNotExist},
		{dir, "is a directory", file.ErrNoDisk},
		{pipe, "is a pipe", file.ErrNoDisk},
		{"/dev/null", "neither an image file nor a block device", file.ErrNoDisk},
		{image(t, nil), "is empty", nil},
	} {
		_, err := file.Open(c.path, file.Options{})
		if err == nil || !strings.HasPrefix(err.Error(), "open "+c.path+": "+c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: got %v", c.path, err)
		}
	}
}

func TestFromFileRefusesStreams(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	moved, err := os.Open(image(t, make([]byte, 4096)))
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	moved.Seek(512, io.SeekStart)
	for _, f := range []*os.File{r, moved} {
		if _, err := file.FromFile(f, file.Options{}); !errors.Is(err, file.ErrNoDisk) {
			t.Errorf("%s: got %v", f.Name(), err)
		}
	}
}

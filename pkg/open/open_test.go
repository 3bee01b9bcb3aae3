package open

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backy/pkg/disk"
)

func TestParse(t *testing.T) {
	t.Chdir(t.TempDir())
	os.WriteFile("2026:backup", nil, 0o600)
	os.WriteFile("old:disk", nil, 0o600)
	os.WriteFile("rbd:disk", nil, 0o600)
	for _, c := range []struct {
		in   string
		want Address
		err  string
	}{
		{"disk.img", Address{"file", "disk.img"}, ""},
		{"/dev/vg0/vm1", Address{"file", "/dev/vg0/vm1"}, ""},
		{"file:disk.img", Address{"file", "disk.img"}, ""},
		{"file:/srv/a:b", Address{"file", "/srv/a:b"}, ""},
		{"file:///srv/disk", Address{"file", "///srv/disk"}, ""},
		{"/dev/disk/by-path/pci-0000:00:1f.2", Address{"file", "/dev/disk/by-path/pci-0000:00:1f.2"}, ""},
		{"./x:y", Address{"file", "./x:y"}, ""},
		{"../x:y", Address{"file", "../x:y"}, ""},
		{"old:disk", Address{"file", "old:disk"}, ""},
		{"2026:backup", Address{"file", "2026:backup"}, ""},
		{":x", Address{"file", ":x"}, ""},
		{"rbd:vms/vm1@snap", Address{"rbd", "vms/vm1@snap"}, ""},
		{"rbd:vms/customer/vm1", Address{"rbd", "vms/customer/vm1"}, ""},
		{"rbd:disk", Address{}, "rbd:disk: the pool is missing; want rbd:POOL"}, // although there is such a file
		{"nbd://localhost/disk", Address{}, `no kind of disk "nbd"`},
		{"new:disk", Address{}, "write ./new:disk for a new file"},
		{"file:", Address{}, "something must follow the colon"},
		{"", Address{}, "missing"},
		{"a\x00b", Address{}, "zero byte"},
	} {
		got, err := Parse(c.in)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %v, %v; want %v, %q", c.in, got, err, c.want, c.err)
		}
	}
}

func TestAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"disk.img":         "file:" + here + "/disk.img",
		"file:///srv//d":   "file:/srv/d",
		"rbd:vms/vm1":      "rbd:vms/vm1",
		"./x:y":            "file:" + here + "/x:y",
		"/dev/vg0/../sda1": "file:/dev/sda1",
	} {
		a, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Absolute(); err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v; want %s", in, got, err, want)
		}
	}
}

// What comes out of Absolute is an address again, for the same disk.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"disk.img", "file:/a:b", "rbd:p/i@s", "./x:y", "nbd://h/d", "file:", ":", "\x00", "file:file:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		abs, err := a.Absolute()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := Parse(abs.String()); err != nil || b != abs {
			t.Fatalf("%q is %v, that is %v, %v", s, abs, b, err)
		}
	})
}

func parse(t *testing.T, s string) Address {
	t.Helper()
	a, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x:y")
	os.WriteFile(path, make([]byte, 1000), 0o600)
	for _, s := range []string{path, "file:" + path} {
		d, err := Source(parse(t, s), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Size() != 1000 {
			t.Errorf("%s: size %d", s, d.Size())
		}
		d.Close()
	}
	if d, err := Source(parse(t, path+".no"), Options{}); !errors.Is(err, fs.ErrNotExist) || d != nil {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	os.WriteFile(path, make([]byte, 1000), 0o600)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := File(f, Options{})
	if err != nil || d.Size() != 1000 {
		t.Fatal(err)
	}
	d.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if d, err := File(r, Options{}); d != nil || !IsStream(err) {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	a := parse(t, path)
	w, err := Target(a, 1000, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.(disk.Committer).Commit(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if w, err := Target(a, 1000, false); w != nil || !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "takes --force") {
		t.Errorf("over an existing file: got %v, %v", w, err)
	}
	if w, err = Target(a, 1000, true); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.(disk.Committer); ok {
		t.Error("an existing file is written in place, yet has a Commit")
	}
	w.Close()
	if w, err := Target(a, 1001, true); w != nil || err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("too small: got %v, %v", w, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{filepath.Dir(path): "is a directory", "/dev/null": "neither", link: "is a symbolic link already, maybe to what is not there"} {
		if w, err := Target(parse(t, name), 1000, false); w != nil || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "--force") {
			t.Errorf("%s: got %v, %v", name, w, err)
		}
	}
}

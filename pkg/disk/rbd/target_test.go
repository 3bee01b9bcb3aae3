//go:build ceph

package rbd_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"backy/pkg/disk/disktest"
	"backy/pkg/disk/rbd"
	"backy/pkg/disk/rbd/rbdtest"
)

// ones makes an image that is full of 0xff.
func ones(t *testing.T, size int64, options ...string) rbd.Address {
	return image(t, bytes.Repeat([]byte{0xff}, int(size)), options...)
}

func target(t *testing.T, a rbd.Address, size int64) disktest.Target {
	t.Helper()
	w, err := rbd.OpenTarget(a, size)
	must(t, err)
	return disktest.Target{Writer: w, Content: func() []byte { return content(t, a)[:size] }}
}

func TestTarget(t *testing.T) {
	t.Run("new image", func(t *testing.T) {
		t.Parallel()
		disktest.RunWriter(t, func(t *testing.T, size int64) disktest.Target {
			a := rbd.Address{Pool: "rbd", Image: name(t)}
			w, err := rbd.Create(a, size)
			must(t, err)
			t.Cleanup(func() {
				if there, err := rbd.Exists(a); there {
					remove(t, a)
				} else {
					must(t, err)
				}
			})
			return disktest.Target{Writer: w, Content: func() []byte { return content(t, a) }}
		})
	})
	for kind, options := range map[string][]string{
		"image":             small,
		"large objects":     nil,
		"striped":           {"--object-size", "64K", "--stripe-unit", "16K", "--stripe-count", "3"},
		"no exclusive lock": {"--object-size", "64K", "--image-feature", "layering"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			disktest.RunWriter(t, func(t *testing.T, size int64) disktest.Target { return target(t, ones(t, size, options...), size) })
		})
	}
	t.Run("larger image", func(t *testing.T) {
		t.Parallel()
		disktest.RunWriter(t, func(t *testing.T, size int64) disktest.Target { return target(t, ones(t, size+5000, small...), size) })
	})
}

// Zeroes may begin and end anywhere; what is around them stays, and so does the rest of a larger image.
func TestZero(t *testing.T) {
	const size, object = 1 << 20, 64 << 10
	a := ones(t, size+object, small...)
	want := bytes.Repeat([]byte{0xff}, size+object)
	w, err := rbd.OpenTarget(a, size)
	must(t, err)
	for _, c := range []struct{ off, length int64 }{
		{1, 1}, {511, 2}, {1000, 3000}, {object - 1, 2}, {2*object - 700, 700}, {2 * object, object}, {4*object - 5, 2*object + 10},
		{7*object + 512, 512}, {8 * object, 0}, {9*object + 1, object - 2}, {size - object - 100, object + 100},
	} {
		must(t, w.Zero(c.off, c.length))
		clear(want[c.off : c.off+c.length])
	}
	must(t, errors.Join(w.Sync(), w.Close()))
	if !bytes.Equal(content(t, a), want) {
		t.Error("other content than zeroes where they were asked for, and 0xff elsewhere")
	}
}

func TestZeroFreesObjects(t *testing.T) {
	a := ones(t, 1<<20, small...)
	w, err := rbd.OpenTarget(a, 1<<20)
	must(t, err)
	must(t, errors.Join(w.Zero(0, 1<<20), w.Sync(), w.Close()))
	if got := rbdtest.RBD(t, "diff", "--format=json", a.String()); strings.TrimSpace(got) != "[]" {
		t.Errorf("there is still %s", got)
	}
}

// names are the images of a test in the pool.
func names(t *testing.T, a rbd.Address) string {
	t.Helper()
	var list []string
	for _, name := range strings.Fields(rbdtest.RBD(t, "ls", a.Pool)) {
		if strings.HasPrefix(name, a.Image) {
			list = append(list, strings.Replace(name, a.Image, "new", 1))
		}
	}
	return strings.Join(list, " ")
}

func TestNewImageAppearsWithCommit(t *testing.T) {
	const size = 1<<20 + 1
	a := rbd.Address{Pool: "rbd", Image: name(t)}
	create := func() *rbd.NewImage {
		t.Helper()
		w, err := rbd.Create(a, size)
		must(t, err)
		_, err = w.WriteAt([]byte("data"), 0)
		must(t, err)
		return w
	}
	w := create()
	if got := names(t, a); got != "new.partial" {
		t.Errorf("while it is written: %s", got)
	}
	if _, err := rbd.Create(a, size); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "if so, remove it (rbd rm "+a.String()+".partial)") {
		t.Errorf("second restore: got %v", err)
	}
	if got := names(t, a); got != "new.partial" {
		t.Errorf("the second one has removed the first one's: %q", got)
	}
	must(t, w.Close())
	if got := names(t, a); got != "" {
		t.Errorf("after Close: %s", got)
	}

	w = create()
	must(t, errors.Join(w.Commit(), w.Close()))
	if got := names(t, a); got != "new" {
		t.Errorf("after Commit: %s", got)
	}
	if got := content(t, a); len(got) != size || !bytes.HasPrefix(got, []byte("data\x00")) {
		t.Errorf("%d bytes", len(got))
	}
	if _, err := rbd.Create(a, size); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an image: got %v", err)
	}

	// What has taken the name meanwhile is not replaced, and what was restored not lost.
	remove(t, a)
	w = create()
	rbdtest.RBD(t, "create", "--size", "1M", a.String())
	if err := w.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("commit over an image: got %v", err)
	}
	must(t, w.Close())
	if got := names(t, a); got != "new new.partial" {
		t.Errorf("after a commit that failed: %s", got)
	}
	if got := content(t, a); !bytes.Equal(got, make([]byte, 1<<20)) {
		t.Error("somebody else's image was written to")
	}
	remove(t, a)
	a.Image += ".partial"
	remove(t, a)
}

func TestTargetRefuses(t *testing.T) {
	a := ones(t, 1000)
	s := snapshot(t, a, "s")
	for _, c := range []struct {
		a    rbd.Address
		want string
	}{
		{rbd.Address{Pool: "rbd", Image: "nothing"}, "there is no image nothing in pool rbd"},
		{rbd.Address{Pool: "nothing", Image: "x"}, "the cluster has no pool nothing"},
		{s, "a snapshot cannot be written to"},
		{a, "has 1000 bytes, too few for a disk of 1001 bytes"},
	} {
		if w, err := rbd.OpenTarget(c.a, 1001); w != nil || err == nil || !strings.HasPrefix(err.Error(), "open rbd:"+c.a.String()+": "+c.want) {
			t.Errorf("%s: got %v", c.a, err)
		}
	}
	if _, err := rbd.Create(s, 1000); err == nil || !strings.Contains(err.Error(), "a snapshot cannot be written to") {
		t.Errorf("a new snapshot: %v", err)
	}
	w, err := rbd.OpenTarget(a, 1000)
	must(t, err)
	if _, err := rbd.OpenTarget(a, 1000); err == nil || !strings.Contains(err.Error(), "is in use by client.") {
		t.Errorf("in use: %v", err)
	}
	must(t, w.Close())
	if got := content(t, a); !bytes.Equal(got, bytes.Repeat([]byte{0xff}, 1000)) {
		t.Error("a target that was refused has other content")
	}
}

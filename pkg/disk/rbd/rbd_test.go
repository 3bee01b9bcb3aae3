//go:build ceph

package rbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/disk/disktest"
	"backy/pkg/disk/rbd"
	"backy/pkg/disk/rbd/rbdtest"
)

func TestMain(m *testing.M) {
	defer rbdtest.Stop()
	m.Run()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var count struct {
	sync.Mutex
	n int
}

// name is one that no image has.
func name(t testing.TB) string {
	rbdtest.Cluster(t)
	count.Lock()
	defer count.Unlock()
	count.n++
	return fmt.Sprintf("%s.%d", strings.ToLower(strings.NewReplacer("/", ".", "@", "", ",", "").Replace(t.Name())), count.n)
}

// create makes an image with options of rbd create, which is removed after the test.
func create(t testing.TB, size int, options ...string) rbd.Address {
	t.Helper()
	a := rbd.Address{Pool: "rbd", Image: name(t)}
	rbdtest.RBD(t, append([]string{"create", "--size", fmt.Sprint(size) + "B", a.String()}, options...)...)
	t.Cleanup(func() { remove(t, a) })
	return a
}

func remove(t testing.TB, a rbd.Address) {
	t.Helper()
	rbdtest.RBD(t, "rm", "--no-progress", a.String())
}

// write writes to an image, as somebody else would, in pieces of 64 KiB, and leaves out those that are zero.
func write(t testing.TB, a rbd.Address, content []byte, off int64) {
	t.Helper()
	w, err := rbd.OpenTarget(a, off+int64(len(content)))
	must(t, err)
	for at := 0; at < len(content); at += 64 << 10 {
		if p := content[at:min(at+64<<10, len(content))]; len(bytes.Trim(p, "\x00")) > 0 {
			_, err := w.WriteAt(p, off+int64(at))
			must(t, err)
		}
	}
	must(t, errors.Join(w.Sync(), w.Close()))
}

// image makes an image that holds content.
func image(t testing.TB, content []byte, options ...string) rbd.Address {
	t.Helper()
	a := create(t, len(content), options...)
	write(t, a, content, 0)
	return a
}

// snapshot makes a snapshot of an image, which is removed before that is.
func snapshot(t testing.TB, a rbd.Address, name string) rbd.Address {
	t.Helper()
	image := a.String()
	t.Cleanup(func() { rbdtest.RBD(t, "snap", "purge", "--no-progress", image) })
	a.Snapshot = name
	rbdtest.RBD(t, "snap", "create", "--no-progress", a.String())
	return a
}

func open(t testing.TB, a rbd.Address) *rbd.Image {
	t.Helper()
	d, err := rbd.Open(a)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// content is what an image holds, as rbd export says.
func content(t testing.TB, a rbd.Address) []byte {
	t.Helper()
	return []byte(rbdtest.RBD(t, "export", "--no-progress", a.String(), "-"))
}

// Objects of 64 KiB, so that small disks have many.
var small = []string{"--object-size", "64K"}

func TestSource(t *testing.T) {
	for kind, options := range map[string][]string{
		"fast-diff":     small,
		"no object map": {"--object-size", "64K", "--image-feature", "layering"},
		"striped":       {"--object-size", "64K", "--stripe-unit", "16K", "--stripe-count", "3"},
		"large objects": nil,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			disktest.Run(t, func(t *testing.T, content []byte) disk.Disk { return open(t, image(t, content, options...)) })
		})
		t.Run(kind+", snapshot", func(t *testing.T) {
			t.Parallel()
			disktest.Run(t, func(t *testing.T, content []byte) disk.Disk {
				a := image(t, content, options...)
				s := snapshot(t, a, "s")
				write(t, a, bytes.Repeat([]byte{7}, len(content)), 0)
				return open(t, s)
			})
		})
	}
}

// A clone holds what its parent holds, but where something else was written.
func TestClone(t *testing.T) {
	for kind, options := range map[string][]string{"fast-diff": small, "no object map": {"--object-size", "64K", "--image-feature", "layering"}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			all := disktest.Content(1 << 20)
			a := clone(t, image(t, all, options...), options...)
			write(t, a, bytes.Repeat([]byte{9}, 1000), 500000)
			copy(all[500000:], bytes.Repeat([]byte{9}, 1000))
			check(t, open(t, a), all)
			check(t, open(t, snapshot(t, a, "t")), all)

			// Zeroes hide what the parent has there.
			want := bytes.Repeat([]byte{0xff}, 1<<20)
			b := clone(t, image(t, want, options...), options...)
			w, err := rbd.OpenTarget(b, 1<<20)
			must(t, err)
			for _, r := range []run{{100, 200}, {object, 2 * object}, {3*object - 1, 5*object + 1}, {9*object + 512, 10*object - 512}} {
				must(t, w.Zero(r.start, r.end-r.start))
				clear(want[r.start:r.end])
			}
			must(t, errors.Join(w.Sync(), w.Close()))
			check(t, open(t, b), want)
			if !bytes.Equal(content(t, b), want) {
				t.Error("by rbd export, the disk is another")
			}
		})
	}
}

type run struct{ start, end int64 }

// check reads all of a disk by its map.
func check(t *testing.T, d *rbd.Image, want []byte) {
	t.Helper()
	got := make([]byte, d.Size())
	for at := int64(0); ; {
		start, end, err := d.NextData(at)
		if err == io.EOF {
			break
		}
		must(t, err)
		_, err = d.ReadAt(got[start:end], start)
		must(t, err)
		at = end
	}
	if !bytes.Equal(got, want) {
		t.Error("read by the map, the disk is another")
	}
}

// runs are where there is data, as start, end, start, end.
func runs(t *testing.T, d *rbd.Image) (list []int64) {
	t.Helper()
	for at := int64(0); ; {
		start, end, err := d.NextData(at)
		if err == io.EOF {
			return list
		}
		must(t, err)
		list = append(list, start, end)
		at = end
	}
}

func TestMap(t *testing.T) {
	for kind, c := range map[string]struct {
		size    int
		options []string
		run     int64 // how long it becomes, of 4096 bytes that are written at the start of an object
	}{
		"whole objects": {1 << 40, nil, 4 << 20},
		"extents":       {4 << 30, []string{"--image-feature", "layering"}, 4096},
	} {
		t.Run(kind, func(t *testing.T) {
			a := create(t, c.size, c.options...)
			size := int64(c.size)
			var want []int64
			for _, off := range []int64{0, size / 2, size/8*7 - 4<<20, size - 4<<20} {
				write(t, a, bytes.Repeat([]byte{1}, 4096), off)
				want = append(want, off, off+c.run)
			}
			if got := runs(t, open(t, a)); !slices.Equal(got, want) {
				t.Errorf("data at %v, want %v", got, want)
			}
			if got := runs(t, open(t, snapshot(t, a, "s"))); !slices.Equal(got, want) {
				t.Errorf("in a snapshot, data at %v, want %v", got, want)
			}
		})
	}
}

// A map of objects that the cluster itself calls invalid is not used: each object is asked.
func TestInvalidMap(t *testing.T) {
	a := image(t, bytes.Repeat([]byte{1}, 4096))
	w, err := rbd.OpenTarget(a, 4096)
	must(t, err)
	w.Close()
	rbdtest.RBD(t, "resize", "--no-progress", "--size", "64M", a.String())
	if got, want := runs(t, open(t, a)), []int64{0, 4 << 20}; !slices.Equal(got, want) {
		t.Fatalf("data at %v, want %v", got, want)
	}
	rbdtest.RBD(t, "feature", "disable", a.String(), "fast-diff", "object-map")
	write(t, a, bytes.Repeat([]byte{1}, 4096), 32<<20)
	rbdtest.RBD(t, "feature", "enable", a.String(), "object-map", "fast-diff")
	if flags := rbdtest.RBD(t, "info", "--format=json", a.String()); !strings.Contains(flags, "object map invalid") {
		t.Fatalf("the map is not invalid: %s", flags)
	}
	if got, want := runs(t, open(t, a)), []int64{0, 4096, 32 << 20, 32<<20 + 4096}; !slices.Equal(got, want) {
		t.Errorf("data at %v, want %v", got, want)
	}
	rbdtest.RBD(t, "object-map", "rebuild", "--no-progress", a.String())
	if got, want := runs(t, open(t, a)), []int64{0, 4 << 20, 32 << 20, 36 << 20}; !slices.Equal(got, want) {
		t.Errorf("rebuilt: data at %v, want %v", got, want)
	}
}

func TestImageThatShrinks(t *testing.T) {
	all := bytes.Repeat([]byte{1}, 1<<20)
	a := image(t, all, small...)
	d := open(t, a)
	if s, err := d.Stat(); err != nil || s.Size != 1<<20 || s.Still(s) {
		t.Errorf("%+v, %v", s, err)
	}
	rbdtest.RBD(t, "resize", "--no-progress", "--size", "2M", a.String())
	p := make([]byte, 2<<20)
	if n, err := d.ReadAt(p, 0); n != 1<<20 || err != io.EOF || !bytes.Equal(p[:n], all) {
		t.Errorf("grown: %d bytes, %v", n, err)
	}
	if s, err := d.Stat(); err != nil || s.Size != 2<<20 || d.Size() != 1<<20 {
		t.Errorf("grown: %+v, %v; size %d", s, err, d.Size())
	}
	rbdtest.RBD(t, "resize", "--no-progress", "--allow-shrink", "--size", "500K", a.String())
	if n, err := d.ReadAt(p[:600<<10], 0); n != 500<<10 || !errors.Is(err, disk.ErrShrunk) || !bytes.Equal(p[:n], all[:n]) {
		t.Errorf("shrunk: %d bytes, %v", n, err)
	}
	if n, err := d.ReadAt(p[:10], 600<<10); n != 0 || !errors.Is(err, disk.ErrShrunk) || !strings.Contains(err.Error(), a.String()+" at byte 614400") {
		t.Errorf("shrunk: %d bytes, %v", n, err)
	}
	if n, err := d.ReadAt(p[:500<<10], 0); n != 500<<10 || err != nil {
		t.Errorf("what is left: %d bytes, %v", n, err)
	}
	if s, err := d.Stat(); err != nil || s.Size != 500<<10 {
		t.Errorf("shrunk: %+v, %v", s, err)
	}
}

// What is read of a snapshot that is gone may be what was written since. So the disk says at the end whether it was there.
func TestSnapshotThatGoes(t *testing.T) {
	s := snapshot(t, image(t, bytes.Repeat([]byte{1}, 1<<20), small...), "s")
	d := open(t, s)
	was, err := d.Stat()
	must(t, err)
	if now, err := d.Stat(); err != nil || !was.Still(now) {
		t.Errorf("%+v is now %+v, %v", was, now, err)
	}
	rbdtest.RBD(t, "snap", "rm", "--no-progress", s.String())
	if now, err := d.Stat(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "the image has no snapshot s") {
		t.Errorf("removed: %+v, %v", now, err)
	}
	rbdtest.RBD(t, "snap", "create", "--no-progress", s.String())
	if now, err := d.Stat(); err == nil || !strings.Contains(err.Error(), "removed, and made anew") {
		t.Errorf("another one of that name: %+v, %v", now, err)
	}
}

func TestNamespace(t *testing.T) {
	rbdtest.Cluster(t)
	rbdtest.RBD(t, "namespace", "create", "rbd/customer")
	a := rbd.Address{Pool: "rbd", Namespace: "customer", Image: name(t)}
	t.Cleanup(func() {
		remove(t, a)
		rbdtest.RBD(t, "namespace", "rm", "rbd/customer")
	})
	all := disktest.Content(1 << 20)
	w, err := rbd.Create(a, int64(len(all)))
	must(t, err)
	disktest.WriteSparse(t, w, all)
	must(t, errors.Join(w.Commit(), w.Close()))
	check(t, open(t, snapshot(t, a, "s")), all)
	if _, err := rbd.Open(rbd.Address{Pool: "rbd", Image: a.Image}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in the pool's own namespace: %v", err)
	}
	b := a
	b.Namespace = "nobody"
	_, err = rbd.Create(b, 1)
	for _, err := range []error{err, second(rbd.Open(b))} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "pool rbd has no namespace nobody") {
			t.Errorf("got %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestOpenRefuses(t *testing.T) {
	a := create(t, 1<<20)
	empty := create(t, 0)
	snapshot(t, a, "old")
	snapshot(t, a, "new")
	for address, want := range map[string]string{
		"nothing/x":           "the cluster has no pool nothing",
		"rbd/nothing":         "there is no image nothing in pool rbd",
		"rbd/nothing@s":       "there is no image nothing in pool rbd",
		a.String() + "@s":     "the image has no snapshot s; the newest of its 2 is new",
		empty.String():        "is empty: there is no disk in it",
		empty.String() + "@s": "the image has no snapshot s",
	} {
		b, err := rbd.Parse(address)
		must(t, err)
		d, err := rbd.Open(b)
		if d != nil || err == nil || err.Error() != "open rbd:"+address+": "+want || strings.Contains(want, " no ") && b != empty && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

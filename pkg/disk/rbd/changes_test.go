//go:build ceph

package rbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/disk/disktest"
	"backy/pkg/disk/rbd"
	"backy/pkg/disk/rbd/rbdtest"
	"backy/pkg/extent"
)

const object = 64 << 10 // of the images here

var unmapped = []string{"--object-size", "64K", "--image-feature", "layering,exclusive-lock"}

// take makes a snapshot of an image that is open and returns it.
func take(t testing.TB, d disk.Disk, name string) disk.Disk {
	t.Helper()
	must(t, d.(disk.Snapshotter).Snapshot(t.Context(), name))
	s, err := d.(disk.Snapshotter).OpenSnapshot(t.Context(), name)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// changes are those since a snapshot, in objects: "3 5-7 z9" for whole objects 3 and 5 to 7, and 9, which is zero; other ones in bytes.
func changes(t *testing.T, d disk.Disk, from string, grain int64) string {
	t.Helper()
	m, err := d.(disk.Differ).Changes(t.Context(), from, grain)
	must(t, err)
	var words []string
	for _, e := range m {
		words = append(words, word(e))
	}
	return strings.Join(words, " ")
}

func word(e extent.Extent) string {
	text := map[bool]string{true: "z"}[e.Zero]
	switch first, count := e.Offset/object, e.Length/object; {
	case e.Offset%object > 0 || e.Length%object > 0:
		return fmt.Sprintf("%s%d+%d", text, e.Offset, e.Length)
	case count == 1:
		return fmt.Sprintf("%s%d", text, first)
	default:
		return fmt.Sprintf("%s%d-%d", text, first, first+count-1)
	}
}

// What is done between two snapshots of an image of 16 objects that are full of ones, and what the cluster says of it.
func TestChanges(t *testing.T) {
	ones := bytes.Repeat([]byte{1}, 16*object)
	for what, c := range map[string]struct {
		do            func(t *testing.T, m *machine, d disk.Disk)
		mapped, asked string // by objects with a map, by 4096 bytes without
		coarse        string // the latter, by four objects
	}{
		"nothing":               {func(t *testing.T, m *machine, d disk.Disk) {}, "", "", ""},
		"a write":               {func(t *testing.T, m *machine, d disk.Disk) { m.write(ones[:5000], 3*object+100) }, "3", "196608+8192", "0-3"},
		"discard of objects":    {func(t *testing.T, m *machine, d disk.Disk) { m.discard(3*object, 5*object) }, "z3-7", "z3-7", "0-3 z4-7"},
		"discard of a part":     {func(t *testing.T, m *machine, d disk.Disk) { m.discard(3*object+4096, 8192) }, "3", "200704+8192", "0-3"},
		"discard of an end":     {func(t *testing.T, m *machine, d disk.Disk) { m.discard(4*object-8192, 8192) }, "3", "z253952+8192", "0-3"},
		"discard, then a write": {func(t *testing.T, m *machine, d disk.Disk) { m.discard(3*object, object); m.write(ones[:1], 3*object) }, "3", "196608+4096 z200704+61440", "0-3"},
		"zeroes written":        {func(t *testing.T, m *machine, d disk.Disk) { m.writeSame(3*object, object) }, "z3", "z3", "0-3"},
		"smaller":               {func(t *testing.T, m *machine, d disk.Disk) { m.resize(10*object + 5) }, "655360+5", "", ""},
		"smaller, and back":     {func(t *testing.T, m *machine, d disk.Disk) { m.resize(10*object + 4096); m.resize(16 * object) }, "10 z11-15", "z659456+389120", "8-11 z12-15"},
		"larger":                {func(t *testing.T, m *machine, d disk.Disk) { m.resize(20 * object); m.write(ones, 4*object) }, "4-15", "4-15", "4-15"},
		"a snapshot between": {func(t *testing.T, m *machine, d disk.Disk) {
			m.write(ones[:1], 0)
			take(t, d, "x")
			m.discard(object, object)
		}, "0 z1", "0+4096 z1", "0-3"},
		"and discards before it": {func(t *testing.T, m *machine, d disk.Disk) {
			m.discard(object, object)
			take(t, d, "x")
			m.write(ones[:1], 0)
		}, "0 z1", "0+4096 z1", "0-3"},
		"one that is gone": {func(t *testing.T, m *machine, d disk.Disk) {
			m.write(ones[:1], 0)
			take(t, d, "x")
			m.discard(object, object)
			must(t, d.(disk.Snapshotter).RemoveSnapshot(t.Context(), "x"))
		}, "0 z1", "0+4096 z1", "0-3"},
		"smaller in between": {func(t *testing.T, m *machine, d disk.Disk) {
			m.resize(10 * object)
			take(t, d, "x")
			m.resize(16 * object)
			m.write(ones[:1], 12*object)
		}, "z10-11 12 z13-15", "z10-11 786432+4096 z790528+258048", "8-15"}, // not by the maps, which are wrong then
		"away in between": {func(t *testing.T, m *machine, d disk.Disk) {
			m.discard(2*object, 2*object)
			take(t, d, "x")
			m.write(ones[:object], 2*object)
		}, "2 z3", "2 z3", "0-3"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for kind, options := range map[string][]string{"mapped": small, "asked": unmapped} {
				l, m := live(t, image(t, ones, options...))
				take(t, l.Disk, "s")
				c.do(t, m, l.Disk)
				s := take(t, l.Disk, "t")
				grain, want := int64(object), c.mapped
				if kind == "asked" {
					grain, want = 4096, c.asked
					if got := changes(t, s, "s", 4*object); got != c.coarse {
						t.Errorf("coarsely: got %s, want %s", got, c.coarse)
					}
				}
				if got := changes(t, s, "s", grain); got != want {
					t.Errorf("%s: got %s, want %s", kind, got, want)
				}
			}
		})
	}
}

// BenchmarkChanges asks what has changed in a sparse image of 1 TiB: 64 objects.
func BenchmarkChanges(b *testing.B) {
	l, m := live(b, create(b, 1<<40))
	write := func() {
		for i := range int64(64) {
			m.write([]byte{1}, i<<34)
		}
	}
	write()
	take(b, l.Disk, "s")
	write()
	d := take(b, l.Disk, "t").(disk.Differ)
	for b.Loop() {
		list, err := d.Changes(b.Context(), "s", 4<<20)
		if err != nil || len(list) != 64 {
			b.Fatalf("%d changes, %v", len(list), err)
		}
	}
}

// A map that nobody vouches for, at any of the snapshots from one to the other, is not taken.
func TestInvalidMaps(t *testing.T) {
	ones := bytes.Repeat([]byte{1}, 16*object)
	const exact, whole = "4096+4096 131072+4096", "0 2"
	for what, c := range map[string]struct {
		do   func(t *testing.T, a rbd.Address, snapshots []string)
		want string
	}{
		"all is well": {func(*testing.T, rbd.Address, []string) {}, whole},
		"no features": {func(t *testing.T, a rbd.Address, _ []string) {
			rbdtest.RBD(t, "feature", "disable", a.String(), "fast-diff")
		}, exact},
		"enabled anew": {func(t *testing.T, a rbd.Address, _ []string) {
			rbdtest.RBD(t, "feature", "disable", a.String(), "object-map", "fast-diff")
			rbdtest.RBD(t, "feature", "enable", a.String(), "object-map", "fast-diff")
		}, exact},
		"lost: the first":  {func(t *testing.T, a rbd.Address, list []string) { lose(t, a, list[0]) }, exact},
		"lost: the second": {func(t *testing.T, a rbd.Address, list []string) { lose(t, a, list[1]) }, exact},
		"lost: the last":   {func(t *testing.T, a rbd.Address, list []string) { lose(t, a, list[2]) }, exact},
		"damaged: the second": {func(t *testing.T, a rbd.Address, list []string) {
			rbdtest.Tool(t, []byte("x"), "rados", "-p", "rbd", "put", list[1], "-")
		}, exact},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			a := image(t, ones, small...)
			l, m := live(t, a)
			take(t, l.Disk, "s")
			m.write(ones[:10], 4096)
			take(t, l.Disk, "t")
			m.write(ones[:10], 2*object)
			take(t, l.Disk, "u")
			m.close()
			c.do(t, a, mapObjects(t, a))
			s, err := l.Disk.(disk.Snapshotter).OpenSnapshot(t.Context(), "u")
			must(t, err)
			defer s.Close()
			if got := changes(t, s, "s", 4096); got != c.want && c.want == exact || c.want == whole && got != whole {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// mapObjects are the names of the objects that hold the maps of an image's snapshots, by age.
func mapObjects(t *testing.T, a rbd.Address) (list []string) {
	t.Helper()
	_, id, _ := strings.Cut(rbdtest.RBD(t, "info", "--format=json", a.String()), `"id":"`)
	id, _, _ = strings.Cut(id, `"`)
	for line := range strings.Lines(rbdtest.RBD(t, "snap", "ls", a.String())) {
		var n int
		if _, err := fmt.Sscan(line, &n); err == nil {
			list = append(list, fmt.Sprintf("rbd_object_map.%s.%016x", id, n))
		}
	}
	return list
}

func lose(t *testing.T, a rbd.Address, object string) {
	t.Helper()
	rbdtest.Tool(t, nil, "rados", "-p", a.Pool, "rm", object)
}

// A map that is built anew asks each object, and counts when all three are.
func TestRebuiltMap(t *testing.T) {
	ones := bytes.Repeat([]byte{1}, 16*object)
	a := image(t, ones, small...)
	l, m := live(t, a)
	take(t, l.Disk, "s")
	m.write(ones[:10], 4096)
	m.discard(3*object, object)
	s := take(t, l.Disk, "t")
	m.close()
	rbdtest.RBD(t, "feature", "disable", a.String(), "object-map", "fast-diff")
	rbdtest.RBD(t, "feature", "enable", a.String(), "object-map", "fast-diff")
	for _, at := range []string{"", "@s", "@t"} {
		if got := changes(t, s, "s", 4096); got != "4096+4096 z3" {
			t.Errorf("before that of %s: %s", at, got)
		}
		rbdtest.RBD(t, "object-map", "rebuild", "--no-progress", a.String()+at)
	}
	if got := changes(t, s, "s", 4096); got != "0 z3" {
		t.Errorf("after it: %s", got)
	}
}

// What a clone does not hold may show what the parent has, so it is read.
func TestChangesOfClone(t *testing.T) {
	ones := bytes.Repeat([]byte{1}, 16*object)
	for kind, options := range map[string][]string{"fast-diff": small, "no object map": unmapped} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := clone(t, image(t, ones, options...), options...)
			l, m := live(t, a)
			take(t, l.Disk, "one")
			m.write(ones[:object], 0)
			m.discard(object, object)
			two := take(t, l.Disk, "two")
			if got := changes(t, two, "one", object); got != "0-1" {
				t.Errorf("written, and discarded: %s", got)
			}
			m.resize(8*object + 100)
			m.resize(16 * object)
			three := take(t, l.Disk, "three")
			if got := changes(t, three, "two", object); got != "8-15" {
				t.Errorf("smaller, and back: %s", got)
			}
			m.close()
			rbdtest.RBD(t, "flatten", "--no-progress", a.String())
			four := take(t, l.Disk, "four")
			want := map[bool]string{true: "2-7", false: "0-8"}[kind == "fast-diff"] // whose older snapshots were flattened, too
			if got := changes(t, four, "three", object); got != want {
				t.Errorf("flattened: %s", got)
			}
			if !bytes.Equal(content(t, rbd.Address{Pool: a.Pool, Image: a.Image, Snapshot: "four"}), content(t, rbd.Address{Pool: a.Pool, Image: a.Image, Snapshot: "three"})) {
				t.Error("flattened, it is another")
			}
		})
	}
}

// A rollback gives the image the map of the older snapshot, which does not know what is undone by it, and the cluster vouches
// for it. Objects that are asked know better.
func TestRollback(t *testing.T) {
	ones := bytes.Repeat([]byte{1}, 16*object)
	for kind, options := range map[string][]string{"mapped": small, "asked": unmapped} {
		l, m := live(t, image(t, ones, options...))
		take(t, l.Disk, "full")
		take(t, l.Disk, "old")
		m.write(bytes.Repeat([]byte{2}, object), 3*object)
		take(t, l.Disk, "s")
		m.restore("old")
		s := take(t, l.Disk, "t")
		if kind == "asked" {
			if got := changes(t, s, "s", object); got != "3" {
				t.Errorf("%s: got %q", kind, got)
			}
			continue
		}
		doubt := (*disk.DoubtError)(nil)
		got, err := s.(disk.Differ).Changes(t.Context(), "s", object)
		if !errors.As(err, &doubt) || doubt.Offset != 3*object || doubt.Length != object || len(got) > 0 {
			t.Errorf("%s: got %v, %v", kind, got, err)
		}
	}
}

func TestChangesRefuses(t *testing.T) {
	a := image(t, disktest.Content(1<<20), small...)
	l, _ := live(t, a)
	one, two := take(t, l.Disk, "one"), take(t, l.Disk, "two")
	for _, c := range []struct {
		d    disk.Disk
		from string
		want string
	}{
		{l.Disk, "one", "rbd:" + a.String() + " and its snapshot one: it is no snapshot, so it may change"},
		{two, "none", "rbd:" + a.String() + "@two and its snapshot none: there is no such snapshot"},
		{one, "two", "that is the later one"},
	} {
		if m, err := c.d.(disk.Differ).Changes(t.Context(), c.from, 4096); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, %v, want %s", m, err, c.want)
		}
	}
	must(t, l.Disk.(disk.Snapshotter).RemoveSnapshot(t.Context(), "two"))
	if m, err := two.(disk.Differ).Changes(t.Context(), "one", 4096); err == nil || !strings.Contains(err.Error(), "the snapshot that is read has gone") {
		t.Errorf("of one that was removed: %v, %v", m, err)
	}
	must(t, two.Close())
	if m, err := two.(disk.Differ).Changes(t.Context(), "one", 4096); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("of one that is closed: %v, %v", m, err)
	}
}

package disktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/extent"
)

// Live is a disk that is in use: somebody writes to it while snapshots are made of it.
type Live struct {
	Disk    disk.Disk // a disk.Snapshotter; its snapshots are disk.Fixed and disk.Differ
	Step    int64     // bytes; what is written begins and ends at whole ones
	Write   func(p []byte, off int64)
	Zero    func(off, length int64) // makes it read as zero, by any way there is
	Resize  func(size int64)        // nil: it cannot be
	Restore func(snapshot string)   // makes the disk what it was; nil: it cannot be
}

// kept is a snapshot and what it must hold.
type kept struct {
	name    string
	content []byte
}

// Snapshots tests disks that snapshots can be made of; each that open returns holds the content given. One is written to in
// rounds, and each time a snapshot is made, which must hold what the disk held, and must tell what has changed since any
// earlier one. A change that is left out is an error, one that is none is not.
func Snapshots(t *testing.T, seed uint64, rounds int, open func(t *testing.T, content []byte) Live) {
	content := Content(1 << 20)
	t.Run("walk", func(t *testing.T) {
		walk(t, rand.New(rand.NewPCG(seed, 0)), rounds, bytes.Clone(content), open(t, content))
	})
	t.Run("names", func(t *testing.T) { names(t, open(t, content)) })
}

func walk(t *testing.T, r *rand.Rand, rounds int, now []byte, l Live) {
	ctx, size, all := t.Context(), int64(len(now)), []kept(nil)
	s := l.Disk.(disk.Snapshotter)
	var done []string
	for round := range rounds {
		done = append(done, fmt.Sprintf("\n%d:", round))
		for range r.IntN(6) {
			var what string
			now, what = change(r, l, now, size, all)
			done = append(done, what)
		}
		k := kept{fmt.Sprintf("s%d", round), bytes.Clone(now)}
		d := take(t, s, k.name)
		if got := whole(t, d); !bytes.Equal(got, k.content) {
			t.Fatalf("round %d: the snapshot holds %d bytes of another disk, from byte %d on; done: %s", round, len(got), firstOther(got, now), done)
		}
		for _, old := range all {
			for _, grain := range []int64{4 << 10, 64 << 10, 1 << 20} {
				m, err := d.(disk.Differ).Changes(ctx, old.name, grain)
				if err != nil {
					t.Fatal(err)
				}
				if wrong := judge(m, old.content, k.content); wrong != "" {
					t.Errorf("%s since %s, by %d bytes: %s; it says %v; done: %s", k.name, old.name, grain, wrong, m, done)
				}
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if all = append(all, k); r.IntN(3) == 0 {
			i := r.IntN(len(all))
			done = append(done, "remove "+all[i].name)
			if err := s.RemoveSnapshot(ctx, all[i].name); err != nil {
				t.Fatal(err)
			}
			all = append(all[:i], all[i+1:]...)
		}
		if t.Failed() {
			return
		}
	}
}

// change does something to the disk, and returns what it holds then.
func change(r *rand.Rand, l Live, now []byte, size int64, all []kept) ([]byte, string) {
	step := func(n int64) int64 { return r.Int64N(n/l.Step+1) * l.Step }
	off := step(int64(len(now)))
	length := min(step(1<<uint(12+r.IntN(10))), int64(len(now))-off)
	switch n := r.IntN(12); {
	case n == 0 && l.Resize != nil:
		to := l.Step + step(size*2)
		l.Resize(to)
		return append(now[:min(to, int64(len(now)))], make([]byte, max(0, to-int64(len(now))))...), fmt.Sprint("resize ", to)
	case n == 1 && l.Restore != nil && len(all) > 0:
		k := all[r.IntN(len(all))]
		l.Restore(k.name)
		return bytes.Clone(k.content), "restore " + k.name
	case n < 6:
		l.Zero(off, length)
		clear(now[off : off+length])
		return now, fmt.Sprint("zero ", off, "+", length)
	}
	p := make([]byte, length)
	for i := range p {
		p[i] = byte(r.Uint32() | 1)
	}
	l.Write(p, off)
	copy(now[off:], p)
	return now, fmt.Sprint("write ", off, "+", length)
}

// take makes a snapshot and opens it.
func take(t *testing.T, s disk.Snapshotter, name string) disk.Disk {
	t.Helper()
	err := s.Snapshot(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.OpenSnapshot(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func whole(t *testing.T, d disk.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if n, err := d.ReadAt(p, 0); err != nil && err != io.EOF || n < len(p) {
		t.Fatalf("%d of %d bytes: %v", n, len(p), err)
	}
	return p
}

// judge says what is wrong with a map of what differs between two disks.
func judge(m extent.Map, from, to []byte) string {
	end := int64(min(len(from), len(to)))
	if _, err := extent.NewMap(append(extent.Map(nil), m...), end); err != nil {
		return err.Error()
	}
	at := int64(0)
	for _, e := range append(m[:len(m):len(m)], extent.Extent{Offset: end}) {
		if e.Offset < at {
			return fmt.Sprintf("byte %d comes late", e.Offset)
		}
		if a, b := from[at:e.Offset], to[at:e.Offset]; !bytes.Equal(a, b) {
			return fmt.Sprintf("it leaves out byte %d", at+int64(firstOther(a, b)))
		}
		if at = e.End(); e.Zero && len(bytes.Trim(to[e.Offset:at], "\x00")) > 0 {
			return fmt.Sprintf("not all from byte %d to %d is zero", e.Offset, at)
		}
	}
	return ""
}

func names(t *testing.T, l Live) {
	s, ctx := l.Disk.(disk.Snapshotter), t.Context()
	if f, ok := l.Disk.(disk.Fixed); ok && f.Fixed() {
		t.Error("a disk in use passes for fixed")
	}
	if d, err := s.OpenSnapshot(ctx, "one"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opens %v, %v", d, err)
	}
	one := take(t, s, "one")
	defer one.Close()
	if f, ok := one.(disk.Fixed); !ok || !f.Fixed() {
		t.Error("a snapshot is not fixed")
	}
	if err := s.Snapshot(ctx, "one"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one of its name: %v", err)
	}
	again, err := s.OpenSnapshot(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	if again.Size() != one.Size() || !bytes.Equal(whole(t, again), whole(t, one)) || again.Close() != nil {
		t.Error("opened again, the snapshot is another")
	}
	if m, err := one.(disk.Differ).Changes(ctx, "none", 4096); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("since a snapshot that is not there: %v, %v", m, err)
	}
	if m, err := one.(disk.Differ).Changes(ctx, "one", 4096); err != nil || len(m) > 0 {
		t.Errorf("since itself: %v, %v", m, err)
	}
	ended, cancel := context.WithCancelCause(ctx)
	cancel(io.ErrNoProgress)
	made := s.Snapshot(ended, "two")
	_, opened := s.OpenSnapshot(ended, "one")
	removed := s.RemoveSnapshot(ended, "one")
	_, asked := one.(disk.Differ).Changes(ended, "one", 4096)
	for _, err := range []error{made, opened, removed, asked} {
		if !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("told to stop: %v", err)
		}
	}
	for range 2 {
		if err := s.RemoveSnapshot(ctx, "one"); err != nil {
			t.Error(err)
		}
	}
	if d, err := s.OpenSnapshot(ctx, "one"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opens %v, %v, which was removed", d, err)
	}
	for _, name := range []string{"", "a/b", "a@b", "a\x00b"} {
		if d, err := s.OpenSnapshot(ctx, name); err == nil {
			d.Close()
			t.Errorf("opens a snapshot called %q", name)
		}
	}
	if _, err := s.OpenSnapshot(ctx, "two"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made after it was told to stop: %v", err)
	}
}

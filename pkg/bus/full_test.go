package bus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backy/pkg/event"
)

// A full disk: what was published is kept, what cannot be kept is said, and once there is room the bus opens again.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("backy-test", mount, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Errorf("unmount %s: %v", mount, err)
		}
	})
	dir := filepath.Join(mount, ".backy", "nats")
	b := openAt(t, dir)
	publish(t, b, committed("vm1", "R1"))
	filling := filepath.Join(mount, "filling")
	fill(t, filling)
	var err error
	kept := 0
	for i := 0; err == nil && i < 1000; i++ { // a page may have room left
		err = b.Publish(t.Context(), event.Event{Kind: event.Warning, Job: "vm2", Revision: fmt.Sprint(i), Message: strings.Repeat("x", 1000)})
		kept = i
	}
	if !errors.Is(err, ErrFull) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%d more, then: %v", kept, err)
	}
	t.Log(err)
	if _, err := b.Push(t.Context(), work("vm1", "default", "fast")); !errors.Is(err, ErrFull) {
		t.Errorf("queue: %v", err)
	}
	if err := b.Check(t.Context()); !errors.Is(err, ErrFull) {
		t.Errorf("check: %v", err)
	}
	b.Close()

	if _, err := Open(t.Context(), options(dir)); !errors.Is(err, unix.ENOSPC) && !errors.Is(err, ErrFull) {
		t.Errorf("open on a full disk: %v", err)
	}
	if err := os.Remove(filling); err != nil {
		t.Fatal(err)
	}
	b = openAt(t, dir)
	want(t, all(t, b, EventFilter{Job: "vm1"}), "committed vm1 R1")
	if n := len(all(t, b, EventFilter{Job: "vm2"})); n != kept {
		t.Errorf("%d of %d are kept", n, kept)
	}
	publish(t, b, committed("vm1", "R2"))
	push(t, b, work("vm1", "default", "fast"))
	take(t, b, "default", "fast")
	if err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// What the server says when it cannot write, and after which it does not try again, ends its use; the rest does not.
func TestWhatTheServerCannotWrite(t *testing.T) {
	for _, test := range []struct {
		said string
		want error
	}{
		{"Error closing client connection: broken pipe", nil},
		{"Filestore [BACKY_DUE] Stream state too short (0 bytes)", nil},
		{"JetStream failed to store a msg on stream '$G > BACKY_DUE': write 1.blk: no space left on device", ErrFull},
		{"JetStream failed to store a msg on stream '$G > BACKY_DUE': write 1.blk: read-only file system", ErrWrite},
		{"Filestore [BACKY_EVENTS] Critical write error: write 1.blk: disk quota exceeded", ErrWrite},
		{"JetStream stream '$G > BACKY_EVENTS' critical write error: write 1.blk: input/output error", ErrWrite},
	} {
		_, b := base(t)
		b.server.log.Errorf("%s", test.said)
		if err := b.Check(t.Context()); !errors.Is(err, test.want) || test.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", test.said, err, test.want)
		}
	}
}

// fill leaves no room on the disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

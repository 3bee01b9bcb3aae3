package disk

import (
	"testing"
	"time"
)

func TestBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 4 << 20} {
		b := Buffer(n)
		if len(b) != n || cap(b) != n {
			t.Errorf("len %d, cap %d, want %d", len(b), cap(b), n)
		}
		if n%Alignment == 0 && n > 0 && !Aligned(b, 8192) {
			t.Errorf("Buffer(%d) is not aligned", n)
		}
	}
	b := Buffer(8192)
	for name, aligned := range map[string]bool{"address": Aligned(b[1:4097], 0), "offset": Aligned(b, 512), "length": Aligned(b[:512], 0)} {
		if aligned {
			t.Errorf("passes for aligned with an odd %s", name)
		}
	}
}

func TestStill(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	was := State{Size: 10, Modified: now, Changed: now}
	for _, c := range []struct {
		name     string
		was, now State
		want     bool
	}{
		{"same", was, State{10, now.Local(), now}, true},
		{"grown", was, State{11, now, now}, false},
		{"written", was, State{10, now.Add(1), now.Add(1)}, false},
		{"written, and mtime put back", was, State{10, now, now.Add(1)}, false},
		{"no times", State{Size: 10}, State{Size: 10}, false},
	} {
		if got := c.was.Still(c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

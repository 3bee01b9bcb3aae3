package disk

import (
	"testing"
	"time"
)

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

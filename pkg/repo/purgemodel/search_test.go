package purgemodel

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"backy/pkg/repo"
)

// words is a state as four numbers.
type words [unsafe.Sizeof(state{}) / 8]uint64

// print is a fingerprint of a state: the search takes states with one fingerprint for one. With 50 million states the odds
// that it misses any are less than 1 in 10,000.
func print(s *state) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, w := range (*words)(unsafe.Pointer(s)) {
		hi, lo := bits.Mul64(h^w, 0xd6e8feb86659fd93)
		h = hi ^ lo ^ bits.RotateLeft64(h, 29)
	}
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 29
	return max(h, 1)
}

// set is a set of fingerprints.
type set struct {
	slots []uint64
	n     int
}

func newSet() *set { return &set{slots: make([]uint64, 1<<16)} }

// add reports whether the fingerprint is new.
func (s *set) add(h uint64) bool {
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case h:
			return false
		case 0:
			s.slots[i] = h
			if s.n++; s.n*8 > len(s.slots)*5 {
				s.grow()
			}
			return true
		}
	}
}

func (s *set) grow() {
	old := s.slots
	s.slots, s.n = make([]uint64, 2*len(old)), 0
	for _, h := range old {
		if h != 0 {
			s.add(h)
		}
	}
}

// result is what a search found.
type result struct {
	states, depth int
	complete      bool
	lost          string
	trace         []string // to a state in which something is lost; as short as can be
}

// search visits all states, those with the fewest steps first, until something is lost or the time is over.
func (m *model) search(limit time.Duration) result {
	end := time.Now().Add(limit)
	var r result
	seen := newSet()
	var now []state
	for _, s := range m.start {
		if seen.add(print(&s)) {
			now = append(now, s)
		}
	}
	var bad *state
	for ; len(now) > 0 && bad == nil; r.depth++ {
		var next []state
		for i := range now {
			if i&0xfff == 0 && time.Now().After(end) {
				r.states = seen.n
				return r
			}
			m.next(&now[i], func(t state, _ string, _ repo.Step, _ string) {
				if bad == nil && seen.add(print(&t)) {
					if next = append(next, t); m.lost(&t) != "" {
						bad = &t
					}
				}
			})
		}
		now = next
	}
	r.states, r.complete = seen.n, bad == nil
	if bad != nil {
		r.lost, r.trace = m.lost(bad), m.traceTo(bad)
	}
	return r
}

// traceTo finds the steps to a state again.
func (m *model) traceTo(bad *state) []string {
	type visited struct {
		state
		from int
		how  string
	}
	var list []visited
	seen := newSet()
	for _, s := range m.start {
		seen.add(print(&s))
		list = append(list, visited{s, -1, "start"})
	}
	for i := 0; i < len(list); i++ {
		if list[i].state == *bad {
			var trace []string
			for ; i >= 0; i = list[i].from {
				trace = append(trace, list[i].how)
			}
			slices.Reverse(trace)
			return trace
		}
		from := list[i].state
		m.next(&from, func(t state, actor string, step repo.Step, what string) {
			if seen.add(print(&t)) {
				list = append(list, visited{t, i, strings.TrimSpace(fmt.Sprint(actor, ": ", step, " ", what))})
			}
		})
	}
	return nil
}

func (r result) report(t *testing.T) {
	t.Helper()
	t.Logf("%d states, %d steps deep, complete: %v", r.states, r.depth, r.complete)
	if r.lost != "" {
		t.Logf("%s:\n\t%s", r.lost, strings.Join(r.trace, "\n\t"))
	}
}

package sched

import (
	"context"
	"sync"
)

// limiter lets so many in at once. The limit can be changed at any time: nobody is thrown out by that, but nobody gets in
// until enough have left.
type limiter struct {
	mu          sync.Mutex
	limit, used int
	changed     chan struct{} // closed and made anew when somebody may get in
}

func newLimiter(limit int) *limiter { return &limiter{limit: limit, changed: make(chan struct{})} }

// enter waits for a place; false when ctx ends first.
func (l *limiter) enter(ctx context.Context) bool {
	for ctx.Err() == nil {
		l.mu.Lock()
		if l.used < l.limit {
			l.used++
			l.mu.Unlock()
			return true
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
	return false
}

func (l *limiter) leave() { l.change(func() { l.used-- }) }

func (l *limiter) set(limit int) { l.change(func() { l.limit = limit }) }

func (l *limiter) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

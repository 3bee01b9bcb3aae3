// Package parallel runs work on several cores and keeps its order.
package parallel

import (
	"context"
	"sync"
)

// Ordered does work on items, several at once, and hands them on in the order in which they came.
//
// feed yields the items; work is called for each, on as many goroutines as workers says; emit gets each item whose work is
// done, in the order of feed, on the caller's goroutine. At most n items are under way, counted from when yield returns to
// when their emit has returned, so n bounds the memory: yield waits for room. It returns false when all is to stop; feed
// should then return.
//
// The first error of feed, work or emit cancels the context that feed and work were given, and is what Ordered returns; if
// ctx is cancelled first, that is its cause. When Ordered returns, all of its goroutines have ended. nil means that all
// items that feed yielded were emitted.
func Ordered[T any](ctx context.Context, workers, n int, feed func(ctx context.Context, yield func(T) bool) error,
	work func(context.Context, T) error, emit func(T) error) error {
	n = max(n, 1)
	workers = min(max(workers, 1), n)
	ctx, cancel := context.WithCancelCause(ctx) // keeps the first cause, whoever gives it
	defer cancel(nil)

	type cell struct {
		item T
		done chan struct{}
	}
	room := make(chan struct{}, n)
	todo, order := make(chan *cell, n), make(chan *cell, n) // neither ever blocks who has room

	var all sync.WaitGroup
	all.Go(func() {
		defer close(order)
		defer close(todo)
		err := feed(ctx, func(item T) bool {
			if ctx.Err() != nil {
				return false
			}
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return false
			}
			c := &cell{item, make(chan struct{})}
			todo <- c
			order <- c
			return true
		})
		if err != nil {
			cancel(err)
		}
	})
	for range workers {
		all.Go(func() {
			for c := range todo {
				if ctx.Err() != nil {
					continue
				}
				if err := work(ctx, c.item); err != nil {
					cancel(err)
					continue
				}
				close(c.done)
			}
		})
	}

	for c := range order {
		select {
		case <-c.done:
			if ctx.Err() == nil {
				if err := emit(c.item); err != nil {
					cancel(err)
				}
			}
		case <-ctx.Done(): // its work may never be done
		}
		<-room
	}
	all.Wait()
	return context.Cause(ctx)
}

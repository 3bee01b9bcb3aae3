package parallel

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// count feeds the numbers from 0 to n-1, or without end.
func count(n int) func(context.Context, func(int) bool) error {
	return func(_ context.Context, yield func(int) bool) error {
		for i := 0; n < 0 || i < n; i++ {
			if !yield(i) {
				return nil
			}
		}
		return nil
	}
}

func nothing(context.Context, int) error { return nil }

func TestOrderIsKept(t *testing.T) {
	for _, workers := range []int{0, 1, 3, 16} {
		for _, n := range []int{0, 1, 4, 100} {
			var got []int
			err := Ordered(t.Context(), workers, n, count(500), func(context.Context, int) error {
				for range rand.IntN(20) {
					runtime.Gosched()
				}
				return nil
			}, func(i int) error { got = append(got, i); return nil })
			if err != nil || len(got) != 500 || !slices.IsSorted(got) {
				t.Fatalf("%d workers, %d under way: %v, %d items: %v", workers, n, err, len(got), got)
			}
		}
	}
}

func TestNoMoreThanNUnderWay(t *testing.T) {
	const n = 5
	var under, most atomic.Int64
	err := Ordered(t.Context(), 3, n, func(_ context.Context, yield func(int) bool) error {
		for i := range 200 {
			if !yield(i) {
				return nil
			}
			if u := under.Add(1); u > most.Load() {
				most.Store(u)
			}
		}
		return nil
	}, nothing, func(int) error { under.Add(-1); return nil })
	if err != nil || most.Load() > n+1 { // one more: its room is freed just after emit
		t.Errorf("%v, %d under way, want at most %d", err, most.Load(), n)
	}
}

func TestSeveralAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := Ordered(t.Context(), 4, 8, count(8), func(context.Context, int) error { time.Sleep(time.Second); return nil }, func(int) error { return nil })
		if took := time.Since(start); err != nil || took != 2*time.Second {
			t.Errorf("8 items of a second each by 4 workers took %v, %v", took, err)
		}
	})
}

// synctest fails if a goroutine is left over.
func TestFirstErrorEndsAll(t *testing.T) {
	broken := errors.New("broken")
	at := func(n int) func(int) error {
		return func(i int) error {
			if i == n {
				return broken
			}
			return nil
		}
	}
	ok := at(-1)
	for name, run := range map[string]func(ctx context.Context) error{
		"feed": func(ctx context.Context) error {
			return Ordered(ctx, 3, 6, func(ctx context.Context, yield func(int) bool) error {
				count(50)(ctx, yield)
				return broken
			}, nothing, ok)
		},
		"work": func(ctx context.Context) error {
			return Ordered(ctx, 3, 6, count(-1), func(_ context.Context, i int) error { return at(50)(i) }, ok)
		},
		"work, others wait for the context": func(ctx context.Context) error {
			return Ordered(ctx, 3, 6, count(-1), func(ctx context.Context, i int) error {
				if i == 1 {
					return broken
				}
				<-ctx.Done()
				return ctx.Err()
			}, ok)
		},
		"emit": func(ctx context.Context) error { return Ordered(ctx, 3, 6, count(-1), nothing, at(50)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := run(t.Context()); err != broken {
					t.Errorf("got %v, want %v", err, broken)
				}
			})
		})
	}
}

func TestNothingIsEmittedPastAnError(t *testing.T) {
	broken := errors.New("broken")
	last := -1
	err := Ordered(t.Context(), 4, 16, count(-1), func(_ context.Context, i int) error {
		if i == 20 {
			return broken
		}
		return nil
	}, func(i int) error { last = i; return nil })
	if err != broken || last >= 20 {
		t.Errorf("got %v, last emitted %d", err, last)
	}
}

func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("operator has had enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		err := Ordered(ctx, 2, 4, count(-1), func(ctx context.Context, i int) error {
			if i == 30 {
				cancel(why)
				return ctx.Err()
			}
			return nil
		}, func(int) error { return nil })
		if err != why {
			t.Errorf("got %v, want %v", err, why)
		}
	})
}

package sched

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"backy/pkg/bus"
	"backy/pkg/event"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l, in := newLimiter(2), make(chan bool, 10)
		for range 5 {
			go func() { in <- l.enter(ctx) }()
		}
		inside := func(want int) {
			t.Helper()
			synctest.Wait()
			if len(in) != want {
				t.Errorf("%d have got in, want %d", len(in), want)
			}
		}
		inside(2)
		l.set(3)
		inside(3)
		l.set(1) // nobody is thrown out, and nobody gets in until enough have left
		l.leave()
		l.leave()
		inside(3)
		l.leave()
		inside(4)
		cancel()
		synctest.Wait()
		for range 4 {
			if !<-in {
				t.Error("one of those that got in was told otherwise")
			}
		}
		if <-in || l.enter(ctx) {
			t.Error("nobody gets in after the end")
		}
	})
}

// The outbox keeps the order, tries again, and gives up at the end only.
func TestOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox()
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		var away atomic.Bool
		away.Store(true)
		go o.run(ctx, func(_ context.Context, e event.Event) error {
			if away.Load() {
				return errors.New("away")
			}
			got = append(got, e.Job)
			return nil
		}, slog.New(slog.DiscardHandler))
		for _, job := range []string{"a", "b", "c"} {
			o.put(event.Event{Kind: event.Due, Job: job})
		}
		time.Sleep(time.Minute)
		begin := time.Now()
		o.drain(2 * time.Second)
		if waited := time.Since(begin); waited != 2*time.Second || len(got) != 0 {
			t.Errorf("with the bus away: waited %s, got %v", waited, got)
		}
		away.Store(false)
		o.drain(time.Hour)
		if len(got) != 3 || got[0] != "a" || got[2] != "c" {
			t.Errorf("got %v", got)
		}
		cancel()
		synctest.Wait()
	})
}

// What can never be published stands in nobody's way, and what a pipeline said last may be of any length.
func TestOutboxThrowsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox()
		ctx, cancel := context.WithCancel(t.Context())
		var got []event.Event
		go o.run(ctx, func(_ context.Context, e event.Event) error {
			if e.Kind == "no kind" {
				return fmt.Errorf("publish: %w", bus.ErrNoEvent)
			}
			got = append(got, e)
			return nil
		}, slog.New(slog.DiscardHandler))
		o.put(event.Event{Kind: "no kind", Job: "a"})
		failed := (&job{name: "a"}).fail(time.Now(), "pipeline", strings.Repeat("\x1b12%\r", 50000))
		o.put(failed)
		o.drain(time.Hour)
		if len(got) != 1 || got[0].Kind != event.Failed || len(failed.Message) > maxMessage+3 {
			t.Errorf("got %d events; a message of %d bytes", len(got), len(failed.Message))
		}
		if m := brief("x" + strings.Repeat("ä", maxMessage)); !utf8.ValidString(m) || len(m) > maxMessage+3 {
			t.Errorf("%q", m)
		}
		cancel()
		synctest.Wait()
	})
}

func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox()
	for range outboxSize {
		o.put(event.Event{Kind: event.Progress})
	}
	if len(o.events) != outboxSize/2 {
		t.Errorf("%d events", len(o.events))
	}
	for range outboxSize {
		o.put(event.Event{Kind: event.Due})
	}
	if len(o.events) != outboxSize || o.lost != outboxSize {
		t.Errorf("%d events, %d lost", len(o.events), o.lost)
	}
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/pkg/event"
)

func handled(t *testing.T, b *Bus, c Consumer, n int, ids ...string) {
	t.Helper()
	ctx, done := context.WithCancel(t.Context())
	var got []string
	if err := b.Consume(ctx, c, func(_ context.Context, d Delivery) error {
		if got = append(got, d.ID); len(got) == n {
			done()
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	want(t, got, ids...)
}

func TestAConsumerGoesOnWhereItWas(t *testing.T) {
	dir, b := base(t)
	c := Consumer{Name: "callback", Kinds: []event.Kind{event.Committed}}
	publish(t, b, committed("vm1", "R1"), event.Event{Kind: event.Started, Job: "vm1"}, committed("vm2", "R2"), committed("vm1", "R3"))
	handled(t, b, c, 2, "R1", "R2")
	b.Close()
	b = openAt(t, filepath.Join(dir, ".backy", "nats"))
	publish(t, b, committed("vm1", "R4"))
	handled(t, b, c, 2, "R3", "R4")
	handled(t, b, Consumer{Name: "another"}, 5, "R1", b.idOf(t, event.Started, "vm1"), "R2", "R3", "R4")
}

func (b *Bus) idOf(t *testing.T, kind event.Kind, job string) string {
	t.Helper()
	e, ok, err := b.Last(t.Context(), kind, job)
	if !ok || err != nil {
		t.Fatal(err)
	}
	return e.ID
}

func TestWhatFailsComesAgain(t *testing.T) {
	var log words
	o := options(t.TempDir())
	o.Log = log.logger()
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	publish(t, b, committed("vm1", "R1"), committed("vm2", "R2"))
	ctx, done := context.WithCancel(t.Context())
	var got []string
	c := Consumer{Name: "callback", Tries: 3, Backoff: []time.Duration{time.Millisecond}}
	err = b.Consume(ctx, c, func(_ context.Context, d Delivery) error {
		if d.ID == "R2" { // it goes before R1 or after it, as time will have it
			return nil
		}
		got = append(got, fmt.Sprint(d.ID, " ", d.Try))
		if d.ID == "R3" {
			done()
			return nil
		}
		if d.Try == 3 {
			publish(t, b, committed("vm3", "R3"))
		}
		return errors.New("no such callback")
	})
	if err != nil {
		t.Error(err)
	}
	want(t, got, "R1 1", "R1 2", "R1 3", "R3 1")
	if said := log.String(); strings.Count(said, "tries again") != 2 || strings.Count(said, "gives up") != 1 || !strings.Contains(said, "no such callback") {
		t.Errorf("it says %s", said)
	}
}

func TestOthersGoBeforeWhatFailed(t *testing.T) {
	_, b := base(t)
	publish(t, b, committed("vm1", "R1"), committed("vm2", "R2"))
	ctx, done := context.WithCancel(t.Context())
	var got []string
	if err := b.Consume(ctx, Consumer{Name: "callback", Backoff: []time.Duration{time.Hour}}, func(_ context.Context, d Delivery) error {
		if got = append(got, d.ID); d.ID == "R1" {
			return errors.New("no such callback")
		}
		done()
		return nil
	}); err != nil {
		t.Error(err)
	}
	want(t, got, "R1", "R2")
}

// On a machine that is so busy that the handler gets no turn, an event comes twice, and rightly so: then nothing is proved.
func TestWorkingKeepsAnEvent(t *testing.T) {
	const wait = 300 * time.Millisecond
	for range 20 {
		_, b := base(t)
		publish(t, b, committed("vm1", "R1"))
		ctx, done := context.WithCancel(t.Context())
		var mu sync.Mutex
		var got []string
		var longest time.Duration // between two signs of life
		err := b.Consume(ctx, Consumer{Name: "callback", Wait: wait, Workers: 2}, func(_ context.Context, d Delivery) error {
			mu.Lock()
			got = append(got, fmt.Sprint(d.ID, " ", d.Try))
			mu.Unlock()
			last := time.Now()
			for range 15 {
				time.Sleep(wait / 6)
				d.Working()
				mu.Lock()
				longest = max(longest, time.Since(last))
				mu.Unlock()
				last = time.Now()
			}
			done()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if longest < wait/2 {
			want(t, got, "R1 1")
			return
		}
	}
	t.Skip("this machine is too busy")
}

func TestInterruptedHandler(t *testing.T) {
	_, b := base(t)
	publish(t, b, committed("vm1", "R1"))
	ctx, end := context.WithCancel(t.Context())
	if err := b.Consume(ctx, Consumer{Name: "callback", Wait: time.Hour, Tries: 1}, func(ctx context.Context, _ Delivery) error {
		end()
		return ctx.Err()
	}); err != nil {
		t.Error(err)
	}
	handled(t, b, Consumer{Name: "callback", Wait: time.Hour, Tries: 1}, 1, "R1")
}

func TestHandlersOneAtATime(t *testing.T) {
	_, b := base(t)
	for i := range 20 {
		publish(t, b, committed("vm1", fmt.Sprint("R", i)))
	}
	ctx, done := context.WithCancel(t.Context())
	running, most := make(chan int, 1), 0
	running <- 0
	n := 0
	if err := b.Consume(ctx, Consumer{Name: "callback"}, func(context.Context, Delivery) error {
		now := <-running + 1
		running <- now
		most = max(most, now)
		time.Sleep(time.Millisecond)
		running <- <-running - 1
		if n++; n == 20 {
			done()
		}
		return nil
	}); err != nil || most != 1 {
		t.Errorf("%d at a time: %v", most, err)
	}
}

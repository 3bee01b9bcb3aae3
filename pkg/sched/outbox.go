package sched

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"backy/pkg/bus"
	"backy/pkg/event"
)

// outbox holds events until they are published, so that nobody waits for the bus.
type outbox struct {
	mu     sync.Mutex
	events []event.Event
	lost   int
	more   chan struct{} // holds one
	empty  *sync.Cond
	busy   bool
}

// outboxSize bounds the outbox. Ten thousand jobs that are due at once fit; if the bus is away for longer, events are lost:
// of a revision that was made, the next start tells again.
const outboxSize = 50000

func newOutbox() *outbox {
	o := &outbox{more: make(chan struct{}, 1)}
	o.empty = sync.NewCond(&o.mu)
	return o
}

// maxMessage bounds a message, in bytes. A line of what a pipeline says can be of any length.
const maxMessage = 4 << 10

// brief is a message that is not too long.
func brief(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage], "") + "..."
}

// put adds an event. Where there is no room, it is lost; progress gives way early.
func (o *outbox) put(e event.Event) {
	e.Message = brief(e.Message)
	o.mu.Lock()
	if n := len(o.events); n >= outboxSize || n >= outboxSize/2 && e.Kind == event.Progress {
		o.lost++
	} else {
		o.events = append(o.events, e)
	}
	o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
}

func (o *outbox) take() (e event.Event, lost int, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lost, o.lost = o.lost, 0
	if o.busy = len(o.events) > 0; !o.busy {
		o.events = nil
		o.empty.Broadcast()
		return e, lost, false
	}
	e = o.events[0]
	o.events = o.events[1:]
	return e, lost, true
}

// run publishes until ctx ends. It tries again what fails; nothing overtakes it. What can never be published is thrown away:
// a pipeline may tell anything, and what follows a backup must not wait behind that.
func (o *outbox) run(ctx context.Context, publish func(context.Context, event.Event) error, log *slog.Logger) {
	for ctx.Err() == nil {
		e, lost, ok := o.take()
		if lost > 0 {
			log.WarnContext(ctx, "events are lost: the bus does not take them fast enough", "lost", lost)
		}
		if !ok {
			select {
			case <-ctx.Done():
			case <-o.more:
			}
			continue
		}
		for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
			err := publish(ctx, e)
			if err == nil || ctx.Err() != nil {
				break
			}
			if errors.Is(err, bus.ErrNoEvent) {
				log.WarnContext(ctx, "an event is thrown away", "job", e.Job, "error", err)
				break
			}
			if pause == time.Second {
				log.WarnContext(ctx, "an event cannot be published; trying again", "kind", e.Kind, "job", e.Job, "error", err)
			}
			if !wait(ctx, pause) {
				break
			}
		}
	}
}

// drain waits until all is published, but no longer than that.
func (o *outbox) drain(patience time.Duration) {
	late := false
	timer := time.AfterFunc(patience, func() {
		o.mu.Lock()
		late = true
		o.mu.Unlock()
		o.empty.Broadcast()
	})
	defer timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !late && (len(o.events) > 0 || o.busy) {
		o.empty.Wait()
	}
}

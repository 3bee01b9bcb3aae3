package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"backy/pkg/event"
)

// Consumer is who does something about events. The server remembers by Name what it has done, also while it does not run:
// it goes on where it was, and skips nothing that is still kept.
type Consumer struct {
	Name    string          // letters, digits, - and _
	Kinds   []event.Kind    // that it wants; nil is all
	Wait    time.Duration   // an event that is neither handled nor said to be worked on for so long is given out again; 0 is a minute
	Tries   int             // how often an event is handled that cannot be; 0 is without end
	Backoff []time.Duration // the pause after the first, second … failure; the last one for all that follow; nil is a minute
	Workers int             // how many handlers at a time; 0 is 1
}

// Delivery is an event that is to be handled.
type Delivery struct {
	Event   event.Event
	ID      string // of the event; the same each time it is delivered
	Try     int    // 1 the first time
	Working func() // says that it is being worked on; to be called more often than each Wait
}

const (
	defaultWait = time.Minute
	pull        = 30 * time.Second // how long one request to the server waits for a message
)

// Consume calls handle for each event that c wants: first for those that are kept and that c has not handled, in order,
// then for those to come. It blocks, and returns nil when ctx ends; an error means that the server does not answer any more,
// or that the bus was closed: try again later.
//
// An event is done when handle returns nil. When it returns an error, others go first, and it comes again after the pause
// that Backoff says, up to Tries times; then it is given up, which is logged. An event whose handler died with its process
// comes again after Wait. So an event may come more than once, and one that failed, late.
func (b *Bus) Consume(ctx context.Context, c Consumer, handle func(context.Context, Delivery) error) error {
	if !word.MatchString(c.Name) {
		return fmt.Errorf("%q is no name of a consumer", c.Name)
	}
	what := "the consumer " + c.Name
	from, err := subjects(c.Kinds, "")
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	both, cancel := b.until(ctx)
	defer cancel()
	if c.Wait <= 0 {
		c.Wait = defaultWait
	}
	source, err := b.consumer(both, EventStream, jetstream.ConsumerConfig{
		Durable: c.Name, FilterSubjects: from, AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.Wait,
		MaxDeliver: -1, MaxAckPending: 10000, DeliverPolicy: jetstream.DeliverAllPolicy,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return b.explain(what, err)
	}
	var workers sync.WaitGroup
	errs := make([]error, max(1, c.Workers))
	for i := range errs {
		workers.Go(func() {
			defer cancel() // the others end with the first
			for errs[i] == nil {
				var m jetstream.Msg
				if m, errs[i] = next(both, source); errs[i] == nil {
					b.handle(both, c, m, handle)
				}
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return nil
	}
	for _, err := range errs {
		if !errors.Is(err, context.Canceled) {
			return b.explain(what, err)
		}
	}
	return b.explain(what, errs[0])
}

// next waits for a message. It fails when ctx ends, or the server does not answer.
func next(ctx context.Context, c jetstream.Consumer) (jetstream.Msg, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		wait, cancel := context.WithTimeout(ctx, pull)
		m, err := c.Next(jetstream.FetchContext(wait))
		invalid := errors.Is(err, jetstream.ErrInvalidOption) // no time is left
		if invalid {
			<-wait.Done()
		}
		cancel()
		switch {
		case err == nil:
			return m, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case invalid, errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, jetstream.ErrNoMessages):
		default:
			return nil, err
		}
	}
}

// handle handles a message, and says to the server what became of it. If that gets lost, the message comes again.
func (b *Bus) handle(ctx context.Context, c Consumer, m jetstream.Msg, handle func(context.Context, Delivery) error) {
	e, err := parse(m.Data())
	meta, merr := m.Metadata()
	if err = errors.Join(err, merr); err != nil {
		b.log.Warn("left alone by "+c.Name, "subject", m.Subject(), "reason", err)
		_ = m.TermWithReason(err.Error())
		return
	}
	d := Delivery{Event: e, ID: e.Identity(), Try: int(meta.NumDelivered), Working: func() { _ = m.InProgress() }}
	err = handle(ctx, d)
	switch {
	case err == nil:
		_ = m.DoubleAck(ctx)
	case ctx.Err() != nil: // it was interrupted, which is not its fault
		_ = m.Nak()
	case c.Tries > 0 && d.Try >= c.Tries:
		b.log.Error(c.Name+" gives up", "event", d.ID, "kind", e.Kind, "job", e.Job, "tries", d.Try, "reason", err)
		_ = m.TermWithReason(err.Error())
	default:
		pause := time.Minute
		if n := len(c.Backoff); n > 0 {
			pause = c.Backoff[min(d.Try, n)-1]
		}
		b.log.Warn(c.Name+" failed, and tries again in "+pause.String(), "event", d.ID, "kind", e.Kind, "job", e.Job, "reason", err)
		_ = m.NakWithDelay(pause)
	}
}

// Package bus carries events and work over NATS: the events that a scheduler publishes, and the queue of jobs that are
// due. The server is embedded (JetStream, state below the base directory, a listener on the loopback address), or an
// existing one. doc/events.md has subjects and streams.
//
// Delivery is at least once: who handles an event or a piece of work may see it again, and must do nothing wrong then.
// Nothing here is the truth. What is lost with the state of the server (events, and what was queued) follows again from
// the repository; see package sched.
package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options say where the bus is. With URL it is an existing server with JetStream, otherwise one that Open starts.
type Options struct {
	URL   string // nats://HOST:PORT or tls://HOST:PORT, several separated by commas; "" embeds a server
	Token string // of the server at URL, or ""

	Dir  string // state of the embedded server: BASE/.backy/nats. One process at a time
	Port int    // of its listener on 127.0.0.1; 0 is any that is free. DIR/url tells which

	MaxAge   time.Duration // events older than this go; 0 is 30 days
	MaxBytes int64         // the oldest events go where they take more than this; 0 is 1 GiB

	Log *slog.Logger     // nil is none
	Now func() time.Time // for events without a time
}

const (
	defaultAge   = 30 * 24 * time.Hour
	defaultBytes = 1 << 30
)

// ErrClosed is what the methods of a Bus fail with after Close.
var ErrClosed = errors.New("the bus is closed")

// ErrFull is what they fail with once the disk with the embedded server's state was full: the server stops then. What it
// had acknowledged is kept. Make room, close the bus and open it again.
var ErrFull = errors.New("the disk is full, and NATS stopped")

// ErrWrite is the same for any other reason, such as a quota or a file system that has become read-only. What the server could
// not write once it never writes again.
var ErrWrite = errors.New("NATS cannot write to its disk, and stopped")

// Bus is a connection to a NATS server, and maybe the server itself. Its methods are safe for concurrent use.
type Bus struct {
	log    *slog.Logger
	now    func() time.Time
	conn   *nats.Conn
	js     jetstream.JetStream
	server *embedded // nil if it is someone else's
	ctx    context.Context
	cancel context.CancelCauseFunc
	once   sync.Once

	workWait time.Duration // WorkWait, but in tests

	push    sync.Mutex                    // looks whether a job is queued, then queues it
	mu      sync.Mutex                    // of workers
	workers map[string]jetstream.Consumer // by subject
}

// Open starts the embedded server, or connects to the one at o.URL, and makes sure that the streams are there.
//
// What can be wrong is said in one line: the port is taken, the state directory is in use (*InUseError), not writable or
// damaged, the token is not right. Where the state is damaged or lost it can be moved away; Open then begins anew.
func Open(ctx context.Context, o Options) (*Bus, error) {
	o.MaxAge, o.MaxBytes = cmp.Or(o.MaxAge, defaultAge), cmp.Or(o.MaxBytes, defaultBytes)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var server *embedded
	options, url := []nats.Option{nats.Token(o.Token)}, o.URL
	if url == "" {
		var err error
		if server, err = start(o); err != nil {
			return nil, fmt.Errorf("start the NATS server: %w", err)
		}
		options, url = []nats.Option{nats.Token(server.token), nats.InProcessServer(server)}, server.URL()
	}
	b, err := connect(url, o.Log, options...)
	if err != nil {
		server.stop()
		return nil, err
	}
	b.server, b.now = server, o.Now
	if err := b.makeStreams(ctx, o); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Connect connects to a server whose streams an Open elsewhere made, to read events or to do work. See Local for where
// the scheduler of a base directory is.
func Connect(_ context.Context, url, token string, log *slog.Logger) (*Bus, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return connect(url, log, nats.Token(token))
}

func connect(url string, log *slog.Logger, options ...nats.Option) (*Bus, error) {
	b := &Bus{log: log, workWait: WorkWait, workers: map[string]jetstream.Consumer{}}
	options = append(options, nats.Name("backy"), nats.MaxReconnects(-1), nats.ReconnectWait(time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && b.ctx.Err() == nil {
				log.Warn("the connection to NATS is lost; trying again", "url", url, "reason", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected to NATS again", "url", url) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS", "error", err) }))
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	var err error
	if b.conn, err = nats.Connect(url, options...); err != nil {
		b.cancel(err)
		return nil, connectError(url, err)
	}
	if b.js, err = jetstream.New(b.conn); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func connectError(url string, err error) error {
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("the NATS server at %s refuses the token: is it that of this server?", url)
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("no NATS server answers at %s: does the scheduler run?", url)
	}
	return fmt.Errorf("connect to NATS at %s: %w", url, err)
}

// URL is where the server listens, for other clients. Theirs is the token in the file TokenFile of the state directory.
func (b *Bus) URL() string {
	if b.server != nil {
		return b.server.URL()
	}
	return b.conn.ConnectedUrlRedacted()
}

// Close ends all that goes on over the bus, and the server if it is ours, and returns when it has ended. What was
// published and acknowledged is kept. Calls under way fail with ErrClosed. It may be called twice.
func (b *Bus) Close() {
	b.once.Do(func() {
		b.cancel(ErrClosed)
		if b.conn != nil {
			if b.conn.IsConnected() {
				_ = b.conn.FlushTimeout(2 * time.Second) // acknowledgements; without them it is delivered again
			}
			b.conn.Close()
		}
		b.server.stop()
	})
}

// Check asks whether the server keeps what it is given. Where it does not, as when the disk was full (ErrFull, ErrWrite), or the
// state directory was removed, the bus is to be closed and opened again.
func (b *Bus) Check(ctx context.Context) error {
	ctx, cancel := b.until(ctx)
	defer cancel()
	for _, name := range []string{EventStream, DueStream} {
		if _, err := b.js.Stream(ctx, name); err != nil {
			return b.explain("the stream "+name, err)
		}
	}
	return b.server.check()
}

// consumer makes a durable consumer, or finds it. Where our server cannot read what it remembers of one, it is made anew:
// it begins with the oldest event that is kept, which does no harm to who expects an event more than once.
func (b *Bus) consumer(ctx context.Context, stream string, c jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	found, err := b.js.CreateOrUpdateConsumer(ctx, stream, c)
	if b.server == nil || err == nil || !strings.Contains(err.Error(), "error creating store for consumer") {
		return found, err
	}
	b.log.Warn("what "+stream+" remembers of the consumer "+c.Durable+" is damaged; it begins anew", "reason", err)
	if err := os.RemoveAll(b.server.consumerDir(stream, c.Durable)); err != nil {
		return nil, err
	}
	return b.js.CreateOrUpdateConsumer(ctx, stream, c)
}

// until is a context that ends with ctx, with the bus, and when its server stops.
func (b *Bus) until(ctx context.Context) (context.Context, context.CancelFunc) {
	both, cancel := context.WithCancelCause(ctx)
	closed := context.AfterFunc(b.ctx, func() { cancel(ErrClosed) })
	if b.server == nil {
		return both, func() { closed(); cancel(nil) }
	}
	stopped := context.AfterFunc(b.server.log.up, func() { cancel(context.Cause(b.server.log.up)) })
	return both, func() { closed(); stopped(); cancel(nil) }
}

// explain says what a failed request was about, and what can be done.
func (b *Bus) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case b.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ErrClosed)
	case b.server != nil && b.server.log.up.Err() != nil:
		return fmt.Errorf("%s: %w: %s", what, context.Cause(b.server.log.up), b.server.dir)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("%s: the NATS server does not have it; was a scheduler started with it?: %w", what, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return fmt.Errorf("%s: the NATS server keeps no streams (JetStream is off): %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"backy/pkg/event"
)

// Streams and the heads of their subjects.
const (
	EventStream = "BACKY_EVENTS"
	eventHead   = "backy.event" // .<kind>.<job>
	DueStream   = "BACKY_DUE"
	dueHead     = "backy.due" // .<pool>.<lane>.<job>

	repository = "_" // in a subject in place of a job; no job is called so

	// window is how long the server knows the ids of messages, so that an event that is published twice is kept once.
	window = 2 * time.Hour

	maxName     = 255      // bytes of a job's name: it is part of a file's name, too
	maxEvent    = 64 << 10 // bytes, as of a line
	maxDueBytes = 64 << 20
)

// makeStreams makes the streams, or gives those that are there the limits that are wanted now.
func (b *Bus) makeStreams(ctx context.Context, o Options) error {
	for _, c := range []jetstream.StreamConfig{{
		Name: EventStream, Subjects: []string{eventHead + ".>"}, Description: "what happens to backups",
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, Storage: jetstream.FileStorage,
		MaxAge: o.MaxAge, MaxBytes: o.MaxBytes, MaxMsgSize: maxEvent, Duplicates: min(window, o.MaxAge),
		AllowRollup: true, AllowDirect: true,
	}, {
		Name: DueStream, Subjects: []string{dueHead + ".>"}, Description: "jobs that are due: one message each until it is done",
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1,
		Storage: jetstream.FileStorage, MaxBytes: maxDueBytes, MaxMsgSize: maxEvent, AllowDirect: true,
	}} {
		if _, err := b.js.CreateOrUpdateStream(ctx, c); err != nil {
			return b.explain("make the stream "+c.Name, err)
		}
	}
	return nil
}

// token is what a kind, a pool or a lane may look like in a subject: no dot, no wildcard, no space.
var word = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// subject is that of an event.
func subject(kind event.Kind, job string) (string, error) {
	if !word.MatchString(string(kind)) {
		return "", fmt.Errorf("%q is no kind of event", kind)
	}
	tail, err := tail(job)
	return eventHead + "." + string(kind) + "." + tail, err
}

// name is a job's name; dots make tokens of a subject, and an empty token is none.
var name = regexp.MustCompile(`^[A-Za-z0-9_/-]+(\.[A-Za-z0-9_/-]+)*$`)

// tail is a job's name as the end of a subject.
func tail(job string) (string, error) {
	if job == "" {
		return repository, nil
	}
	if len(job) > maxName || !name.MatchString(job) || job == repository {
		return "", fmt.Errorf("%q is no job's name", job)
	}
	return job, nil
}

// ErrNoEvent is wrapped where Publish is given what no server would take, now or later: no kind or job that a subject can have,
// a time that JSON cannot write, or too much text.
var ErrNoEvent = errors.New("that is no event")

// Publish tells an event to whoever listens, and keeps it: when it returns nil, the server has it. The same event twice,
// by its Identity, is kept once, within two hours. Of progress only the newest of each job is kept, and nobody waits for
// that.
func (b *Bus) Publish(ctx context.Context, e event.Event) error {
	if e.Time.IsZero() && b.now != nil {
		e.Time = b.now()
	}
	e.Time = e.Time.UTC()
	e.ID = e.Identity()
	to, err := subject(e.Kind, e.Job)
	if err != nil {
		return fmt.Errorf("publish: %w: %w", ErrNoEvent, err)
	}
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("publish %s: %w: %w", to, ErrNoEvent, err)
	}
	if n := len(text) + len(e.ID); n > maxEvent-1000 || int64(n) > b.conn.MaxPayload()-1000 { // the id is in the header, too
		return fmt.Errorf("publish %s: %w: %d bytes are too many", to, ErrNoEvent, n)
	}
	m := &nats.Msg{Subject: to, Data: text, Header: nats.Header{}}
	ctx, cancel := b.until(ctx)
	defer cancel()
	if err := context.Cause(ctx); err != nil {
		return b.explain("publish "+to, err)
	}
	if e.Kind == event.Progress {
		m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
		return b.explain("publish "+to, b.conn.PublishMsg(m))
	}
	_, err = b.js.PublishMsg(ctx, m, jetstream.WithMsgID(e.ID), jetstream.WithExpectStream(EventStream))
	return b.explain("publish "+to, err)
}

// Last returns the newest event of a kind about a job, or of the repository where job is ""; ok is false where none is
// kept.
func (b *Bus) Last(ctx context.Context, kind event.Kind, job string) (e event.Event, ok bool, err error) {
	what := "the last event " + string(kind)
	from, err := subject(kind, job)
	if err != nil {
		return e, false, fmt.Errorf("%s: %w", what, err)
	}
	s, err := b.js.Stream(ctx, EventStream)
	if err != nil {
		return e, false, b.explain(what, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, from)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return e, false, nil
	}
	if err != nil {
		return e, false, b.explain(what, err)
	}
	e, err = parse(m.Data)
	return e, err == nil, err
}

// parse reads an event that someone published, maybe not we.
func parse(text []byte) (e event.Event, err error) {
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("a message in %s is no event: %w", EventStream, err)
	}
	if e.Kind == "" {
		return e, fmt.Errorf("a message in %s is no event: it has no kind", EventStream)
	}
	return e, nil
}

// EventFilter says which events are wanted.
type EventFilter struct {
	Since  time.Time    // published since then; zero is all that are kept
	Follow bool         // go on with those to come
	Kinds  []event.Kind // nil is all
	Job    string       // "" is all, and those of the repository
	Newest bool         // of each kind only the newest about each job; Since and the order mean nothing then
}

// subjects are what a filter, or a consumer, is given.
func subjects(kinds []event.Kind, job string) ([]string, error) {
	list := []string{}
	end := ">"
	if job != "" {
		var err error
		if end, err = tail(job); err != nil {
			return nil, err
		}
	}
	if len(kinds) == 0 {
		return append(list, eventHead+".*."+end), nil
	}
	for _, k := range kinds {
		if !word.MatchString(string(k)) {
			return nil, fmt.Errorf("%q is no kind of event", k)
		}
		if s := eventHead + "." + string(k) + "." + end; !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list, nil
}

// Events returns the events that are kept, in the order in which they were published, and with Follow those to come, until
// ctx ends or the caller stops. A message that is no event comes as an error and does not end it; any other error is the
// last that comes. That ctx ended is no error.
func (b *Bus) Events(ctx context.Context, f EventFilter) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		if err := b.read(ctx, f, yield); err != nil && ctx.Err() == nil {
			yield(event.Event{}, b.explain("read events", err))
		}
	}
}

func (b *Bus) read(ctx context.Context, f EventFilter, yield func(event.Event, error) bool) error {
	ctx, cancel := b.until(ctx)
	defer cancel()
	from, err := subjects(f.Kinds, f.Job)
	if err != nil {
		return err
	}
	c := jetstream.OrderedConsumerConfig{FilterSubjects: from, InactiveThreshold: time.Minute}
	if f.Newest {
		c.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	} else if !f.Since.IsZero() {
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.Since
	}
	consumer, err := b.js.OrderedConsumer(ctx, EventStream, c)
	if err != nil {
		return err
	}
	if consumer.CachedInfo().NumPending == 0 && !f.Follow {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(500))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		if !yield(parse(m.Data())) {
			return nil
		}
		if f.Follow {
			continue
		}
		if meta, err := m.Metadata(); err != nil || meta.NumPending == 0 {
			return err
		}
	}
}

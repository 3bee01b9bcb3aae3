package bus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backy/pkg/event"
)

func TestEventsAreKeptInOrder(t *testing.T) {
	_, b := base(t)
	publish(t, b,
		event.Event{Kind: event.Due, Job: "vm1"},
		committed("vm1", "R1"),
		committed("group/vm.2", "R2"),
		event.Event{Kind: event.Purged, Freed: 5},
		event.Event{Kind: event.Failed, Job: "vm1"},
	)
	want(t, all(t, b, EventFilter{}), "due vm1", "committed vm1 R1", "committed group/vm.2 R2", "purged", "failed vm1")
	want(t, all(t, b, EventFilter{Kinds: []event.Kind{event.Committed, event.Purged, event.Committed}}), "committed vm1 R1", "committed group/vm.2 R2", "purged")
	want(t, all(t, b, EventFilter{Job: "vm1"}), "due vm1", "committed vm1 R1", "failed vm1")
	want(t, all(t, b, EventFilter{Job: "group/vm.2", Kinds: []event.Kind{event.Committed}}), "committed group/vm.2 R2")
	want(t, all(t, b, EventFilter{Job: "vm"}))
	want(t, all(t, b, EventFilter{Since: time.Now().Add(time.Hour)}))
	if n := len(all(t, b, EventFilter{Since: time.Now().Add(-time.Hour)})); n != 5 {
		t.Errorf("of the last hour: %d", n)
	}
}

func TestAnEventComesBackAsItWas(t *testing.T) {
	_, b := base(t)
	e := event.Event{Kind: event.Expired, Job: "group/vm1", Revision: "R1", Time: moment, Tags: []string{"weekly"}, Lost: []string{"daily"}, Message: "a\nb"}
	publish(t, b, e)
	got, ok, err := b.Last(t.Context(), event.Expired, "group/vm1")
	e.ID = e.Identity()
	if !ok || err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", e) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, e)
	}
	for _, other := range []string{"group/vm2", "group", ""} {
		if got, ok, err := b.Last(t.Context(), event.Expired, other); ok || err != nil {
			t.Errorf("of %q there is %+v, %v", other, got, err)
		}
	}
	publish(t, b, event.Event{Kind: event.Expired, Job: "group/vm1", Revision: "R2"})
	if got, _, err := b.Last(t.Context(), event.Expired, "group/vm1"); got.Revision != "R2" || !got.Time.Equal(moment) {
		t.Errorf("the last one is %+v, %v", got, err)
	}
	publish(t, b, event.Event{Kind: event.Purged, Freed: 1})
	if got, ok, err := b.Last(t.Context(), event.Purged, ""); !ok || got.Freed != 1 {
		t.Errorf("of the repository: %+v, %v", got, err)
	}
}

func TestTheSameEventIsKeptOnce(t *testing.T) {
	dir, b := base(t)
	failed := event.Event{Kind: event.Failed, Job: "vm1", Time: moment, Message: "why"}
	publish(t, b, committed("vm1", "R1"), committed("vm1", "R1"), failed, failed)
	want(t, all(t, b, EventFilter{}), "committed vm1 R1", "failed vm1")
	b.Close()
	b = openAt(t, filepath.Join(dir, ".backy", "nats")) // also across a restart
	late := committed("vm1", "R1")
	late.Time, late.Message = moment.Add(time.Minute), "told again"
	publish(t, b, late, failed, committed("vm1", "R2"))
	want(t, all(t, b, EventFilter{}), "committed vm1 R1", "failed vm1", "committed vm1 R2")
}

// However much a stage says, what is kept of its progress is one message.
func TestOfProgressTheNewestIsKept(t *testing.T) {
	_, b := base(t)
	publish(t, b, committed("vm1", "R1"))
	for i := range 200 {
		publish(t, b, event.Event{Kind: event.Progress, Job: "vm1", Done: int64(i)}, event.Event{Kind: event.Progress, Job: "vm2", Done: int64(i)})
	}
	publish(t, b, committed("vm1", "R2"))
	want(t, all(t, b, EventFilter{}), "committed vm1 R1", "progress vm1", "progress vm2", "committed vm1 R2")
	if e, _, err := b.Last(t.Context(), event.Progress, "vm1"); e.Done != 199 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestNewestOfEachJob(t *testing.T) {
	_, b := base(t)
	publish(t, b, committed("vm1", "R1"), committed("vm2", "R2"), event.Event{Kind: event.Failed, Job: "vm1"}, committed("vm1", "R3"), committed("vm1.x", "R4"))
	want(t, all(t, b, EventFilter{Kinds: []event.Kind{event.Committed}, Newest: true}), "committed vm2 R2", "committed vm1 R3", "committed vm1.x R4")
	want(t, all(t, b, EventFilter{Job: "vm1", Newest: true}), "failed vm1", "committed vm1 R3")
	want(t, all(t, b, EventFilter{Job: "nobody", Newest: true}))
}

func TestWhatIsNoEventIsRefused(t *testing.T) {
	_, b := base(t)
	for _, e := range []event.Event{
		{},
		{Kind: "a.b"}, {Kind: "*"}, {Kind: ">"}, {Kind: "committed "},
		{Kind: "started", Job: "*"}, {Kind: "started", Job: "vm.>"}, {Kind: "started", Job: "a b"}, {Kind: "started", Job: "vm\r\nPUB x"},
		{Kind: "started", Job: "_"}, {Kind: "started", Job: ".vm"}, {Kind: "started", Job: "vm."}, {Kind: "started", Job: "a..b"}, {Kind: "started", Job: strings.Repeat("x", 5000)},
		{Kind: "started", Message: strings.Repeat("x", 70000)}, {Kind: "started", ID: strings.Repeat("x", 40000)},
		{Kind: "started", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if err := b.Publish(t.Context(), e); !errors.Is(err, ErrNoEvent) {
			t.Errorf("%.100s: %v", fmt.Sprintf("%+v", e), err)
		}
	}
	for _, f := range []EventFilter{{Job: "*"}, {Kinds: []event.Kind{">"}}} {
		for e, err := range b.Events(t.Context(), f) {
			if err == nil {
				t.Errorf("%+v gives %+v", f, e)
			}
		}
	}
	want(t, all(t, b, EventFilter{}))
}

// Whatever a job is called: its subject is refused, or is one, without wildcards, that a filter by the kind finds.
func FuzzSubject(f *testing.F) {
	for _, job := range []string{"", "_", "vm1", "group/vm.1", "a.b.c", "*", "a.>", "a b", "\x00", "ä", "..", strings.Repeat("x", 300)} {
		f.Add("committed", job)
	}
	f.Fuzz(func(t *testing.T, kind, job string) {
		s, err := subject(event.Kind(kind), job)
		if err != nil {
			return
		}
		tokens := strings.Split(s, ".")
		if len(s) > 4000 || len(tokens) < 4 || strings.Join(tokens[:2], ".") != eventHead || tokens[2] != kind {
			t.Errorf("%q", s)
		}
		for _, token := range tokens {
			if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
				t.Errorf("%q", s)
			}
		}
		if end := strings.Join(tokens[3:], "."); end != job && (job != "" || end != repository) {
			t.Errorf("%q ends in %q", job, end)
		}
	})
}

func TestFollow(t *testing.T) {
	_, b := base(t)
	publish(t, b, committed("vm1", "R1"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for e, err := range b.Events(ctx, EventFilter{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.Revision); len(got) < 3 {
			publish(t, b, committed("vm1", fmt.Sprint("R", len(got)+1)))
		} else {
			cancel()
		}
	}
	want(t, got, "R1", "R2", "R3")
	for e, err := range b.Events(t.Context(), EventFilter{Follow: true, Since: time.Now().Add(-time.Hour)}) {
		if err != nil || e.Revision != "R1" {
			t.Errorf("%+v, %v", e, err)
		}
		break // the caller has enough
	}
}

// Someone else publishes something under our subjects. It is told of, and nobody stumbles over it.
func TestForeignMessages(t *testing.T) {
	_, b := base(t)
	for _, text := range []string{"hello", `{"time":"2026-01-02T03:04:05Z"}`} {
		if err := b.conn.Publish("backy.event.committed.vm1", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, b, committed("vm1", "R1"))
	var wrong, right int
	for e, err := range b.Events(t.Context(), EventFilter{}) {
		if err != nil && strings.Contains(err.Error(), "no event") {
			wrong++
		} else if err == nil && e.Revision == "R1" {
			right++
		}
	}
	if wrong != 2 || right != 1 {
		t.Errorf("%d are no events, %d are", wrong, right)
	}
	handled(t, b, Consumer{Name: "c"}, 1, "R1")
}

// handled consumes until n events were handled, and wants their ids.
// A handler that fails is tried again, after others, and given up in the end.
// A handler that is slow says so, and nobody else gets its event.
// What was handled while the daemon ends is not asked for again; what was interrupted is, at once.
// An independent client: the protocol of NATS as text over TCP.
func TestAnyClientCanFollow(t *testing.T) {
	dir, b := base(t)
	url, token, err := Local(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lines := bufio.NewReader(c)
	line := func() string {
		t.Helper()
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(text, "\r\n")
	}
	if info := line(); !strings.HasPrefix(info, "INFO {") || !strings.Contains(info, `"auth_required":true`) {
		t.Errorf("it begins with %s", info)
	}
	fmt.Fprintf(c, "CONNECT {\"auth_token\":%q,\"verbose\":false}\r\nSUB backy.event.> 1\r\nPING\r\n", token)
	if pong := line(); pong != "PONG" {
		t.Errorf("it says %s", pong)
	}
	publish(t, b, committed("group/vm1", "R1"))
	head, body := line(), ""
	if strings.HasPrefix(head, "MSG backy.event.committed.group/vm1 1 ") {
		body = line()
	}
	r := event.NewReader(strings.NewReader(body))
	if e, err := r.Next(); err != nil || e.Revision != "R1" || e.ID != "R1" {
		t.Errorf("%s\n%s\n%v", head, body, err)
	}
}

// The directory is removed below the server, or damaged while none runs.
// Whatever of the state is damaged: the server says so and starts, the daemon tells again what is missing, and a consumer
// skips nothing of that.
// find are the files below dir whose name matches.

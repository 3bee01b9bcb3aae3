package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// clock is a time that moves only when told.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

var start = time.Date(2026, 1, 2, 4, 4, 5, 678901000, time.FixedZone("CET", 3600))

func TestALineIsOneEvent(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Event{Job: "vm1", Stage: "read", Host: "h1", Task: "AB12"}, (&clock{start}).now)
	w.Emit(Event{Kind: Started, Total: 8})
	w.About("", "NkjcG4wtGr5uRyCsQeWXQd")
	w.Emit(Event{Kind: Warning, Message: "the source grew", Stage: "other"})
	want := `{"time":"2026-01-02T03:04:05.678901Z","kind":"started","id":"Z6HBAIYQKVHH245EUAK5FM2D","job":"vm1","stage":"read","host":"h1","task":"AB12","total":8}
{"time":"2026-01-02T03:04:05.678901Z","kind":"warning","id":"HACCZYMQM7VRFNWHJ5GB4YN4","job":"vm1","revision":"NkjcG4wtGr5uRyCsQeWXQd","stage":"other","host":"h1","task":"AB12","message":"the source grew"}
`
	if out.String() != want {
		t.Errorf("got\n%s want\n%s", out.String(), want)
	}
}

func TestReaderGivesBackWhatWriterWrote(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, Event{}, (&clock{start}).now)
	sent := []Event{
		{Kind: Started, Job: "a/b"},
		{Kind: Progress, Done: 1, Total: 2, Read: 3, Changed: 4, Stored: 5},
		{Kind: Failed, Message: "two\nlines, one \"event\""},
	}
	for _, e := range sent {
		w.Emit(e)
	}
	r := NewReader(&out)
	for _, want := range sent {
		got, err := r.Next()
		want.Time = start.UTC()
		want.ID = want.Identity()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestProgressGoesOutFiveTimesASecond(t *testing.T) {
	c := &clock{start}
	var got []int64
	w := NewFunc(func(e Event) error { got = append(got, e.Done); return nil }, Event{}, c.now)
	for done := range int64(1000) {
		w.Emit(Event{Kind: Progress, Done: done})
		c.t = c.t.Add(time.Millisecond)
	}
	if len(got) != 5 {
		t.Errorf("%d events in a second: %v", len(got), got)
	}
	w.Emit(Event{Kind: Committed, Done: -1})
	if n := len(got); got[n-2] != 999 || got[n-1] != -1 {
		t.Errorf("the last figures come before what ends the work: %v", got)
	}
	w.Emit(Event{Kind: Progress, Done: 2000})
	w.Flush()
	w.Flush()
	if n := len(got); n != 8 || got[n-1] != 2000 {
		t.Errorf("flush writes what was kept back, once: %v", got)
	}
	c.t = c.t.Add(-time.Hour)
	w.Emit(Event{Kind: Progress, Done: 3000})
	if n := len(got); got[n-1] != 3000 {
		t.Errorf("a clock set back silences nothing: %v", got)
	}
}

func TestProgressOfOneStageDoesNotHideAnothers(t *testing.T) {
	var got []string
	w := NewFunc(func(e Event) error { got = append(got, e.Stage); return nil }, Event{}, (&clock{start}).now)
	for range 3 {
		w.Emit(Event{Kind: Progress, Stage: "read"})
		w.Emit(Event{Kind: Progress, Stage: "store"})
	}
	w.Flush()
	if s := strings.Join(got, " "); s != "read store read store" {
		t.Errorf("got %s", s)
	}
}

// An event has one id, whoever passes it on; what says something else has another.
func TestIdentity(t *testing.T) {
	e := Event{Time: start, Kind: Expired, Job: "vm1", Revision: "R1", Lost: []string{"daily"}}
	id := e.Identity()
	same, other := e, []Event{e, e, e, e}
	same.Time = start.UTC()
	other[0].Time = start.Add(time.Nanosecond)
	other[1].Revision = "R2"
	other[2].Lost = []string{"weekly"}
	other[3].Kind = Warning
	if same.Identity() != id || len(id) != 24 {
		t.Errorf("%s, and in another zone %s", id, same.Identity())
	}
	for _, o := range other {
		if o.Identity() == id {
			t.Errorf("%+v has the id of %+v", o, e)
		}
	}
	if got := (Event{Kind: Committed, Revision: "R1", Time: start}).Identity(); got != "R1" {
		t.Errorf("committed has %s", got)
	}
	if got := (Event{Kind: Progress, Time: start, Done: 1}).Identity(); got != "" {
		t.Errorf("progress has %s", got)
	}
	if e.ID = "given"; e.Identity() != "given" {
		t.Errorf("that it has is not kept: %s", e.Identity())
	}
}

func TestKindsAreAll(t *testing.T) {
	seen := map[Kind]bool{}
	for _, k := range Kinds() {
		if k == "" || seen[k] {
			t.Errorf("%q is there twice", k)
		}
		seen[k] = true
	}
	if len(seen) != 13 {
		t.Errorf("there are %d", len(seen))
	}
}

// What is about the repository is about no job, wherever it was started.
func TestAPurgeHasNoJob(t *testing.T) {
	var got Event
	w := NewFunc(func(e Event) error { got = e; return nil }, Event{Job: "vm1", Stage: "store"}, (&clock{start}).now)
	if w.Emit(Event{Kind: Purged, Freed: 1}); got.Job != "" || got.Stage != "store" {
		t.Errorf("%+v", got)
	}
}

type broken struct{ writes int }

func (b *broken) Write([]byte) (int, error) { b.writes++; return 0, io.ErrClosedPipe }

func TestNobodyListens(t *testing.T) {
	var none *Writer
	none.Emit(Event{Kind: Started})
	none.About("job", "id")
	none.Flush()
	if none.Err() != nil {
		t.Error("a nil writer has no error")
	}

	b := new(broken)
	w := NewWriter(b, Event{}, (&clock{start}).now)
	w.Emit(Event{Kind: Started})
	w.Emit(Event{Kind: Failed})
	if b.writes != 1 || !errors.Is(w.Err(), io.ErrClosedPipe) {
		t.Errorf("%d writes, %v; want to stop at the first error", b.writes, w.Err())
	}
}

func TestReaderAndForeignLines(t *testing.T) {
	r := NewReader(strings.NewReader(`{"kind":"started","colour":"of a newer version"}

bash: warning: something
{"time":"2026-01-02T03:04:05Z"}
{"kind":"from-the-future"}`))
	steps := []struct {
		kind Kind
		line int // of a LineError
	}{{"started", 0}, {"", 3}, {"", 4}, {"from-the-future", 0}}
	for _, s := range steps {
		e, err := r.Next()
		var bad *LineError
		if s.line > 0 && (!errors.As(err, &bad) || bad.Line != s.line) {
			t.Errorf("want an error in line %d, got %v", s.line, err)
		}
		if s.line == 0 && (err != nil || e.Kind != s.kind) {
			t.Errorf("want %s, got %+v, %v", s.kind, e, err)
		}
	}

	r = NewReader(strings.NewReader(strings.Repeat("x", maxLine+1)))
	if _, err := r.Next(); err == nil || err == io.EOF {
		t.Errorf("a line without end: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","kind":"progress","job":"vm1","done":1}` + "\n"))
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","kind":"expired","id":"X","tags":["a"],"lost":["b","c"],"gone":true,"attempt":2,"duration":0.5,"age":1e9}` + "\n"))
	f.Add([]byte("\n\nnot json\n{}\n{\"kind\":\"x\",\"done\":1e99}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var sent []Event
		r := NewReader(bytes.NewReader(in))
		for {
			e, err := r.Next()
			if bad := (*LineError)(nil); errors.As(err, &bad) {
				continue
			}
			if err != nil {
				break
			}
			if !e.Time.IsZero() { // else the writer puts its own
				sent = append(sent, e)
			}
		}
		// What the reader accepts, the writer writes and the reader reads again.
		var out bytes.Buffer
		w := NewWriter(&out, Event{}, (&clock{start}).now)
		for _, e := range sent {
			e.Kind = "not-" + e.Kind // so that nothing is held back
			w.Emit(e)
		}
		r = NewReader(&out)
		for _, want := range sent {
			if w.Err() != nil {
				return // a year that JSON cannot write
			}
			got, err := r.Next()
			want.Kind = "not-" + want.Kind
			if err != nil || !got.Time.Equal(want.Time) {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
			if want.ID == "" {
				want.ID = want.Identity()
			}
			got.Time, want.Time = time.Time{}, time.Time{}
			gotten, _ := json.Marshal(got)
			if wanted, err := json.Marshal(want); err != nil || string(gotten) != string(wanted) { // an empty list is none
				t.Fatalf("got %+v; want %+v", got, want)
			}
		}
	})
}

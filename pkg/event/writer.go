package event

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// interval is the least time between two progress events of one stage: five a second look like a moving bar, and cost
// nothing.
const interval = time.Second / 5

// Writer emits events. All methods are safe for concurrent use, and do nothing on a nil *Writer, so that whoever reports
// need not ask whether anyone listens.
type Writer struct {
	mu       sync.Mutex
	emit     func(Event) error
	defaults Event
	now      func() time.Time
	stages   []*stage
	err      error
}

// stage is what throttles the progress of one stage; a front door passes on that of several.
type stage struct {
	name string
	last time.Time // when progress last went out
	held *Event    // progress that came too early
}

// NewWriter returns a Writer that writes each event to w as one line of JSON, in a single Write, so that several
// processes may share a pipe or a file opened for appending. The texts of defaults (Job, Revision, Stage, Host, Task) are
// filled in where an event has none, and so are the time, by now, and the id.
//
// Events never stop the work: after the first error of w nothing more is written; see Err.
func NewWriter(w io.Writer, defaults Event, now func() time.Time) *Writer {
	return NewFunc(func(e Event) error {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = w.Write(append(line, '\n'))
		return err
	}, defaults, now)
}

// NewFunc is like NewWriter, but gives the events to emit, one at a time.
func NewFunc(emit func(Event) error, defaults Event, now func() time.Time) *Writer {
	return &Writer{emit: emit, defaults: defaults, now: now}
}

// Emit reports e. Progress of one stage goes out at most five times a second; the newest is kept back until then, or until
// an event of another kind, or Flush, so that the last figures are never lost.
func (w *Writer) Emit(e Event) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	if e.Time.IsZero() {
		e.Time = now
	}
	e.Time = e.Time.UTC()
	if e.Kind != Purged { // which is about the whole repository, wherever it was started
		fill(&e.Job, w.defaults.Job)
		fill(&e.Revision, w.defaults.Revision)
	}
	fill(&e.Stage, w.defaults.Stage)
	fill(&e.Host, w.defaults.Host)
	fill(&e.Task, w.defaults.Task)
	e.ID = e.Identity()
	if e.Kind != Progress {
		w.flush()
		w.write(e)
		return
	}
	s := w.stage(e.Stage)
	if since := now.Sub(s.last); since >= 0 && since < interval { // a clock set back must not silence us
		s.held = &e
		return
	}
	s.last, s.held = now, nil
	w.write(e)
}

func (w *Writer) stage(name string) *stage {
	for _, s := range w.stages {
		if s.name == name {
			return s
		}
	}
	s := &stage{name: name}
	w.stages = append(w.stages, s)
	return s
}

// Flush writes the progress that was kept back.
func (w *Writer) Flush() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
}

// About sets the job and the revision that events are about from now on; an empty text leaves what was said before.
func (w *Writer) About(job, revision string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	fill(&job, w.defaults.Job)
	fill(&revision, w.defaults.Revision)
	w.defaults.Job, w.defaults.Revision = job, revision
}

// Err returns the error that ended the writing, or nil.
func (w *Writer) Err() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *Writer) flush() {
	for _, s := range w.stages {
		if s.held != nil {
			w.write(*s.held)
			s.held = nil
		}
	}
}

func (w *Writer) write(e Event) {
	if w.err == nil {
		w.err = w.emit(e)
	}
}

func fill(text *string, otherwise string) {
	if *text == "" {
		*text = otherwise
	}
}

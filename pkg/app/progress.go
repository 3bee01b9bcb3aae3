package app

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"backy/pkg/event"
)

// newEvents sends events to a file and to a bar; either may be nil. nil where nobody listens.
func newEvents(name, task string, file *os.File, b *bar, now func() time.Time) *event.Writer {
	if file == nil && b == nil {
		return nil
	}
	host, _ := os.Hostname() // an event without a host is still one
	defaults := event.Event{Stage: strings.TrimPrefix(name, "backy-"), Host: host, Task: task}
	return event.NewFunc(func(e event.Event) error {
		if b != nil {
			b.show(e)
		}
		if file == nil {
			return nil
		}
		text, err := json.Marshal(e)
		if err == nil {
			_, err = file.Write(append(text, '\n'))
		}
		return err
	}, defaults, now)
}

// screen is standard error, shared by words and a progress bar below them.
type screen struct {
	mu    sync.Mutex
	w     io.Writer
	width func() int // columns; nil if it is no terminal
	text  string     // of the bar that stands there now
}

func newScreen(f *os.File) *screen {
	s := &screen{w: f}
	if fd := int(f.Fd()); term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		s.width = func() int {
			columns, _, err := term.GetSize(fd)
			if err != nil || columns <= 0 {
				return 80
			}
			return columns
		}
	}
	return s
}

// Write writes words above the bar.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text == "" {
		return s.w.Write(p)
	}
	text := s.text
	s.draw("")
	n, err := s.w.Write(p)
	if err == nil && len(p) > 0 && p[len(p)-1] == '\n' {
		s.draw(text)
	}
	return n, err
}

func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.text != "" {
		s.draw("")
	}
}

func (s *screen) draw(text string) {
	fmt.Fprintf(s.w, "\r\x1b[K%s", text) // a terminal that is gone is no reason to stop
	s.text = text
}

// bar is the progress of a whole pipeline in one line. It is made from events, so it works for stages in other
// processes, too.
type bar struct {
	s      *screen
	now    func() time.Time
	stages map[string]event.Event
	main   string    // the stage whose Done and Total are shown: the first that has a Total
	marks  []mark    // for the rate: the last few seconds
	drawn  time.Time // when
}

type mark struct {
	at   time.Time
	done int64
}

const (
	barInterval = time.Second / 10
	rateWindow  = 10 * time.Second
)

// bar returns a progress bar, or nil if there shall be none or s is no terminal.
func (s *screen) bar(wanted bool, now func() time.Time) *bar {
	if !wanted || s.width == nil {
		return nil
	}
	return &bar{s: s, now: now, stages: make(map[string]event.Event)}
}

// show takes in an event, and draws.
func (b *bar) show(e event.Event) {
	was := b.stages[e.Stage]
	switch e.Kind {
	case event.Started: // perhaps again
		was = event.Event{Stage: e.Stage}
		if e.Stage == b.main {
			b.marks = nil
		}
	case event.Progress, event.Committed:
	default:
		return
	}
	newer(&was.Done, e.Done)
	newer(&was.Total, e.Total)
	newer(&was.Read, e.Read)
	newer(&was.Changed, e.Changed)
	newer(&was.Stored, e.Stored)
	b.stages[e.Stage] = was
	if b.main == "" && was.Total > 0 {
		b.main = e.Stage
	}
	if b.main == "" {
		return
	}
	now := b.now()
	if e.Stage == b.main {
		b.marks = append(b.marks, mark{now, was.Done})
		for len(b.marks) > 2 && now.Sub(b.marks[1].at) > rateWindow {
			b.marks = b.marks[1:]
		}
	}
	if since := now.Sub(b.drawn); since >= 0 && since < barInterval && was.Done < was.Total {
		return
	}
	b.drawn = now
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.draw(b.line(b.s.width() - 1)) // the last column makes some terminals wrap
}

func newer(figure *int64, now int64) {
	if now != 0 {
		*figure = now
	}
}

// line is the bar as text of at most so many columns: as many figures as fit, and a bar where there is room for one.
func (b *bar) line(columns int) string {
	m := b.stages[b.main]
	done, total := min(m.Done, m.Total), m.Total
	var changed, stored int64
	for _, s := range b.stages {
		changed, stored = max(changed, s.Changed), max(stored, s.Stored)
	}
	percent := 100.0
	if total > 0 {
		percent = 100 * float64(done) / float64(total)
	}
	text := fmt.Sprintf("%3d %%", int(percent))
	figures := []string{Bytes(done) + " of " + Bytes(total)}
	if changed > 0 {
		figures = append(figures, Bytes(changed)+" changed")
	}
	if stored > 0 {
		figures = append(figures, Bytes(stored)+" stored")
	}
	if rate := b.rate(); rate > 0 {
		left := time.Duration(float64(total-done) / rate * float64(time.Second))
		figures = append(figures, Bytes(int64(rate))+"/s", "ETA "+clockTime(left))
	}
	for _, f := range figures {
		if utf8.RuneCountInString(text)+2+len(f) > columns {
			break
		}
		text += "  " + f
	}
	if room := columns - utf8.RuneCountInString(text) - 2; room >= 10 {
		room = min(room, 30)
		full := int(percent * float64(room) / 100)
		text = strings.Repeat("━", full) + strings.Repeat("─", room-full) + "  " + text
	}
	if utf8.RuneCountInString(text) > columns {
		return ""
	}
	return text
}

// rate is bytes per second over the last few seconds; 0 if not known.
func (b *bar) rate() float64 {
	if len(b.marks) < 2 {
		return 0
	}
	first, last := b.marks[0], b.marks[len(b.marks)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return max(0, float64(last.done-first.done)/seconds)
}

// clockTime is a time to wait, as 0:07, 12:34 or 1:02:03.
func clockTime(d time.Duration) string {
	s := int64(d.Round(time.Second).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

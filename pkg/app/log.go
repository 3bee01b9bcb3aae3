package app

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/sys/unix"

	"backy/pkg/event"
)

// lines is a slog.Handler for people: "backy-store: message (key=value, …)", one line each.
type lines struct {
	mu     *sync.Mutex
	w      io.Writer
	name   string
	level  slog.Level
	group  string   // of attributes to come, with a dot at its end
	values []string // key=value
}

func newLines(w io.Writer, name string, level slog.Level) *lines {
	return &lines{mu: new(sync.Mutex), w: w, name: name, level: level}
}

func (h *lines) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *lines) Handle(_ context.Context, r slog.Record) error {
	values := h.values[:len(h.values):len(h.values)]
	r.Attrs(func(a slog.Attr) bool {
		values = appendAttr(values, h.group, a)
		return true
	})
	var b strings.Builder
	b.WriteString(h.name + ": ")
	if r.Level == slog.LevelWarn {
		b.WriteString("warning: ")
	}
	b.WriteString(strings.ReplaceAll(r.Message, "\n", "; ")) // of several errors at once
	if len(values) > 0 {
		b.WriteString(" (" + strings.Join(values, ", ") + ")")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, Printable(b.String())+"\n")
	return err
}

func (h *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.values = h.values[:len(h.values):len(h.values)]
	for _, a := range attrs {
		with.values = appendAttr(with.values, h.group, a)
	}
	return &with
}

func (h *lines) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.group += name + "."
	return &with
}

func appendAttr(values []string, group string, a slog.Attr) []string {
	v := a.Value.Resolve()
	switch {
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, member := range v.Group() {
			values = appendAttr(values, group, member)
		}
		return values
	case a.Key == "":
		return values
	}
	text := v.String()
	if text == "" || strings.ContainsAny(text, " ,()\"") {
		text = strconv.Quote(text)
	}
	return append(values, group+a.Key+"="+text)
}

// Printable is text for a terminal: one line, without control characters. Names come from disks and other hosts, and a
// terminal takes orders from what it shows.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return '?'
		}
		return r
	}, text)
}

// warnings is a slog.Handler that sends warnings as events.
type warnings struct{ events *event.Writer }

func (h warnings) Enabled(_ context.Context, l slog.Level) bool {
	return h.events != nil && l == slog.LevelWarn
}

func (h warnings) Handle(_ context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(r.Message)
	var values []string
	r.Attrs(func(a slog.Attr) bool {
		values = appendAttr(values, "", a)
		return true
	})
	if len(values) > 0 {
		text.WriteString(" (" + strings.Join(values, ", ") + ")")
	}
	h.events.Emit(event.Event{Time: r.Time, Kind: event.Warning, Message: text.String()})
	return nil
}

func (h warnings) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h warnings) WithGroup(string) slog.Handler      { return h }

// newTask makes up a task id: short, as people read it out.
func newTask() string { return rand.Text()[:4] }

// inherited says whether where, the value of --events, is a descriptor: then someone else shows the progress.
func inherited(where string) bool { return strings.HasPrefix(where, "fd:") }

// openEvents opens what --events names; nil for "".
func openEvents(where string) (*os.File, error) {
	if where == "" {
		return nil, nil
	}
	if number, ok := strings.CutPrefix(where, "fd:"); ok {
		fd, err := strconv.Atoi(number)
		if err != nil || fd < 2 {
			return nil, Usagef("--events %s: want fd: and the number of an open descriptor from 2 on", where)
		}
		if mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || mode&unix.O_ACCMODE == unix.O_RDONLY {
			return nil, Usagef("--events %s: descriptor %d is not open for writing", where, fd)
		}
		unix.CloseOnExec(fd) // it is for us, not for the commands that we may call
		return os.NewFile(uintptr(fd), where), nil
	}
	f, err := os.OpenFile(where, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	return f, nil
}

package pipeline

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
)

// Failure is a stage that failed by itself. Its words are on standard error already.
type Failure struct {
	Stage  string         // its name
	Code   int            // its exit code; -1 if a signal ended it
	Signal syscall.Signal // that ended it, or 0
}

func (f *Failure) Error() string {
	if f.Signal != 0 {
		return fmt.Sprintf("%s was ended by signal %d (%v)", f.Stage, int(f.Signal), f.Signal)
	}
	return fmt.Sprintf("%s failed with exit code %d", f.Stage, f.Code)
}

// ExitCode is the stage's exit code; 1 if a signal ended it.
func (f *Failure) ExitCode() int {
	if f.Signal != 0 {
		return 1
	}
	return f.Code
}

// signal is what ended the stage, or what it started: a shell turns that into an exit code.
func (f *Failure) signal() syscall.Signal {
	if f.Signal == 0 && f.Code > 128 {
		return syscall.Signal(f.Code - 128)
	}
	return f.Signal
}

// interrupted is the exit code of a stage of ours that was told to end.
const interrupted = 130

// verdict says how the run went, all stages having ended. cause is that of the cancelled context, if it was.
func (p *pipeline) verdict(cause error) error {
	var consequence, ordered *Failure
	for _, c := range p.children {
		state := c.cmd.ProcessState
		if state.Success() {
			continue
		}
		f := &Failure{Stage: c.Name, Code: state.ExitCode()}
		if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			f.Signal = w.Signal()
		}
		switch signal := f.signal(); {
		case slices.Contains(c.sent, signal) || len(c.sent) > 0 && f.Code == interrupted:
			ordered = first(ordered, f)
		case signal == syscall.SIGPIPE:
			consequence = first(consequence, f)
		case cause == nil:
			return f
		}
	}
	switch {
	case cause != nil:
		if ordered == nil && consequence == nil && p.succeeded() {
			return nil // it was done before it could be stopped
		}
		return cause
	case consequence != nil: // who read from it ended well, but too early
		return consequence
	case ordered != nil: // cannot be: what would the order have been for?
		return ordered
	}
	return nil
}

func (p *pipeline) succeeded() bool {
	return !slices.ContainsFunc(p.children, func(c *child) bool { return !c.cmd.ProcessState.Success() })
}

func first(a, b *Failure) *Failure {
	if a != nil {
		return a
	}
	return b
}

// lines passes on whole lines, so that those of several stages do not mix.
type lines struct {
	mu   *sync.Mutex
	w    io.Writer
	late func() bool // whether the stage was told to end
	part []byte
	kept []byte // what came late: of a stage that failed by itself it is the reason
}

// maxLine is what is kept of a line that does not end.
const maxLine = 64 << 10

func (l *lines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	end := bytes.LastIndexByte(l.part, '\n') + 1
	if end == 0 && len(l.part) > maxLine {
		end = len(l.part)
	}
	if end > 0 {
		l.pass(l.part[:end])
		l.part = append(l.part[:0], l.part[end:]...)
	}
	return len(p), nil
}

// flush passes on a last line that has no end. The stage has ended.
func (l *lines) flush() {
	if len(l.part) > 0 {
		l.pass(append(l.part, '\n'))
		l.part = nil
	}
}

func (l *lines) pass(p []byte) {
	if l.late() {
		l.kept = append(l.kept, p[:min(len(p), maxLine-min(len(l.kept), maxLine))]...)
		return
	}
	l.say(p)
}

func (l *lines) say(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(p) // if there is nobody to tell, the work goes on
}

package event

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds what a line may cost in memory. The longest that we write holds a message and a few names.
const maxLine = 64 << 10

// Reader reads what a Writer wrote.
type Reader struct {
	lines *bufio.Scanner
	n     int
}

// NewReader returns a Reader of the lines of r.
func NewReader(r io.Reader) *Reader {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	return &Reader{lines: lines}
}

// Next returns the next event, io.EOF at the end of the input, or what reading it failed with. Empty lines are passed
// over, and so are fields that it does not know, so that an older program reads the events of a newer one.
//
// A line that is no event is a *LineError; Next may be called on after it, and goes on with the following line. After any
// other error it must not be called again.
func (r *Reader) Next() (Event, error) {
	for r.lines.Scan() {
		r.n++
		if len(r.lines.Bytes()) == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal(r.lines.Bytes(), &e); err != nil {
			return Event{}, &LineError{r.n, err}
		}
		if e.Kind == "" {
			return Event{}, &LineError{r.n, errors.New("it has no kind")}
		}
		return e, nil
	}
	if err := r.lines.Err(); err != nil {
		return Event{}, fmt.Errorf("events: line %d: %w", r.n+1, err)
	}
	return Event{}, io.EOF
}

// LineError is a line that is no event.
type LineError struct {
	Line int // counted from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("events: line %d: %v", e.Line, e.Err) }

// Unwrap returns what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

package freeze

import "bytes"

// What is kept of a line that does not end, in bytes, and of what has no end, in lines.
const (
	maxLine  = 4096
	maxLines = 1000
)

// lines is a writer that passes on whole lines, without their ends; of very many the first.
type lines struct {
	pass func(string)
	part []byte
	n    int // passed on
}

func (l *lines) Write(p []byte) (int, error) {
	l.part = append(l.part, p...)
	for {
		line, rest, ok := bytes.Cut(l.part, []byte("\n"))
		if !ok && len(line) < maxLine {
			return len(p), nil
		}
		if !ok {
			line, rest = line[:maxLine], line[maxLine:]
		}
		l.tell(line)
		l.part = append(l.part[:0], rest...)
	}
}

// flush passes on a last line that has no end.
func (l *lines) flush() {
	l.tell(l.part)
	l.part = nil
}

func (l *lines) tell(line []byte) {
	if len(line) == 0 || l.n > maxLines {
		return
	}
	if l.n++; l.n > maxLines {
		line = []byte("(and more)")
	}
	l.pass(string(line))
}

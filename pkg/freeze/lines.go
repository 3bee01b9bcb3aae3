package freeze

import "bytes"

// maxLine is what is kept of a line that does not end, in bytes.
const maxLine = 4096

// lines is a writer that passes on whole lines, without their ends.
type lines struct {
	pass func(string)
	part []byte
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
		if len(line) > 0 {
			l.pass(string(line))
		}
		l.part = append(l.part[:0], rest...)
	}
}

// flush passes on a last line that has no end.
func (l *lines) flush() {
	if len(l.part) > 0 {
		l.pass(string(l.part))
		l.part = nil
	}
}

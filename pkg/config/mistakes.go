package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistakes are all that is wrong with a file, by their places: each "file:line:column: what", which is best shown as a
// line of its own.
type Mistakes []error

func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i, err := range m {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

// Unwrap makes errors.Is and errors.As look at each.
func (m Mistakes) Unwrap() []error { return m }

// Mistake is one thing that is wrong with a file.
type Mistake struct {
	Path         string
	Line, Column int // from 1; 0 where the whole file is meant
	What         string
}

func (m *Mistake) Error() string {
	if m.Line == 0 {
		return m.Path + ": " + m.What
	}
	return fmt.Sprintf("%s:%d:%d: %s", m.Path, m.Line, m.Column, m.What)
}

// sorted are the mistakes as one error, in the order of the file; nil where there are none.
func sorted(list []*Mistake) error {
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b *Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.What, b.What))
	})
	list = slices.CompactFunc(list, func(a, b *Mistake) bool { return *a == *b }) // what two places refer to
	all := make(Mistakes, len(list))
	for i, m := range list {
		all[i] = m
	}
	return all
}

package config

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"backy/pkg/schedule"
)

// scalar is the text of a value that is one word or a line; ok is false for what is none.
func scalar(node ast.Node) (text string, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// text reads a text that is not empty. check, unless nil, says what is wrong with it.
func (d *document) text(to *string, check func(string) error) func(entry) {
	return func(e entry) {
		text, ok := scalar(e.value)
		switch {
		case !ok:
			d.mistake(e.value, "%s: want a text, not %s; put it in quotes if it is one", e.name, kind(e.value))
			return
		case strings.TrimSpace(text) == "":
			d.mistake(e.value, "%s: it is empty", e.name)
			return
		case strings.ContainsRune(text, 0):
			d.mistake(e.value, "%s: it has a zero byte in it", e.name)
			return
		}
		if check != nil {
			if err := check(text); err != nil {
				d.mistake(e.value, "%s: %s", e.name, oneLine(err.Error()))
				return
			}
		}
		*to = text
	}
}

// kind is what a value is, in words.
func kind(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	}
	return strings.ToLower(node.Type().String())
}

// file reads a path; one that is not absolute begins at the file's directory.
func (d *document) file(to *string) func(entry) {
	return func(e entry) {
		path := ""
		if d.text(&path, nil)(e); path != "" {
			*to = d.absolute(e, path)
		}
	}
}

func (d *document) absolute(e entry, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	dir, err := filepath.Abs(filepath.Dir(d.path))
	if err != nil {
		d.mistake(e.value, "%s: %s", e.name, oneLine(err.Error()))
		return path
	}
	return filepath.Join(dir, path)
}

func (d *document) boolean(to *bool) func(entry) {
	return func(e entry) {
		n, ok := e.value.(*ast.BoolNode)
		if !ok {
			d.mistake(e.value, "%s: want true or false", e.name)
			return
		}
		*to = n.Value
	}
}

// integer reads a whole number; most is math.MaxInt where there is no limit.
func (d *document) integer(to *int, least, most int) func(entry) {
	return func(e entry) {
		text, _ := scalar(e.value)
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			what := fmt.Sprintf("%d to %d", least, most)
			if most == math.MaxInt {
				what = fmt.Sprintf("%d or more", least)
			}
			d.mistake(e.value, "%s: want a whole number, %s", e.name, what)
			return
		}
		*to = n
	}
}

// duration reads a time span of least or more.
func (d *document) duration(to *time.Duration, least time.Duration) func(entry) {
	return func(e entry) {
		text, ok := scalar(e.value)
		if !ok {
			d.mistake(e.value, "%s: %s is no duration: want a whole number with one of s, m, h, d, w, as in 30m or 1d", e.name, kind(e.value))
			return
		}
		n, err := schedule.ParseDuration(text)
		if err == nil && n < least {
			err = fmt.Errorf("%s is too short: want %s or more", schedule.FormatDuration(n), schedule.FormatDuration(least))
		}
		if err != nil {
			d.mistake(e.value, "%s: %s", e.name, err)
			return
		}
		*to = n
	}
}

var sizeForm = regexp.MustCompile(`^([0-9]+) ?(([KMGT])(i?B)?)?$`)

// size reads a number of bytes, 1 or more: "1073741824", "1G", "1 GiB".
func (d *document) size(to *int64) func(entry) {
	return func(e entry) {
		text, _ := scalar(e.value)
		var n uint64
		shift := 0
		if m := sizeForm.FindStringSubmatch(text); m != nil {
			n, _ = strconv.ParseUint(m[1], 10, 63) // too large is the largest, or 0: refused below
			shift = 10 * (strings.Index("KMGT", m[3]) + 1)
			if m[3] == "" {
				shift = 0
			}
		}
		if n == 0 || n > math.MaxInt64>>shift {
			d.mistake(e.value, "%s: want a number of bytes, as in 1073741824, 512MiB or 1G", e.name)
			return
		}
		*to = int64(n) << shift
	}
}

// words reads a list: ["a", "b"], or "a, b". check says what is wrong with one; none is an empty list.
func (d *document) words(to *[]string, check func(string) error) func(entry) {
	return func(e entry) {
		list := []string{}
		add := func(node ast.Node, text string) {
			if err := check(text); err != nil {
				d.mistake(node, "%s: %s", e.name, err)
			} else if slices.Contains(list, text) {
				d.mistake(node, "%s: %q is there twice", e.name, text)
			} else {
				list = append(list, text)
			}
		}
		if sequence, ok := e.value.(*ast.SequenceNode); ok {
			for _, node := range sequence.Values {
				if text, ok := scalar(d.resolve(node)); ok {
					add(node, text)
				} else {
					d.mistake(node, "%s: want a list of words", e.name)
				}
			}
		} else if text, ok := scalar(e.value); ok {
			for word := range strings.SplitSeq(text, ",") {
				if word = strings.TrimSpace(word); word != "" || strings.Contains(text, ",") {
					add(e.value, word)
				}
			}
		} else {
			d.mistake(e.value, "%s: want a list of words, as in [a, b]", e.name)
			return
		}
		*to = list
	}
}

// readAll reads a text of most bytes at most.
func readAll(r io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it is longer than %d bytes", most)
	}
	return text, err
}

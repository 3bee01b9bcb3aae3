package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// document is a YAML text that is being read. What is wrong with it is collected, so that it is told all at once.
type document struct {
	path    string // of the file
	anchors map[string]ast.Node
	wrong   []*Mistake
}

// entry is a key with its value, both as they stand in the file.
type entry struct {
	name  string
	key   ast.Node // nil for the whole document
	value ast.Node // nil where there is none
}

// place is where something about the entry is told.
func (e entry) place() ast.Node {
	if e.value == nil {
		return e.key
	}
	return e.value
}

// parse reads a text that is one YAML document, and not longer than most. Where it is none, ok is false, and why is among
// the mistakes.
func parse(text []byte, path string, most int) (d *document, all entry, ok bool) {
	d = &document{path: path, anchors: map[string]ast.Node{}}
	if len(text) > most {
		d.mistake(nil, "it is longer than %d bytes", most)
		return d, all, false
	}
	if tooDeep(text) {
		d.mistake(nil, "it is nested too deep")
		return d, all, false
	}
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	var known yaml.Error
	switch {
	case errors.As(err, &known):
		line, column := 0, 0
		if t := known.GetToken(); t != nil && t.Position != nil {
			line, column = t.Position.Line, t.Position.Column
		}
		d.wrong = append(d.wrong, &Mistake{path, line, column, oneLine(known.GetMessage())})
		return d, all, false
	case err != nil:
		d.mistake(nil, "%s", oneLine(err.Error()))
		return d, all, false
	}
	bodies := slices.DeleteFunc(file.Docs, func(doc *ast.DocumentNode) bool { return doc.Body == nil || doc.Body.Type() == ast.CommentType })
	if len(bodies) > 1 {
		d.mistake(nil, "it has more than one document")
		return d, all, false
	}
	if len(bodies) == 1 {
		d.collectAnchors(bodies[0].Body)
		all.value = d.resolve(bodies[0].Body)
	}
	if all.value == nil && len(d.wrong) == 0 {
		d.mistake(nil, "it is empty")
	}
	return d, all, all.value != nil
}

// tooDeep tells a text that the parser would need too much memory for: it goes down by recursion, and each level costs as
// much as all above it. Brackets in strings count too, so the limit is far above what anybody writes; it costs 50 MB.
func tooDeep(text []byte) bool {
	const limit = 4000
	depth, entries := 0, 0 // of brackets, and of "- - -" or "? ? ?"
	for _, c := range text {
		switch c {
		case '-', '?':
			entries++
		case ' ', '\t':
		case '[', '{':
			depth++
			entries = 0
		case ']', '}':
			depth = max(depth-1, 0)
			entries = 0
		default:
			entries = 0
		}
		if depth > limit || entries > limit {
			return true
		}
	}
	return false
}

func oneLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

func (d *document) collectAnchors(body ast.Node) {
	for _, n := range ast.Filter(ast.AnchorType, body) {
		a := n.(*ast.AnchorNode)
		name := a.Name.GetToken().Value
		if d.anchors[name] != nil {
			d.mistake(n, "the anchor &%s is there twice", name)
		}
		d.anchors[name] = a.Value
	}
}

// resolve goes from an anchor or alias to what it stands for; nil for null.
func (d *document) resolve(node ast.Node) ast.Node {
	for range 20 {
		switch n := node.(type) {
		case nil, *ast.NullNode:
			return nil
		case *ast.AnchorNode:
			node = n.Value
		case *ast.AliasNode:
			name := n.Value.GetToken().Value
			if node = d.anchors[name]; node == nil {
				d.mistake(n, "there is no anchor &%s", name)
			}
		default:
			return node
		}
	}
	d.mistake(node, "this goes from alias to alias, and comes to no end")
	return nil
}

// mistake notes what is wrong at a place; nil is the whole file.
func (d *document) mistake(at ast.Node, format string, args ...any) {
	line, column := position(at)
	what := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, fmt.Sprintf(format, args...))
	d.wrong = append(d.wrong, &Mistake{d.path, line, column, what})
}

// position is the place of a node, from 1; 0 if it has none.
func position(node ast.Node) (line, column int) {
	if node == nil {
		return 0, 0
	}
	// The token of a mapping is the colon after its first key; a reader looks for the key.
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			node = n.Values[0].Key
		}
	case *ast.MappingValueNode:
		node = n.Key
	}
	if t := node.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line, t.Position.Column
	}
	return 0, 0
}

// entries are the keys and values of a mapping, in the order of the file; none where there is no value.
func (d *document) entries(e entry) []entry {
	return d.merged(e, 0)
}

func (d *document) merged(e entry, depth int) []entry {
	var pairs []*ast.MappingValueNode
	switch n := e.value.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.mistake(e.value, "%s has to be keys with values, as in {key: value}", title(e.name))
		return nil
	}
	var list, more []entry
	lines := map[string]int{}
	for _, pair := range pairs {
		if pair.Key.IsMergeKey() {
			if value := d.resolve(pair.Value); depth < 20 && value != nil {
				more = append(more, d.merged(entry{"<<", pair.Key, value}, depth+1)...)
			}
			continue
		}
		name, ok := keyText(pair.Key)
		if !ok {
			d.mistake(pair.Key, "a key has to be a word")
			continue
		}
		line, _ := position(pair.Key)
		if first, ok := lines[name]; ok {
			d.mistake(pair.Key, "%s is there twice, first in line %d", e.shown(name), first)
			continue
		}
		lines[name] = line
		list = append(list, entry{name, pair.Key, d.resolve(pair.Value)})
	}
	for _, m := range more {
		if _, ok := lines[m.name]; !ok {
			lines[m.name] = 0
			list = append(list, m)
		}
	}
	return list
}

func isMapping(node ast.Node) bool {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// title is what an entry is called.
func title(name string) string {
	if name == "" {
		return "the file"
	}
	return name
}

// shown is a key as it may be shown: a token is a secret.
func (e entry) shown(key string) string {
	if e.name == "tokens" {
		return "that token"
	}
	return strconv.Quote(key)
}

func keyText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.MappingKeyNode: // "? key"
		return keyText(n.Value)
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// keys says for each key of a mapping who understands its value. They are not asked where there is no value.
type keys map[string]func(entry)

// read hands each value of a mapping to its reader. A key that has none is a mistake.
func (d *document) read(e entry, known keys) {
	for _, e := range d.entries(e) {
		switch read, ok := known[e.name]; {
		case !ok:
			d.mistake(e.key, "unknown key %q; there are: %s", e.name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case e.value != nil:
			read(e)
		}
	}
}

// readFile reads the text of a configuration, and when it was changed.
func readFile(path string, most int64) (text []byte, changed time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, changed, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, changed, err
	}
	text, err = readAll(f, most)
	if err != nil {
		return nil, changed, fmt.Errorf("%s: %w", path, err)
	}
	return text, info.ModTime(), nil
}

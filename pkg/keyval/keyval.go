// Package keyval reads and writes flat "key: value" lines: the form of a revision, its state, a registration and
// the first and last entry of an object stream. They are valid YAML, and sed can read them.
//
// A value that consists of A-Za-z0-9_./:@+- alone stands as it is; any other is a JSON string. A list is
// [a, "b c"]. Each line ends in a newline; there are no comments and no blank lines.
package keyval

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// MaxSize is the most that Parse takes, in bytes.
const MaxSize = 1 << 20

// Pair is one line. Raw is the value as it stands in the file.
type Pair struct{ Key, Raw string }

// Pairs are the lines of a file, in their order, each key at most once.
type Pairs []Pair

const (
	lower   = "abcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
	letters = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// Words that stand as they are. A repository has hundreds of thousands of lines, so these are tables, not expressions.
var (
	key      = newWord(lower, digits+"-")
	plain    = newWord(letters+digits+"_./+", ":@-")
	plainTag = newWord(letters+digits+"_.", "-")
)

// word is a set of words by their bytes: for each byte, whether it may begin a word, and whether it may follow.
type word struct{ first, next [256]bool }

func newWord(first, more string) *word {
	var w word
	for _, c := range []byte(first) {
		w.first[c], w.next[c] = true, true
	}
	for _, c := range []byte(more) {
		w.next[c] = true
	}
	return &w
}

// has reports whether s is one of the words.
func (w *word) has(s string) bool {
	if s == "" || !w.first[s[0]] {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !w.next[s[i]] {
			return false
		}
	}
	return true
}

// Parse reads lines. What it accepts, Bytes gives back to the byte.
func Parse(text []byte) (Pairs, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%d bytes are too many for key: value lines", len(text))
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, fmt.Errorf("the last line is cut off")
	}
	rest := string(text) // all values are parts of it
	pairs := make(Pairs, 0, strings.Count(rest, "\n"))
	for n := 1; rest != ""; n++ {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		k, v, ok := strings.Cut(line, ": ")
		if !ok || !key.has(k) {
			return nil, fmt.Errorf("line %d is not key: value", n)
		}
		if _, twice := pairs.raw(k); twice {
			return nil, fmt.Errorf("line %d: %s is there twice", n, k)
		}
		if err := check(v); err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", n, k, err)
		}
		pairs = append(pairs, Pair{k, v})
	}
	return pairs, nil
}

func check(raw string) error {
	if strings.HasPrefix(raw, "[") {
		_, err := parseList(raw)
		return err
	}
	_, err := parseString(raw)
	return err
}

// Bytes is the text of the lines.
func (p Pairs) Bytes() []byte {
	var b bytes.Buffer
	for _, pair := range p {
		fmt.Fprintf(&b, "%s: %s\n", pair.Key, pair.Raw)
	}
	return b.Bytes()
}

func (p Pairs) raw(key string) (string, bool) {
	for _, pair := range p {
		if pair.Key == key {
			return pair.Raw, true
		}
	}
	return "", false
}

// Has reports whether the key is there.
func (p Pairs) Has(key string) bool { _, ok := p.raw(key); return ok }

// Get is the value of the key, "" when it is not there or is a list.
func (p Pairs) Get(key string) string {
	raw, _ := p.raw(key)
	s, _ := parseString(raw)
	return s
}

// List is the list at the key, nil when it is not there or is none.
func (p Pairs) List(key string) []string {
	raw, _ := p.raw(key)
	l, _ := parseList(raw)
	return l
}

// Int is the number at the key; a missing one, one that is none and a negative one are errors.
func (p Pairs) Int(key string) (int64, error) {
	if !p.Has(key) {
		return 0, fmt.Errorf("%s is missing", key)
	}
	n, err := strconv.ParseInt(p.Get(key), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: %q is no size or count", key, p.Get(key))
	}
	return n, nil
}

// Set puts a value at the key, in place of an older one or at the end.
func (p *Pairs) Set(key, value string) { p.set(key, formatString(value, plain)) }

// SetInt puts a number at the key.
func (p *Pairs) SetInt(key string, n int64) { p.set(key, strconv.FormatInt(n, 10)) }

// SetList puts a list at the key.
func (p *Pairs) SetList(key string, list []string) {
	items := make([]string, len(list))
	for i, s := range list {
		items[i] = formatString(s, plainTag)
	}
	p.set(key, "["+strings.Join(items, ", ")+"]")
}

func (p *Pairs) set(key, raw string) {
	for i := range *p {
		if (*p)[i].Key == key {
			(*p)[i].Raw = raw
			return
		}
	}
	*p = append(*p, Pair{key, raw})
}

// Without is the lines but those with one of these keys: what a newer version may have added.
func (p Pairs) Without(keys ...string) Pairs {
	var rest Pairs
next:
	for _, pair := range p {
		for _, k := range keys {
			if pair.Key == k {
				continue next
			}
		}
		rest = append(rest, pair)
	}
	return rest
}

func formatString(s string, plain *word) string {
	if plain.has(s) && !strings.HasSuffix(s, ":") {
		return s
	}
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}

func parseString(raw string) (string, error) {
	if plain.has(raw) && !strings.HasSuffix(raw, ":") {
		return raw, nil
	}
	var s string
	if !strings.HasPrefix(raw, `"`) || json.Unmarshal([]byte(raw), &s) != nil {
		return "", fmt.Errorf("%.40q wants quotes", raw)
	}
	return s, nil
}

func parseList(raw string) ([]string, error) {
	rest, ok := strings.CutPrefix(raw, "[")
	rest, ok2 := strings.CutSuffix(rest, "]")
	if !ok || !ok2 {
		return nil, fmt.Errorf("%.40q is no list", raw)
	}
	list := []string{}
	for first := true; rest != ""; first = false {
		if !first {
			if rest, ok = strings.CutPrefix(rest, ", "); !ok {
				return nil, fmt.Errorf("list items stand apart by a comma and a space")
			}
		}
		item := rest
		if strings.HasPrefix(rest, `"`) {
			end := closing(rest)
			if end < 0 {
				return nil, fmt.Errorf("a quote is open in %.40q", rest)
			}
			item = rest[:end]
		} else if i := strings.IndexByte(rest, ','); i >= 0 {
			item = rest[:i]
		}
		s := item
		if strings.HasPrefix(item, `"`) {
			if json.Unmarshal([]byte(item), &s) != nil {
				return nil, fmt.Errorf("%.40q is no JSON string", item)
			}
		} else if !plainTag.has(item) {
			return nil, fmt.Errorf("%.40q wants quotes", item)
		}
		list, rest = append(list, s), rest[len(item):]
	}
	return list, nil
}

// closing is the length of the JSON string that text begins with, -1 if it has no end.
func closing(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

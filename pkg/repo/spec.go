package repo

import (
	"fmt"
	"slices"
	"strings"
)

// SpecError is a mistake in the words that name revisions.
type SpecError struct {
	Spec   string
	Reason string
}

func (e *SpecError) Error() string { return fmt.Sprintf("revisions %q: %s", e.Spec, e.Reason) }

// ExitCode is that of wrong usage.
func (*SpecError) ExitCode() int { return 2 }

// What bounds a text that names revisions: its bytes, and how deep its parentheses go.
const (
	maxSpec  = 4096
	maxDepth = 50
)

// expr is a parsed text that names revisions. Its String parses to the same.
type expr interface {
	fmt.Stringer
	eval(*history) ([]int, error) // indexes into the history, in the order of the expression, each once
}

type (
	word  string                 // a single name, or a set by its name
	union []expr                 // a,b
	both  []expr                 // a&b
	span  struct{ a, b expr }    // a..b; nil is the end on that side
	call  struct{ fn, arg expr } // fn(arg); fn is a word
)

func (w word) String() string {
	if w == "" {
		return `""`
	}
	if strings.ContainsAny(string(w), `,&() `) || strings.Contains(string(w), "..") || strings.HasPrefix(string(w), ".") || strings.HasSuffix(string(w), ".") {
		return `"` + string(w) + `"`
	}
	return string(w)
}

func (u union) String() string { return join(u, ",", 1) }
func (b both) String() string  { return join(b, "&", 2) }

func (s span) String() string {
	var a, b string
	if s.a != nil {
		a = wrap(s.a, 4)
	}
	if s.b != nil {
		b = wrap(s.b, 4)
	}
	return a + ".." + b
}

func (c call) String() string { return c.fn.String() + "(" + c.arg.String() + ")" }

func join(list []expr, op string, level int) string {
	parts := make([]string, len(list))
	for i, e := range list {
		parts[i] = wrap(e, level+1)
	}
	return strings.Join(parts, op)
}

// wrap puts parentheses around what binds less than level.
func wrap(e expr, level int) string {
	binds := 4
	switch e.(type) {
	case union:
		binds = 1
	case both:
		binds = 2
	case span:
		binds = 3
	}
	if binds < level {
		return "(" + e.String() + ")"
	}
	return e.String()
}

// token is an operator or a word. The end of the text is an operator "".
type token struct {
	text string
	word bool
}

func (t token) String() string {
	if t == (token{}) {
		return "the end"
	}
	return fmt.Sprintf("%q", t.text)
}

// scan takes a text apart. Quotes keep what is between them from being taken for operators; they may stand inside a word,
// as in tag:"a&b". Spaces count inside words alone.
func scan(text string) ([]token, error) {
	var list []token
	var w strings.Builder
	quoted := false // some of the word was
	flush := func() {
		// A quoted word keeps its spaces; no name has any, so that this is about dates.
		if s := strings.Trim(w.String(), " "); s != "" || quoted {
			list = append(list, token{s, true})
		}
		w.Reset()
		quoted = false
	}
	for rest := text; rest != ""; {
		op := ""
		switch {
		case rest[0] == '"':
			inside, after, ok := strings.Cut(rest[1:], `"`)
			if !ok {
				return nil, fmt.Errorf("a quote is open: %s", rest)
			}
			w.WriteString(inside)
			quoted, rest = true, after
			continue
		case strings.HasPrefix(rest, ".."):
			op = ".."
		case strings.ContainsRune(",&()", rune(rest[0])):
			op = rest[:1]
		default:
			w.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		flush()
		list = append(list, token{text: op})
		rest = rest[len(op):]
	}
	flush()
	return append(list, token{}), nil
}

type parser struct {
	tokens []token // never empty
	depth  int
}

func (p *parser) next(op string) bool {
	if t := p.tokens[0]; !t.word && t.text == op {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

// parse understands a text that names revisions. From what binds least to what binds most: a,b  a&b  a..b  f(a) and (a).
func parse(text string) (expr, error) {
	if len(text) > maxSpec {
		return nil, &SpecError{text[:50] + "...", fmt.Sprintf("%d bytes are too long", len(text))}
	}
	tokens, err := scan(text)
	if err != nil {
		return nil, &SpecError{text, err.Error()}
	}
	p := parser{tokens: tokens}
	e, err := p.list(",")
	if err == nil && p.tokens[0] != (token{}) {
		err = fmt.Errorf("did not expect %s", p.tokens[0])
	}
	if err != nil {
		return nil, &SpecError{text, err.Error()}
	}
	return e, nil
}

func (p *parser) list(op string) (expr, error) {
	var list []expr
	for {
		e, err := p.operand(op)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		if p.next(op) {
			continue
		}
		switch {
		case len(list) == 1:
			return e, nil
		case op == ",":
			return union(list), nil
		}
		return both(list), nil
	}
}

func (p *parser) operand(op string) (expr, error) {
	if op == "," {
		return p.list("&")
	}
	return p.span()
}

func (p *parser) span() (expr, error) {
	var s span
	var err error
	if p.begins() {
		if s.a, err = p.primary(); err != nil {
			return nil, err
		}
	}
	if !p.next("..") {
		if s.a == nil {
			return nil, fmt.Errorf("a revision is missing before %s", p.tokens[0])
		}
		return s.a, nil
	}
	if p.begins() {
		if s.b, err = p.primary(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// begins reports whether a primary stands next.
func (p *parser) begins() bool { return p.tokens[0].word || p.tokens[0].text == "(" }

func (p *parser) primary() (expr, error) {
	t := p.tokens[0]
	if t.word {
		p.tokens = p.tokens[1:]
		if p.tokens[0] != (token{text: "("}) {
			return word(t.text), nil
		}
		if functions[t.text] == nil {
			return nil, fmt.Errorf("%q is no function; there are: %s", t.text, names(functions))
		}
	}
	p.tokens = p.tokens[1:] // the parenthesis
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("more than %d parentheses inside each other", maxDepth)
	}
	e, err := p.list(",")
	if err != nil {
		return nil, err
	}
	if !p.next(")") {
		return nil, fmt.Errorf("a ) is missing before %s", p.tokens[0])
	}
	p.depth--
	if t.word {
		return call{word(t.text), e}, nil
	}
	return e, nil
}

// functions take a list of revisions, in the order of the expression.
var functions = map[string]func(*history, []int) []int{
	"first": func(_ *history, list []int) []int { return list[:1] },
	"last":  func(_ *history, list []int) []int { return list[len(list)-1:] },
	"not": func(h *history, list []int) []int {
		return h.where(func(i int) bool { return !slices.Contains(list, i) })
	},
	"reverse": func(_ *history, list []int) []int {
		list = slices.Clone(list)
		slices.Reverse(list)
		return list
	},
}

func names[V any](m map[string]V) string {
	var list []string
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

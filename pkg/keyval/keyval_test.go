package keyval

import (
	"bytes"
	"regexp"
	"slices"
	"testing"
)

func TestValues(t *testing.T) {
	for _, tt := range []struct{ value, line string }{
		{"daily", "k: daily\n"},
		{"rbd:vms/vm1@s", "k: rbd:vms/vm1@s\n"},
		{"/dev/vg0/vm 1", "k: \"/dev/vg0/vm 1\"\n"},
		{"", "k: \"\"\n"},
		{"-", "k: \"-\"\n"},
		{"rbd:", "k: \"rbd:\"\n"},
		{"@x", "k: \"@x\"\n"},
		{"two\nlines", "k: \"two\\nlines\"\n"},
	} {
		var p Pairs
		p.Set("k", tt.value)
		if got := string(p.Bytes()); got != tt.line {
			t.Errorf("%q: got %s want %s", tt.value, got, tt.line)
		}
		q, err := Parse(p.Bytes())
		if err != nil || q.Get("k") != tt.value {
			t.Errorf("%q came back as %q, %v", tt.value, q.Get("k"), err)
		}
	}
}

// The tables are what doc/format.md says of words.
func TestWords(t *testing.T) {
	for _, test := range []struct {
		name string
		word *word
		want *regexp.Regexp
	}{
		{"key", key, regexp.MustCompile(`^[a-z][a-z0-9-]*$`)},
		{"plain", plain, regexp.MustCompile(`^[A-Za-z0-9_./+][A-Za-z0-9_./:@+-]*$`)},
		{"plainTag", plainTag, regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.-]*$`)},
	} {
		for i := range 256 {
			for _, s := range []string{"", string([]byte{byte(i)}), string([]byte{'a', byte(i)}), string([]byte{'a', byte(i), 'a'})} {
				if test.word.has(s) != test.want.MatchString(s) {
					t.Errorf("%s: %q: %t", test.name, s, test.word.has(s))
				}
			}
		}
	}
}

func TestLists(t *testing.T) {
	for _, list := range [][]string{{}, {"daily"}, {"daily", "manual:x", "a, b", `"]`}} {
		var p Pairs
		p.SetList("tags", list)
		q, err := Parse(p.Bytes())
		if err != nil || !slices.Equal(q.List("tags"), list) {
			t.Errorf("%q came back as %q, %v from %s", list, q.List("tags"), err, p.Bytes())
		}
	}
	var p Pairs
	p.SetList("tags", []string{"daily", "manual:x"})
	if got, want := string(p.Bytes()), "tags: [daily, \"manual:x\"]\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{
		"a: b", "a\n", "a:b\n", "\n", "a: b\n\n", "# x\n", "A: b\n", "a: b\na: c\n", "a: b c\n", "a: \"b\n", "a: [b\n", "a: [b,c]\n", "a: [b c]\n", "a: \n", " a: b\n", "a: b\r\n",
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := Parse(make([]byte, MaxSize+1)); err == nil {
		t.Error("more than MaxSize was taken")
	}
}

func TestUnknownKeysStay(t *testing.T) {
	p, err := Parse([]byte("tags: [daily]\nfuture: \"a b\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	p.SetList("tags", []string{"weekly"})
	if got, want := string(p.Bytes()), "tags: [weekly]\nfuture: \"a b\"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if got := string(p.Without("tags").Bytes()); got != "future: \"a b\"\n" {
		t.Errorf("got %s", got)
	}
}

// FuzzParse: what is accepted is given back to the byte.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "format: 1\n", "tags: [daily, \"manual:x\"]\n", "a: \"b\\n\"\n", "a: [\"\\x41\"]\n", "a: b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err == nil && !bytes.Equal(p.Bytes(), text) {
			t.Errorf("%q came back as %q", text, p.Bytes())
		}
	})
}

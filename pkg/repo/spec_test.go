package repo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// past is a history of five revisions, at noon from the 16th on, the last of them an hour before another:
//
//	a aaaa… 16th  daily, weekly            verified
//	b bbbb… 17th  daily                    trusted
//	c cccc… 18th  daily, manual:a&b        distrusted
//	d dddd… 20th  weekly                   trusted
//	e eeee… 20th  13:00, no readable state
func past() []Revision {
	noon := time.Date(2026, 11, 16, 12, 0, 0, 123456000, time.Local)
	revision := func(letter string, days, hours int, trust string, tags ...string) Revision {
		return Revision{ID: strings.Repeat(letter, 22), Time: noon.AddDate(0, 0, days).Add(time.Duration(hours) * time.Hour).UTC(), State: State{Trust: trust, Tags: tags}}
	}
	list := []Revision{
		revision("a", 0, 0, Verified, "daily", "weekly"),
		revision("b", 1, 0, Trusted, "daily"),
		revision("c", 2, 0, Distrusted, "daily", "manual:a&b"),
		revision("d", 4, 0, Trusted, "weekly"),
		revision("e", 4, 1, ""),
	}
	list[4].StateErr = errors.New("cut off")
	return list
}

func letters1(list []Revision) string {
	var s strings.Builder
	for _, r := range list {
		s.WriteString(r.ID[:1])
	}
	return s.String()
}

func TestSelect(t *testing.T) {
	for spec, want := range map[string]string{
		// Single ones.
		"0": "e", "4": "a", "last": "e", "latest": "e", "first": "a",
		"cccccccccccccccccccccc": "c", "cccc": "c",
		"daily": "c", "weekly": "d", "manual:a&b": "c", `"manual:a&b"`: "c",
		"2026-11-17": "b", "2026-11-19": "c", "2026-11-20": "e", "2026-11-20 12:00": "d", "2026-11-20T12:59": "d",
		"2026-11-20 12:00:00": "d", "2026-11-20 11:59:59": "c", "2026-11-20T12:00:00.123": "c", "2026-11-20T12:00:00.123456": "d",
		" last ": "e",
		// Sets.
		"all": "abcde", "clean": "abcde", "local": "abcde", "remote": "",
		"server:": "abcde", "server:other": "",
		"tag:daily": "abc", "tag:dail": "", `tag:"manual:a&b"`: "c",
		"trust:trusted": "bd", "trust:VERIFIED": "a", "trust:distrusted": "c", "trust:unknown": "e",
		// Ranges have both ends, in either order; a date is the whole day.
		"2..1": "cd", "1..2": "cd", "first..last": "abcde", "..": "abcde", "3..": "bcde", "..3": "ab",
		"2026-11-17..2026-11-18": "bc", "2026-11-18..2026-11-17": "bc", "2026-11-19..": "de", "..2026-11-19": "abc",
		"2026-11-20..2026-11-20": "de", "2026-11-21..": "", "..2026-11-15": "", "2026-11-19..2026-11-19": "",
		"2026-11-17 13:00..last": "cde", "bbbb..2026-11-19": "bc", "weekly..daily": "cd", "first(tag:daily)..last(tag:daily)": "abc",
		"(3)..(1)": "bcd", "0..0": "e",
		// Operators, from what binds most to what binds least.
		"tag:daily&trust:trusted": "b", "tag:daily & tag:weekly": "a", "reverse(all)&tag:daily": "cba",
		"0,1,0": "ed", "last, first": "ea", "tag:weekly,tag:daily": "adbc", "all&tag:daily,0": "abce", "0,1..3&tag:daily": "ebc", "(0,1..3)&not(tag:daily)": "ed",
		// Functions.
		"first(all)": "a", "last(tag:daily)": "c", "not(tag:daily)": "de", "not(not(0))": "e", "reverse(tag:daily)": "cba",
		"first(reverse(all))": "e", "last(0,1)": "d", "not(first..last)": "", "reverse(remote)": "",
	} {
		got, err := Select(past(), spec)
		if err != nil || letters1(got) != want {
			t.Errorf("%s: %s, %v; want %s", spec, letters1(got), err, want)
		}
	}
}

func TestSelectErrors(t *testing.T) {
	for spec, want := range map[string]string{
		"":                        "a revision is missing before the end",
		"5":                       "there are 5, so 5 back is too far",
		"-1":                      "negative",
		"nothing":                 `"nothing" names none`,
		"ccc":                     `"ccc" names none`,
		"2026-11-15":              "from before 2026-11-15",
		"trust:bad":               "there are: trusted, verified, distrusted, unknown",
		"newest(all)":             `"newest" is no function; there are: first, last, not, reverse`,
		"first(remote)":           "first of none",
		"first()":                 `a revision is missing before ")"`,
		"(all":                    "a ) is missing before the end",
		"all)":                    `did not expect ")"`,
		"all,":                    "a revision is missing before the end",
		"&all":                    `a revision is missing before "&"`,
		"all last(0)":             `"all last" is no function`,
		"(0)(1)":                  `did not expect "("`,
		"0..1..2":                 `did not expect ".."`,
		"tag:daily..":             "tag:daily is 3 revisions, and one is wanted at the end of a range",
		"..tag:none":              "tag:none, at the end of a range, is none",
		`tag:"x`:                  "a quote is open",
		strings.Repeat("(", 60):   "more than 50 parentheses",
		strings.Repeat("x", 5000): "5000 bytes are too long",
	} {
		got, err := Select(past(), spec)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %s, %v; want %q", spec, letters1(got), err, want)
		}
		if mistake := (*SpecError)(nil); errors.As(err, &mistake) == errors.Is(err, ErrNoRevision) {
			t.Errorf("%.60s: %v is to be either a mistake in the words or of no revision", spec, err)
		}
	}
}

// Between is what -f and -u mean: one name on each side.
func TestBetween(t *testing.T) {
	for _, c := range []struct{ from, until, want string }{
		{"", "", "abcde"}, {"3", "", "bcde"}, {"", "2026-11-17", "ab"}, {"bbbb", "last(tag:daily)", "bc"},
	} {
		got, err := Between(past(), c.from, c.until)
		if err != nil || letters1(got) != c.want {
			t.Errorf("%s to %s: %s, %v; want %s", c.from, c.until, letters1(got), err, c.want)
		}
	}
	if _, err := Between(past(), "0,1", ""); err == nil {
		t.Error("two names on one side are taken")
	}
}

// Where one revision is wanted, a set has to have one; the error of one that is not there says what there is.
func TestFindOne(t *testing.T) {
	j := newJob(t)
	if _, err := j.Find("last"); !errors.Is(err, ErrNoRevision) || !strings.Contains(err.Error(), "vm1 has none yet") {
		t.Error(err)
	}
	r, err := backup(t, j, "", content{"a"}, WriterOptions{}, nil)
	must(t, r, err)
	if got, err := j.Find("tag:daily"); err != nil || got.ID != r.ID {
		t.Errorf("%v, %v", got.ID, err)
	}
	_, err = j.Find("monthly")
	if want := fmt.Sprintf(`no such revision: "monthly" names none in vm1, which has revisions 0 (the newest, %s) to 0 back, and tags daily; `, r.ID); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v; want %s", err, want)
	}
	r, err = backup(t, j, "", content{"b"}, WriterOptions{}, nil)
	must(t, r, err)
	_, err = j.Find("tag:daily")
	if mistake := (*SpecError)(nil); !errors.As(err, &mistake) || mistake.ExitCode() != 2 {
		t.Error(err)
	}
}

// A day of the change from summer time has 25 hours, and all of them are that date's.
func TestDateIsAWholeDay(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	for date, hours := range map[string]int{"2026-10-25": 25, "2026-03-29": 23, "2026-11-21": 24} {
		a, b, ok := parseDate(date, berlin)
		if got := b.Sub(a).Round(time.Second); !ok || got != time.Duration(hours)*time.Hour {
			t.Errorf("%s has %s", date, got)
		}
	}
}

// naive evaluates sets of a few letters as a person would, on paper.
type naive struct {
	spec string
	want []int
}

// Random expressions, built together with what they have to be.
func TestSelectAgainstNaive(t *testing.T) {
	list := past()
	random := rand.New(rand.NewPCG(1, 2))
	var build func(depth int) naive
	build = func(depth int) naive {
		if depth == 0 {
			a, b := random.IntN(len(list)), random.IntN(len(list))
			n := naive{spec: fmt.Sprintf("(%d..%d)", len(list)-1-a, len(list)-1-b)}
			for i := min(a, b); i <= max(a, b); i++ {
				n.want = append(n.want, i)
			}
			return n
		}
		x, y := build(depth-1), build(random.IntN(depth))
		switch random.IntN(4) {
		case 0:
			for _, i := range y.want {
				if !slices.Contains(x.want, i) {
					x.want = append(x.want, i)
				}
			}
			return naive{"(" + x.spec + "," + y.spec + ")", x.want}
		case 1:
			return naive{"(" + x.spec + "&" + y.spec + ")", slices.DeleteFunc(slices.Clone(x.want), func(i int) bool { return !slices.Contains(y.want, i) })}
		case 2:
			n := naive{spec: "not(" + x.spec + ")"}
			for i := range list {
				if !slices.Contains(x.want, i) {
					n.want = append(n.want, i)
				}
			}
			return n
		}
		slices.Reverse(x.want)
		return naive{"reverse(" + x.spec + ")", x.want}
	}
	for range 2000 {
		n := build(1 + random.IntN(5))
		var want []Revision
		for _, i := range n.want {
			want = append(want, list[i])
		}
		if got, err := Select(list, n.spec); err != nil || letters1(got) != letters1(want) {
			t.Fatalf("%s: %s, %v; want %s", n.spec, letters1(got), err, letters1(want))
		}
	}
}

// What parses is written so that it parses to the same, and means the same.
func FuzzSpec(f *testing.F) {
	for _, spec := range []string{"0", "last", "tag:daily&trust:trusted", "1..2,reverse(not(all))", `"manual:a&b"`, "2026-11-17 10:00..", "..", `""`, "a...b", "(a,b)&c..(d)", "(..)..first(0,1)"} {
		f.Add(spec)
	}
	list := past()
	f.Fuzz(func(t *testing.T, spec string) {
		e, err := parse(spec)
		if err != nil {
			return
		}
		text := e.String()
		if len(text) > maxSpec {
			return // quotes and parentheses may be added
		}
		again, err := parse(text)
		if err != nil || again.String() != text {
			t.Fatalf("%q became %q, which became %v, %v", spec, text, again, err)
		}
		h := &history{list, time.Local}
		a, errA := e.eval(h)
		b, errB := again.eval(h)
		if !slices.Equal(a, b) || (errA == nil) != (errB == nil) {
			t.Fatalf("%q is %v, %v, but %q is %v, %v", spec, a, errA, text, b, errB)
		}
		for i, at := range a {
			if at < 0 || at >= len(list) || slices.Contains(a[:i], at) {
				t.Fatalf("%q is %v", spec, a)
			}
		}
	})
}

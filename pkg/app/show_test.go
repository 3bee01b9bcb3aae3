package app

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"backy/pkg/event"
)

func TestTable(t *testing.T) {
	table := Table{Columns: []Column{{Title: "Date (Europe/Berlin)"}, {Title: "ID"}, {Title: "Size", Right: true}, {Title: "Last\nTags"}}}
	table.Row("2015-11-04 20:09:32", "46mWHmKy2XP3TQwrjbnd9F", "10.0 GiB", "weekly,daily")
	table.Row("2015-11-05 06:15:09", "ECHtbbhrDUFaenAyZmgHSF", "149.3 MiB")
	want := `
┏━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━┓
┃                      ┃                        ┃           ┃ Last         ┃
┃ Date (Europe/Berlin) ┃ ID                     ┃      Size ┃ Tags         ┃
┡━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━┩
│ 2015-11-04 20:09:32  │ 46mWHmKy2XP3TQwrjbnd9F │  10.0 GiB │ weekly,daily │
│ 2015-11-05 06:15:09  │ ECHtbbhrDUFaenAyZmgHSF │ 149.3 MiB │              │
└──────────────────────┴────────────────────────┴───────────┴──────────────┘
`
	var out strings.Builder
	if _, err := table.WriteTo(&out); err != nil || "\n"+out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 10 << 30: "10.0 GiB",
		156552397: "149.3 MiB", 15 << 40: "15.0 TiB", math.MaxInt64: "8.0 EiB", -2048: "-2.0 KiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds", 400 * time.Millisecond: "0 seconds", time.Second: "a second", 24 * time.Second: "24 seconds", 61 * time.Second: "a minute",
		150 * time.Second: "2 minutes", 2 * time.Hour: "2 hours", time.Hour: "an hour", 30 * time.Hour: "a day", 80 * time.Hour: "3 days",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4194304": 4 << 20, "4M": 4 << 20, "4m": 4 << 20, "4MiB": 4 << 20, "4 MiB": 4 << 20, "4MB": 4 << 20, "1.5G": 3 << 29, "15T": 15 << 40,
		"512B": 512, "7e": 7 << 60, "9223372036854775807": math.MaxInt64,
		"": -1, "G": -1, "4iB": -1, "-1": -1, "+1": -1, "1e3": -1, "0x10": -1, "NaN": -1, "Inf": -1, "8E": -1, "9223372036854775808": -1, "4 M M": -1, "1_000": -1,
	} {
		got, err := ParseSize(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestParseFraction(t *testing.T) {
	for text, want := range map[string]float64{"1%": 0.01, "0": 0, "0.5": 0.5, "100 %": 1, "1": 1, "": -1, "2": -1, "101%": -1, "-1%": -1, "NaN": -1, "x": -1} {
		got, err := ParseFraction(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %g, %v; want %g", text, got, err, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"4MiB", "1.5G", "15t", "", "9223372036854775807", "ib", "0.0000001k"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := ParseSize(text); err == nil && n < 0 {
			t.Errorf("%q is %d", text, n)
		}
	})
}

// terminal is a screen of so many columns that remembers what was written to it.
func terminal(columns int) (*screen, *bytes.Buffer) {
	var out bytes.Buffer
	return &screen{w: &out, width: func() int { return columns }}, &out
}

func TestProgressBar(t *testing.T) {
	s, out := terminal(101)
	now := noon
	b := s.bar(true, func() time.Time { return now })
	b.show(event.Event{Stage: "store", Kind: event.Progress, Stored: 1 << 20}) // before anyone knows how much there is
	if out.Len() > 0 {
		t.Errorf("too early: %q", out)
	}
	for i := range int64(5) {
		now = now.Add(time.Second)
		b.show(event.Event{Stage: "read", Kind: event.Progress, Done: i << 30, Total: 8 << 30, Read: i << 20})
		b.show(event.Event{Stage: "chunk", Kind: event.Progress, Changed: 300 << 20})
		b.show(event.Event{Stage: "store", Kind: event.Progress, Stored: 120 << 20})
	}
	want := "━━━━━━━━━━━━━━━───────────────  " // half of 30
	if got := b.line(140); got != want+" 50 %  4.0 GiB of 8.0 GiB  300.0 MiB changed  120.0 MiB stored  1.0 GiB/s  ETA 0:04" {
		t.Errorf("got %s", got)
	}
	for columns := range 140 {
		if got := b.line(columns); utf8.RuneCountInString(got) > columns {
			t.Errorf("more than %d columns: %s", columns, got)
		}
	}
	if got := b.line(30); got != " 50 %  4.0 GiB of 8.0 GiB" {
		t.Errorf("narrow: %s", got)
	}

	out.Reset()
	s.Write([]byte("backy-read: warning: words\n"))
	if got := out.String(); !strings.HasPrefix(got, "\r\x1b[Kbacky-read: warning: words\n\r\x1b[K") || !strings.Contains(got, " 50 %") {
		t.Errorf("words above the bar: %q", got)
	}
	out.Reset()
	s.clear()
	s.clear()
	if got := out.String(); got != "\r\x1b[K" {
		t.Errorf("clear: %q", got)
	}

	b.show(event.Event{Stage: "read", Kind: event.Started}) // once more
	b.show(event.Event{Stage: "read", Kind: event.Progress, Done: 1 << 30, Total: 8 << 30})
	if got := b.line(140); !strings.Contains(got, " 12 %") || strings.Contains(got, "ETA") {
		t.Errorf("after a new start: %s", got)
	}
}

func TestNoBarWhereThereIsNoTerminal(t *testing.T) {
	s := &screen{w: new(bytes.Buffer)}
	if s.bar(true, time.Now) != nil {
		t.Error("no terminal, but a bar")
	}
	if s, _ := terminal(80); s.bar(false, time.Now) != nil {
		t.Error("not wanted, but a bar")
	}
	if newEvents("backy-read", "T", nil, nil, time.Now) != nil {
		t.Error("nobody listens, but there is a writer")
	}
}

func TestClockTime(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0:00", 7 * time.Second: "0:07", 754 * time.Second: "12:34", 3723 * time.Second: "1:02:03"} {
		if got := clockTime(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

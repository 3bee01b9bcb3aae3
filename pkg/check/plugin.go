package check

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a plugin writes has to fit into what monitoring systems take: 8 KiB, or 4 KiB where it goes through an agent.
const (
	maxSummary = 1024 // bytes
	maxFigures = 2048
	maxDetails = 4096
)

// Plugin is the verdict as the Monitoring Plugins Development Guidelines want it: one line with the state, a summary and
// figures,
//
//	CRITICAL: 1 of 9 jobs late: vm1 (3d 2h, SLA 1d 12h) | 'jobs'=9;;;0; ...
//
// and, with details, a line for each finding after it, up to 4 KiB. With each, the figures have the age of each job, as far
// as there is room.
func (v Verdict) Plugin(details, each bool) string {
	var b strings.Builder
	b.WriteString(v.Level.String() + ": " + clip(plain(v.Summary), maxSummary) + " | " + v.figures(each) + "\n")
	if !details {
		return b.String()
	}
	end := b.Len() + maxDetails
	for i, f := range v.Findings {
		line := clip(plain(f.String()), maxSummary) + "\n"
		if b.Len()+len(line) > end {
			fmt.Fprintf(&b, "and %d lines more: see --json\n", len(v.Findings)-i)
			break
		}
		b.WriteString(line)
	}
	return b.String()
}

// figures are the performance data.
func (v Verdict) figures(each bool) string {
	f := v.Facts
	worst, never, distrusted := 0.0, 0, 0
	for _, j := range f.Jobs {
		worst = max(worst, j.Share())
		distrusted += j.Distrusted
		if j.Never && !j.Blind {
			never++
		}
	}
	items := []string{"'age'=" + figure(math.Round(worst*10)/10) + "%;" + v.Limits.Warning.String() + ";" + v.Limits.Critical.String() + ";0;"}
	for _, n := range []struct {
		label string
		n     int
	}{{"jobs", len(f.Jobs)}, {"late", v.Late}, {"near", v.Near}, {"never", never}, {"distrusted", distrusted}, {"reports", f.Reports}, {"bad", f.Bad}, {"broken", f.Broken}} {
		items = append(items, fmt.Sprintf("'%s'=%d;;;0;", n.label, n.n))
	}
	line := strings.Join(items, " ")
	if !each {
		return line
	}
	for _, j := range f.Jobs {
		item := " " + label("age_"+j.Name) + "=" + figure(math.Round(j.Age.Seconds())) + "s"
		if j.Limit > 0 {
			factor := j.Limit.Seconds() / 100
			item += ";" + v.Limits.Warning.times(factor).String() + ";" + v.Limits.Critical.times(factor).String() + ";0;"
		}
		if len(line)+len(item) > maxFigures {
			break
		}
		line += item
	}
	return line
}

// label quotes the label of a figure, which can have neither an equals sign nor, but doubled, a quote.
func label(name string) string {
	return "'" + strings.NewReplacer("=", "_", "'", "''").Replace(plain(name)) + "'"
}

// plain is a text in which nothing means anything to a monitoring system: a bar would begin the figures, and a newline the
// details.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '|':
			return '¦'
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// clip shortens a text to so many bytes.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = text[:most-len("…")]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + "…"
}

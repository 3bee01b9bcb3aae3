package check

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Range is a threshold as monitoring plugins have it: where a value may lie.
type Range struct {
	Start, End float64 // both included; infinite where there is no bound
	Inside     bool    // the other way round: where it may not lie
}

// ParseRange reads a range: "80" is 0 to 80, "10:80" 10 to 80, "10:" 10 or more, "~:80" 80 or less, and "@10:80" all but
// 10 to 80. A percent sign may follow a number. See the Monitoring Plugins Development Guidelines, Threshold and Ranges.
func ParseRange(text string) (Range, error) {
	bad := func(why string) (Range, error) {
		return Range{}, fmt.Errorf("%.40q is no range: %s; want one as in 80, 10:80, 10:, ~:80 or @10:80", text, why)
	}
	var r Range
	rest, inside := strings.CutPrefix(text, "@")
	r.Inside = inside
	start, end, two := strings.Cut(rest, ":")
	if !two {
		start, end = "0", rest
		if end == "" {
			return bad("there is no number")
		}
	}
	var err error
	switch {
	case start == "~":
		r.Start = math.Inf(-1)
	default:
		if r.Start, err = number(start); err != nil {
			return bad(err.Error())
		}
	}
	switch {
	case end == "":
		r.End = math.Inf(1)
	default:
		if r.End, err = number(end); err != nil {
			return bad(err.Error())
		}
	}
	if r.Start > r.End {
		return bad("it ends before it begins")
	}
	return r, nil
}

func number(text string) (float64, error) {
	digits := strings.TrimSuffix(text, "%")
	if digits == "" || strings.Trim(digits, "0123456789.-") != "" {
		return 0, fmt.Errorf("%.20q is no number", text)
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, errors.New("a number is not understood")
	}
	return n, nil
}

// Alerts reports whether a value lies where it may not.
func (r Range) Alerts(value float64) bool {
	in := value >= r.Start && value <= r.End
	return in == r.Inside
}

// String is what ParseRange reads.
func (r Range) String() string {
	var b strings.Builder
	if r.Inside {
		b.WriteByte('@')
	}
	switch {
	case math.IsInf(r.Start, -1):
		b.WriteString("~:")
	case r.Start != 0 || math.IsInf(r.End, 1):
		b.WriteString(figure(r.Start) + ":")
	}
	if !math.IsInf(r.End, 1) {
		b.WriteString(figure(r.End))
	}
	return b.String()
}

// times is the range with its bounds multiplied, and rounded.
func (r Range) times(factor float64) Range {
	return Range{math.Round(r.Start * factor), math.Round(r.End * factor), r.Inside}
}

// figure writes a number as plugins do: with digits, and a point.
func figure(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

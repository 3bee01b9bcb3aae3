package schedule

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Units of a duration. All have a fixed length: a day is 24 hours, whatever a summer time does to a calendar's.
const (
	Day  = 24 * time.Hour
	Week = 7 * Day
)

var units = []struct {
	letter string
	length time.Duration
}{{"w", Week}, {"d", Day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

// ParseDuration reads a whole number with one of the suffixes s, m, h, d and w; without one it is seconds.
func ParseDuration(text string) (time.Duration, error) {
	number, unit := text, time.Second
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.letter); ok {
			number, unit = n, u.length
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || strings.HasPrefix(number, "+") {
		return 0, fmt.Errorf("%.40q is no duration: want a whole number with one of s, m, h, d, w, as in 30m or 1d", text)
	}
	if n > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("%.40q is too long for a duration: at most %s", text, FormatDuration(math.MaxInt64/Week*Week))
	}
	return time.Duration(n) * unit, nil
}

// FormatDuration writes what ParseDuration reads, in the largest unit that divides it; parts of a second are left out.
func FormatDuration(d time.Duration) string {
	d = d.Truncate(time.Second)
	for _, u := range units {
		if d != 0 && d%u.length == 0 {
			return strconv.FormatInt(int64(d/u.length), 10) + u.letter
		}
	}
	return "0s"
}

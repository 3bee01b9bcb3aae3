package app

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

var units = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// Bytes is a number of bytes for people: "0 B", "512 B", "149.3 MiB", "10.0 GiB".
func Bytes(n int64) string {
	if n > -1024 && n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for math.Abs(math.Round(f*10)/10) >= 1024 && unit+1 < len(units) { // 1023.95 KiB is 1.0 MiB
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %s", f, units[unit])
}

// Duration is a duration for people, with the precision that they ask for: "0 seconds", "a second", "24 seconds",
// "a minute", "2 minutes", "an hour", "5 hours", "3 days".
func Duration(d time.Duration) string {
	seconds := int64(d.Round(time.Second) / time.Second)
	for _, u := range []struct {
		length    int64
		one, many string
	}{{86400, "a day", "days"}, {3600, "an hour", "hours"}, {60, "a minute", "minutes"}, {1, "a second", "seconds"}} {
		switch n := seconds / u.length; {
		case n == 1:
			return u.one
		case n > 1:
			return fmt.Sprintf("%d %s", n, u.many)
		}
	}
	return "0 seconds"
}

// Zone is the name of the local time zone as people know it, "Europe/Berlin", for the head of a column of times.
func Zone() string {
	name := time.Local.String()
	if name != "Local" && name != "" {
		return name
	}
	if target, err := filepath.EvalSymlinks("/etc/localtime"); err == nil {
		if _, zone, ok := strings.Cut(target, "/zoneinfo/"); ok {
			return zone
		}
	}
	if tz := os.Getenv("TZ"); tz != "" {
		return tz
	}
	return "local time"
}

// ParseSize reads a number of bytes: "4194304", "4M", "4 MiB", "1.5G". The letters are powers of 1024, in either case,
// with or without "iB".
func ParseSize(text string) (int64, error) {
	unit := 0
	low := strings.ToLower(strings.TrimSpace(text))
	low = strings.TrimSuffix(strings.TrimSuffix(low, "b"), "i")
	if low != "" {
		if i := strings.IndexByte("kmgtpe", low[len(low)-1]); i >= 0 {
			low, unit = low[:len(low)-1], i+1
		} else if strings.HasSuffix(strings.ToLower(text), "ib") {
			low = "" // "4iB"
		}
	}
	number := strings.TrimSpace(low)
	bad := fmt.Errorf("%q is no size: want bytes, as in 4194304, 4MiB or 1.5G", text)
	if strings.Trim(number, "0123456789.") != "" {
		return 0, bad
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n <= math.MaxInt64>>(10*unit) {
		return n << (10 * unit), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	f *= math.Pow(1024, float64(unit))
	if err != nil || f >= math.MaxInt64 {
		return 0, bad
	}
	return int64(f), nil
}

// ParseFraction reads a part of a whole, from 0 to 1: "1%", "0.01".
func ParseFraction(text string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) {
		return 0, fmt.Errorf("%q is no part of a whole: want 0%% to 100%%, or 0 to 1", text)
	}
	return f, nil
}

// SizeFlag is a flag whose value ParseSize reads; Context.Size gives it. def is the default as text, or "".
func SizeFlag(name, def, usage string, aliases ...string) cli.Flag {
	return checked(name, def, usage, aliases, func(s string) error { _, err := ParseSize(s); return err })
}

// FractionFlag is a flag whose value ParseFraction reads; Context.Fraction gives it. def is the default as text, or "".
func FractionFlag(name, def, usage string, aliases ...string) cli.Flag {
	return checked(name, def, usage, aliases, func(s string) error { _, err := ParseFraction(s); return err })
}

func checked(name, def, usage string, aliases []string, check func(string) error) cli.Flag {
	return &cli.StringFlag{Name: name, Aliases: aliases, Value: def, Usage: usage, Action: func(_ *cli.Context, s string) error {
		if err := check(s); err != nil {
			return Usagef("--%s: %w", name, err)
		}
		return nil
	}}
}

// Size is the value of a SizeFlag, in bytes; 0 if it has none.
func (c *Context) Size(name string) int64 {
	n, _ := ParseSize(c.String(name)) // was read before the Action was called
	return n
}

// Fraction is the value of a FractionFlag, 0 to 1; 0 if it has none.
func (c *Context) Fraction(name string) float64 {
	f, _ := ParseFraction(c.String(name)) // as above
	return f
}

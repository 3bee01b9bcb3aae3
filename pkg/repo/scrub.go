package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"backy/pkg/keyval"
	"backy/pkg/object/dir"
)

// ScrubUnit is a prefix of the name space, in units of a ScrubCursor's position.
const ScrubUnit = 1e12

// ScrubRound is once around the name space.
const ScrubRound = dir.Prefixes * ScrubUnit

// ScrubCursor is how far scrubs have gone round the name space, and when each of its prefixes was last read as a whole.
type ScrubCursor struct {
	Position int64                   // where the next run begins, 0 to ScrubRound
	Verified [dir.Prefixes]time.Time // zero where it never was
}

// Advance is where a run that reads a share (0 to 1) begins and ends, as prefixes: first, and how many, around the end of
// the name space if need be; and the position after it. N runs of a share of 1/N (give or take half a percent of it) read
// each prefix exactly once.
func (c *ScrubCursor) Advance(share float64) (first, count int, after int64) {
	if share >= 1 {
		return c.prefix(c.Position) % dir.Prefixes, dir.Prefixes, c.Position
	}
	step := int64(math.Round(ScrubRound * share))
	if n := math.Round(1 / share); math.Abs(share*n-1) < 0.005 {
		step = int64(math.Round(ScrubRound / n))
	}
	end := c.Position + max(1, step)
	first, count = c.prefix(c.Position), c.prefix(end)-c.prefix(c.Position)
	return first % dir.Prefixes, count, end % ScrubRound
}

// prefix is the first prefix that begins at or after a position. What rounding has made of the position does not count.
func (c *ScrubCursor) prefix(position int64) int {
	const rounding = ScrubUnit / 1e6
	return int((position - rounding + ScrubUnit - 1) / ScrubUnit)
}

// Oldest is when the prefix was read whose last time is longest ago; zero where one never was.
func (c *ScrubCursor) Oldest() time.Time {
	oldest := c.Verified[0]
	for _, t := range c.Verified {
		if t.Before(oldest) {
			oldest = t
		}
	}
	return oldest
}

const never = "never"

// ScrubCursor reads the cursor; where there is none, one that stands at the beginning.
func (r *Repo) ScrubCursor() (*ScrubCursor, error) {
	c := &ScrubCursor{}
	text, err := readSmall(r.path("scrub"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the cursor of scrubs: %w", err)
	}
	if err := c.parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it to begin anew", r.path("scrub"), err)
	}
	return c, nil
}

func (c *ScrubCursor) parse(text []byte) error {
	p, err := keyval.Parse(text)
	if err != nil {
		return err
	}
	if p.Get("format") != "1" {
		return fmt.Errorf("format %q is not known to this version of backy", p.Get("format"))
	}
	if c.Position, err = p.Int("position"); err != nil || c.Position >= ScrubRound {
		return fmt.Errorf("position: %q is none", p.Get("position"))
	}
	at := time.Time{}
	for i := range c.Verified {
		if value := p.Get(fromPrefix(i)); value == never {
			at = time.Time{}
		} else if value != "" {
			if at, err = time.Parse(time.RFC3339, value); err != nil {
				return fmt.Errorf("%s: %w", fromPrefix(i), err)
			}
		}
		c.Verified[i] = at
	}
	return nil
}

func fromPrefix(i int) string { return fmt.Sprintf("from-%03x", i) }

// Bytes is the text of the cursor: a line for each run of prefixes that were read at the same time.
func (c *ScrubCursor) Bytes() []byte {
	var p keyval.Pairs
	p.SetInt("format", 1)
	p.SetInt("position", c.Position)
	for i, t := range c.Verified {
		switch {
		case i > 0 && t.Equal(c.Verified[i-1]):
		case t.IsZero():
			p.Set(fromPrefix(i), never)
		default:
			p.Set(fromPrefix(i), t.UTC().Format(time.RFC3339))
		}
	}
	return p.Bytes()
}

// SaveScrubCursor replaces the cursor. Who does that holds LockScrub.
func (r *Repo) SaveScrubCursor(c *ScrubCursor) error {
	temp := r.path("tmp", "scrub")
	_ = os.Remove(temp) // of a scrub that was killed
	err := r.Ops.WriteFile(temp, c.Bytes(), 0o640)
	if err == nil {
		err = os.Rename(temp, r.path("scrub"))
	}
	if err == nil {
		err = r.Ops.DirPath(r.path())
	}
	if err != nil {
		return fmt.Errorf("save the cursor of scrubs: %w", err)
	}
	return nil
}

// LockScrub takes the lock of who moves the cursor, or fails with a *HeldError.
func (r *Repo) LockScrub() (*Lock, error) { return r.lock("scrub", "the scrub of "+r.Base) }

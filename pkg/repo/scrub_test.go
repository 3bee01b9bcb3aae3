package repo

import (
	"bytes"
	"testing"
	"time"

	"backy/pkg/object/dir"
)

// N runs of 1/N bring the cursor exactly round, from wherever they begin: each prefix is in one of them.
func TestScrubCursorComesExactlyRound(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 12, 30, 31, 100, 365, 1000} {
		for _, start := range []int64{0, 1, ScrubUnit, ScrubUnit*77 + 123456789, ScrubRound - 1} {
			for _, share := range []float64{1 / float64(n), float64(int(1e6/float64(n))) / 1e6} {
				c := &ScrubCursor{Position: start}
				var seen [dir.Prefixes]int
				for range n {
					first, count, after := c.Advance(share)
					for i := range count {
						seen[(first+i)%dir.Prefixes]++
					}
					c.Position = after
				}
				for i, times := range seen {
					if times != 1 {
						t.Fatalf("%d runs of %v from %d: prefix %03x was read %d times", n, share, start, i, times)
					}
				}
			}
		}
	}
}

// A share that does not divide the whole goes on where the last run ended, past the end of the name space.
func TestScrubCursorGoesOn(t *testing.T) {
	c := &ScrubCursor{}
	total, next := 0, 0
	for range 20 {
		first, count, after := c.Advance(0.15)
		if first != next%dir.Prefixes {
			t.Fatalf("begins at %d, want %d", first, next)
		}
		next, total, c.Position = first+count, total+count, after
	}
	if total != 3*dir.Prefixes {
		t.Errorf("20 runs of 15 %% read %d prefixes, want three rounds", total)
	}
}

func TestScrubCursorText(t *testing.T) {
	c := &ScrubCursor{Position: 1365333333333333}
	day := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for i := 100; i < 200; i++ {
		c.Verified[i] = day
	}
	if !c.Oldest().IsZero() {
		t.Error("some were never read")
	}
	text := "format: 1\nposition: 1365333333333333\nfrom-000: never\nfrom-064: 2026-11-21T10:00:00Z\nfrom-0c8: never\n"
	if string(c.Bytes()) != text {
		t.Errorf("%s", c.Bytes())
	}
	var back ScrubCursor
	if err := back.parse([]byte(text)); err != nil || back != *c {
		t.Errorf("it is read back as something else: %v", err)
	}
	for i := range c.Verified {
		c.Verified[i] = day.Add(time.Duration(i) * time.Second)
	}
	if !c.Oldest().Equal(day) || len(c.Bytes()) > 1<<20 {
		t.Error("oldest, or length")
	}
	for _, bad := range []string{"", "format: 2\nposition: 0\n", "format: 1\n", "format: 1\nposition: 4096000000000000\n", "format: 1\nposition: 0\nfrom-000: today\n"} {
		if err := new(ScrubCursor).parse([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzScrubCursor(f *testing.F) {
	f.Add((&ScrubCursor{}).Bytes())
	f.Add([]byte("format: 1\nposition: 5\nfrom-001: 2026-11-21T10:00:00Z\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c, again ScrubCursor
		if c.parse(text) != nil {
			return
		}
		if err := again.parse(c.Bytes()); err != nil || !bytes.Equal(again.Bytes(), c.Bytes()) {
			t.Errorf("%q is not read back: %v", c.Bytes(), err)
		}
	})
}

func FuzzMark(f *testing.F) {
	f.Add(Bad{Reason: "hash is 1", Places: []Place{{"vm1", "hY9tT5hrfz69sx2EHE94BG", Range{1, 2}}}, More: 3}.bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parseBad([32]byte{1}, text)
		if err != nil {
			return
		}
		again, err := parseBad([32]byte{1}, b.bytes())
		if err != nil || again.Key != b.Key || len(again.Places) > maxPlaces {
			t.Errorf("%q is not read back: %v", b.bytes(), err)
		}
	})
}

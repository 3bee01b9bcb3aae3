package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Skip(err)
	}
	return z
}

func calendar(t *testing.T, text string, z *time.Location) Calendar {
	t.Helper()
	c, err := ParseCalendar(text, z)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseCalendar(t *testing.T) {
	c := calendar(t, "last=3,hourly=24, daily=7,weekly=4,monthly=12,yearly=2", time.UTC)
	if fmt.Sprint(c.Keep) != "map[daily:7 hourly:24 last:3 monthly:12 weekly:4 yearly:2]" {
		t.Error(c.Keep)
	}
	for text, want := range map[string]string{
		"":                 "is not understood: want some of last, hourly, daily, weekly, monthly, yearly",
		"dayly=3":          `"dayly=3" is not understood`,
		"daily":            "want a number of 1 or more, as in daily=3",
		"daily=":           "want a number",
		"daily=0":          "want a number",
		"daily=-1":         "want a number",
		"daily=+1":         "want a number",
		"daily=1d":         "want a number",
		"daily=1,daily=2":  "daily is there twice",
		"daily=1,":         `"" is not understood`,
		"daily=9999999999": "want a number",
	} {
		if _, err := ParseCalendar(text, time.UTC); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseCalendar(f *testing.F) {
	f.Add("last=3,hourly=24,daily=7,weekly=4,monthly=12,yearly=2")
	f.Add("daily=0")
	f.Add(" daily = 1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCalendar(text, time.UTC)
		if err == nil && len(c.Keep) == 0 {
			t.Errorf("%q keeps nothing", text)
		}
	})
}

// stay are the revisions that stay, newest first.
func stay(t *testing.T, p Policy, now string, list ...string) string {
	t.Helper()
	verdicts, err := p.Expire(revisions(list...), at(now), 0)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, v := range slices.Backward(verdicts) {
		if !v.Goes {
			left = append(left, v.ID)
		}
	}
	return strings.Join(left, ", ")
}

func TestByCalendar(t *testing.T) {
	for _, test := range []struct {
		name, keep string
		list       []string
		want       string
	}{
		{"the newest of each day", "daily=2", []string{"2026-11-21 10:00", "2026-11-21 09:00", "2026-11-20 23:59:59", "2026-11-20 00:00", "2026-11-19 12:00"},
			"2026-11-21 10:00, 2026-11-20 23:59:59"},
		{"days without one do not count", "daily=2", []string{"2026-11-21 10:00", "2026-10-01 09:00", "2026-09-01 09:00"}, "2026-11-21 10:00, 2026-10-01 09:00"},
		{"the last ones, whenever they were", "last=2", []string{"2026-11-21 10:00", "2026-11-21 09:59:59", "2026-11-21 09:00"}, "2026-11-21 10:00, 2026-11-21 09:59:59"},
		{"weeks begin on Monday, also at a year's end", "weekly=2", []string{"2026-01-04 12:00", "2026-01-01 12:00", "2025-12-29 12:00", "2025-12-28 12:00"},
			"2026-01-04 12:00, 2025-12-28 12:00"},
		{"months and years", "monthly=2,yearly=2", []string{"2026-11-21 10:00", "2026-11-01 10:00", "2026-10-31 10:00", "2026-09-30 10:00", "2025-12-31 10:00", "2024-01-01 10:00"},
			"2026-11-21 10:00, 2026-10-31 10:00, 2025-12-31 10:00"},
		{"a distrusted one fills no day", "daily=2", []string{"2026-11-21 10:00", "2026-11-20 23:00 distrusted", "2026-11-20 22:00", "2026-11-19 12:00"},
			"2026-11-21 10:00, 2026-11-20 22:00"},
		{"manual and protected ones", "daily=1", []string{"2026-11-21 10:00", "2026-11-20 10:00 manual:x", "2026-11-19 10:00 daily protected", "2026-11-18 10:00 daily"},
			"2026-11-21 10:00, 2026-11-20 10:00, 2026-11-19 10:00"},
		{"the newest, though distrusted", "last=1", []string{"2026-11-21 10:00 distrusted", "2026-11-20 10:00", "2026-11-19 10:00"}, "2026-11-21 10:00, 2026-11-20 10:00"},
	} {
		if got := stay(t, calendar(t, test.keep, time.UTC), "2026-11-21 10:00", test.list...); got != test.want {
			t.Errorf("%s: %s\nwant %s", test.name, got, test.want)
		}
	}
}

// Days and hours are those of the zone: in Berlin 2026-03-29 has 23 hours and 2026-10-25 has 25, of which two are called 2.
func TestSummerTime(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, test := range []struct {
		name, keep string
		zone       *time.Location
		list       []string
		want       string
	}{
		{"midnight in Berlin", "daily=9", berlin, []string{"2026-11-20 23:30", "2026-11-20 22:30", "2026-11-19 23:30"}, "2026-11-20 23:30, 2026-11-20 22:30"},
		{"the same in UTC", "daily=9", time.UTC, []string{"2026-11-20 23:30", "2026-11-20 22:30", "2026-11-19 23:30"}, "2026-11-20 23:30, 2026-11-19 23:30"},
		{"the hour that comes twice", "hourly=9", berlin, []string{"2026-10-25 01:30", "2026-10-25 01:00", "2026-10-25 00:30", "2026-10-25 00:00"}, "2026-10-25 01:30, 2026-10-25 00:30"},
		{"the hour that is left out", "hourly=9", berlin, []string{"2026-03-29 01:30", "2026-03-29 01:00", "2026-03-29 00:30", "2026-03-29 00:00"}, "2026-03-29 01:30, 2026-03-29 00:30"},
		{"the long day", "daily=9", berlin, []string{"2026-10-25 22:59:59", "2026-10-24 22:00", "2026-10-24 21:59:59"}, "2026-10-25 22:59:59, 2026-10-24 21:59:59"},
		{"the short day", "daily=9", berlin, []string{"2026-03-29 22:00", "2026-03-29 21:59:59", "2026-03-28 23:00", "2026-03-28 22:59:59"}, "2026-03-29 22:00, 2026-03-29 21:59:59, 2026-03-28 22:59:59"},
		{"hours of three quarters", "hourly=9", zone(t, "Asia/Kathmandu"), []string{"2026-11-20 10:20", "2026-11-20 10:15", "2026-11-20 10:14"}, "2026-11-20 10:20, 2026-11-20 10:14"},
	} {
		if got := stay(t, calendar(t, test.keep, test.zone), "2026-11-21 10:00", test.list...); got != test.want {
			t.Errorf("%s: %s\nwant %s", test.name, got, test.want)
		}
	}
}

// Against a model that lists, for each word, the days and so on that have a good revision, and keeps the newest of each.
func TestCalendarAgainstNaiveModel(t *testing.T) {
	zones := []*time.Location{time.UTC, zone(t, "Europe/Berlin"), zone(t, "America/St_Johns"), zone(t, "Pacific/Apia")}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 2))
		now := at("2026-11-02 10:00").Add(time.Duration(r.IntN(400*24)) * time.Hour)
		list := history(r, now)
		c := Calendar{map[string]int{"hourly": r.IntN(6), "daily": r.IntN(6), "weekly": r.IntN(4), "monthly": r.IntN(3), "yearly": r.IntN(3), "last": r.IntN(3)}, zones[r.IntN(4)]}
		kept := map[string]bool{}
		for word, n := range c.Keep {
			newest := map[string]Revision{}
			for i, v := range list {
				local := v.Time.In(c.Zone)
				year, week := local.ISOWeek()
				_, offset := local.Zone()
				key := map[string]string{"last": fmt.Sprint(i), "hourly": fmt.Sprint(local.Date()) + fmt.Sprint(local.Hour(), offset), "daily": fmt.Sprint(local.Date()),
					"weekly": fmt.Sprint(year, week), "monthly": fmt.Sprint(year, local.Month()), "yearly": fmt.Sprint(local.Year())}[word]
				if word == "monthly" {
					key = fmt.Sprint(local.Year(), local.Month())
				}
				if v.Good {
					newest[key] = v
				}
			}
			var all []Revision
			for i := range list {
				for _, v := range newest {
					if v.ID == list[len(list)-1-i].ID {
						all = append(all, v)
					}
				}
			}
			for i, v := range all {
				kept[v.ID] = kept[v.ID] || i < n
			}
		}
		verdicts, err := c.Expire(list, now, 0)
		good := false
		for i, v := range slices.Backward(verdicts) {
			must := kept[v.ID] || !v.Known || v.Protected || slices.ContainsFunc(v.Tags, IsManual) || i == len(list)-1 || v.Good && !good || err != nil
			if good = good || v.Good; v.Goes == must {
				t.Fatalf("seed %d: %v, want it to stay: %t", seed, v, must)
			}
		}
	}
}

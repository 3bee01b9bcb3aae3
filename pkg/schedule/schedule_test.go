package schedule

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// at reads a time in UTC.
func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", text+":00"[:3*(2-strings.Count(text, ":"))])
	if err != nil {
		panic(err)
	}
	return t
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1w": 604800, "2d": 172800, "3h": 10800, "25m": 1500, "10s": 10, "5": 5, "0": 0, "0d": 0,
	} {
		d, err := ParseDuration(text)
		if err != nil || d != want*time.Second {
			t.Errorf("%s: %s, %v, want %d s", text, d, err, want)
		}
	}
	for _, text := range []string{"", "d", "1 d", "-1d", "+1d", "1.5h", "1h30m", "1D", "1y", "0x1s", "99999999999w", "300000w", "9223372036854775808"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %s", text, d)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", Day: "1d", 2 * Week: "2w", 8 * Day: "8d", 90 * time.Minute: "90m", 61 * time.Second: "61s", 36 * time.Hour: "36h", time.Second / 2: "0s", math.MaxInt64: "9223372036s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%d is %s, want %s", d, got, want)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"1w", "2d", "3h", "25m", "10s", "5", "", "-1", "1dd", "15250w"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		if again, err := ParseDuration(FormatDuration(d)); err != nil || again != d || d < 0 {
			t.Errorf("%q is %d, written %s, read %d, %v", text, d, FormatDuration(d), again, err)
		}
	})
}

func TestTags(t *testing.T) {
	s := Schedule{"weekly": {Week, 1}, "daily": {Day, 1}, "monthly": {4 * Week, 1}}
	if got := strings.Join(s.Tags(), " "); got != "daily weekly monthly" {
		t.Errorf("tags %s", got)
	}
	if got := strings.Join(s.Sort([]string{"weekly", "z", "daily", "a"}), " "); got != "a z daily weekly" {
		t.Errorf("sorted %s", got)
	}
	if err := s.Check([]string{"weekly", "manual:x"}); err != nil {
		t.Error(err)
	}
	want := `tag "dail" is not in the job's schedule, which has: daily, weekly, monthly; a tag that begins with manual: is always taken`
	if err := s.Check([]string{"daily", "dail"}); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := Schedule(nil).Check([]string{"what you like"}); err != nil {
		t.Errorf("without a schedule: %v", err)
	}
	for _, r := range []Rule{{0, 1}, {-1, 1}, {Day, 0}, {Day, -1}} {
		if r.Check() == nil {
			t.Errorf("%v is taken", r)
		}
	}
}

func TestDue(t *testing.T) {
	now := at("2026-11-21 03:00")
	good := func(ago time.Duration, tags ...string) Revision {
		return Revision{Time: now.Add(-ago), Tags: tags, Known: true, Good: true}
	}
	bad := good(time.Hour, "daily", "weekly")
	bad.Good = false
	unknown := good(time.Hour, "daily", "weekly")
	unknown.Known = false
	two := Schedule{"daily": {Day, 9}, "weekly": {Week, 5}}
	for _, test := range []struct {
		name      string
		s         Schedule
		revisions []Revision
		due       string
		missed    string
	}{
		{"the first backup", two, nil, "daily weekly", "daily weekly"},
		{"without a schedule", nil, nil, "daily weekly monthly", "daily weekly monthly"},
		{"just now", two, []Revision{good(0, "daily", "weekly")}, "", ""},
		{"last night", two, []Revision{good(Day, "daily", "weekly")}, "daily", "daily"},
		{"last night, a minute later than tonight", two, []Revision{good(Day-time.Minute, "daily", "weekly")}, "daily", ""},
		{"three hours early", two, []Revision{good(21*time.Hour, "daily", "weekly")}, "daily", ""},
		{"more than three hours early", two, []Revision{good(21*time.Hour-1, "daily", "weekly")}, "", ""},
		{"a week ago, nearly", two, []Revision{good(Week-time.Minute, "weekly"), good(Day, "daily")}, "daily weekly", "daily"},
		{"six days ago", two, []Revision{good(6*Day, "weekly"), good(Day, "daily")}, "daily", "daily"},
		{"other tags", two, []Revision{good(time.Hour, "manual:daily", "hourly")}, "daily weekly", "daily weekly"},
		{"distrusted", two, []Revision{bad}, "daily weekly", "daily weekly"},
		{"of unknown state", two, []Revision{unknown}, "daily weekly", "daily weekly"},
		{"a little ahead of the clock", two, []Revision{good(-Ahead, "daily", "weekly")}, "", ""},
		{"far ahead of the clock", two, []Revision{good(-Ahead-1, "daily", "weekly")}, "daily weekly", "daily weekly"},
	} {
		if got := strings.Join(test.s.Due(test.revisions, now), " "); got != test.due {
			t.Errorf("%s: due %q, want %q", test.name, got, test.due)
		}
		if got := strings.Join(test.s.Missed(test.revisions, now), " "); got != test.missed {
			t.Errorf("%s: missed %q, want %q", test.name, got, test.missed)
		}
	}
}

// A job that runs each night by the local clock of a place with summer time gets each tag as often as it should.
func TestDueByNight(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	count := map[string]int{}
	var all []Revision
	for night := range 420 {
		now := time.Date(2026, 1, 1+night, 2, 30, night*7%50, 0, zone)
		tags := Default().Due(all, now)
		for _, tag := range tags {
			count[tag]++
		}
		all = append(all, Revision{Time: now, Tags: tags, Known: true, Good: true})
	}
	if count["daily"] != 420 || count["weekly"] != 60 || count["monthly"] != 14 {
		t.Errorf("tags in 420 nights: %v", count)
	}
	if !slices.Equal(all[30].Tags, []string{"daily", "monthly"}) {
		t.Errorf("after 30 nights: %v", all[30].Tags)
	}
}

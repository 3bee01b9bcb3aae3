package schedule

import (
	"strings"
	"testing"
	"time"
)

func TestTick(t *testing.T) {
	t0 := at("2015-09-01 07:06:47")
	for _, test := range []struct {
		name             string
		now              time.Time
		interval, spread time.Duration
		want             string
	}{
		{"a day, and 100 seconds", t0, Day, 100 * time.Second, "2015-09-02 00:01:40"},
		{"half an hour later", t0.Add(30 * time.Minute), Day, 100 * time.Second, "2015-09-02 00:01:40"},
		{"an hour later", t0.Add(time.Hour), Day, 100 * time.Second, "2015-09-02 00:01:40"},
		{"a little before", at("2015-09-02 00:01:20"), Day, 100 * time.Second, "2015-09-02 00:01:40"},
		{"at the tick it is the next", at("2015-09-02 00:01:40"), Day, 100 * time.Second, "2015-09-03 00:01:40"},
		{"a little after", at("2015-09-02 00:01:41"), Day, 100 * time.Second, "2015-09-03 00:01:40"},
		{"within the second before", at("2015-09-02 00:01:40").Add(-1), Day, 100 * time.Second, "2015-09-02 00:01:40"},
		{"a spread longer than the interval", t0, Day, 10*Day + 100*time.Second, "2015-09-02 00:01:40"},
		{"weeks begin on Monday", t0, Week, 0, "2015-09-07 00:00"},
		{"an hour", t0, time.Hour, 60 * time.Second, "2015-09-01 08:01"},
	} {
		if got := Tick(test.now, test.interval, test.spread); !got.Equal(at(test.want)) {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestNext(t *testing.T) {
	s := Schedule{"daily": {Day, 9}, "weekly": {Week, 5}, "monthly": {4 * Week, 3}}
	for _, test := range []struct{ now, next, tags string }{
		{"2015-09-01 07:06:47", "2015-09-02 00:00:05", "daily"},
		{"2015-09-02 07:06:47", "2015-09-03 00:00:05", "daily"},
		{"2015-09-06 07:06:47", "2015-09-07 00:00:05", "daily weekly"},
	} {
		next, tags := s.Next(at(test.now), 5*time.Second)
		if !next.Equal(at(test.next)) || strings.Join(tags, " ") != test.tags {
			t.Errorf("after %s: %s %v, want %s %s", test.now, next, tags, test.next, test.tags)
		}
	}
}

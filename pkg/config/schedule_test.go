package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"backy/pkg/schedule"
)

func TestRules(t *testing.T) {
	two := schedule.Schedule{"daily": {Interval: schedule.Day, Keep: 9}, "weekly": {Interval: schedule.Week, Keep: 5}}
	for _, test := range []struct {
		name, text string
		rules      schedule.Schedule
		minAge     time.Duration
	}{
		{"a schedule", "schedule: {daily: {interval: 1d, keep: 9}, weekly: {interval: 7d, keep: 5}}\n", two, 0},
		{"in lines", "schedule:\n  daily:\n    interval: 24h\n    keep: 9\n  weekly:\n    interval: '1w'\n    keep: 5\nmin-age: 2d\n", two, 2 * schedule.Day},
		{"one tag", "schedule:\n  daily: {interval: 1d, keep: 9}\n", schedule.Schedule{"daily": two["daily"]}, 0},
		{"seconds", "schedule: {daily: {interval: 86400, keep: 9}, weekly: {interval: \"604800\", keep: 5}}\nmin-age: 60\n", two, time.Minute},
		{"none", "source: {type: file, filename: /x}\n", nil, 0},
		{"none yet", "schedule:\n", nil, 0},
	} {
		job, err := ParseJob([]byte(test.text), "vm1/config")
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if rules, err := job.Rules(); err != nil || !reflect.DeepEqual(rules, test.rules) || job.MinAge != test.minAge {
			t.Errorf("%s: %v, %s, %v, want %v, %s", test.name, rules, job.MinAge, err, test.rules, test.minAge)
		}
	}
}

func TestMistakesOfSchedules(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no interval", "schedule:\n  daily: {keep: 9}\n", `vm1/config:2:11: tag "daily" needs an interval and a keep`},
		{"no keep", "schedule:\n  daily: {interval: 1d}\n", `vm1/config:2:11: tag "daily" needs an interval and a keep`},
		{"an unknown key", "schedule:\n  daily: {interval: 1d, keep: 9, sla: 6h}\n", `vm1/config:2:34: unknown key "sla"; there are: interval, keep`},
		{"no duration", "schedule:\n  daily: {interval: daily, keep: 9}\n", `vm1/config:2:21: interval: "daily" is no duration: want a whole number`},
		{"part of a day", "schedule:\n  daily: {interval: 0.5, keep: 9}\n", `vm1/config:2:21: interval: a number is no duration`},
		{"an interval of 0", "schedule:\n  daily: {interval: 0d, keep: 9}\n", "vm1/config:2:21: interval: 0s is too short: want 1s or more"},
		{"a negative interval", "schedule:\n  daily: {interval: -1, keep: 9}\n", `vm1/config:2:21: interval: "-1" is no duration`},
		{"keep 0", "schedule:\n  daily: {interval: 1d, keep: 0}\n", "vm1/config:2:31: keep: want a whole number, 1 or more"},
		{"keep a few", "schedule:\n  daily: {interval: 1d, keep: few}\n", "vm1/config:2:31: keep: want a whole number, 1 or more"},
		{"no rule", "schedule:\n  daily: 1d\n", "vm1/config:2:10: "},
		{"null for a rule", "schedule:\n  daily:\n", `vm1/config:2:3: tag "daily" needs an interval and a keep`},
		{"a list", "schedule: [daily]\n", "vm1/config:1:11: "},
		{"nothing in it", "schedule: {}\n", "vm1/config:1:11: the schedule is empty"},
		{"a tag twice", "schedule:\n  daily: {interval: 1d, keep: 9}\n  daily: {interval: 1d, keep: 1}\n", "vm1/config:3:3: \"daily\" is there twice, first in line 2"},
		{"a manual tag", "schedule:\n  manual:x: {interval: 1d, keep: 9}\n", `vm1/config:2:3: tag "manual:x": manual tags are not scheduled`},
		{"a tag with a comma", "schedule:\n  'a,b': {interval: 1d, keep: 9}\n", `vm1/config:2:3: "a,b" is no tag`},
		{"no min-age", "min-age: young\n", `vm1/config:1:10: min-age: "young" is no duration`},
	} {
		_, err := ParseJob([]byte(test.text), "vm1/config")
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\ngot  %v\nwant %s", test.name, err, test.want)
		}
	}
}

// What a scheduler calls its schedules is known to it alone; the rest of the file is good for who does not ask.
func TestScheduleByName(t *testing.T) {
	job, err := ParseJob([]byte("source: {type: file, filename: /x}\nschedule: default\nmin-age: 1d\n"), "vm1/config")
	if err != nil || job.Source.Filename != "/x" || job.MinAge != schedule.Day {
		t.Fatalf("%+v, %v", job, err)
	}
	want := `vm1/config:2:11: schedule "default" is the name of one that is not in this file; write its tags here, as in {daily: {interval: 1d, keep: 9}}`
	if _, err := job.Rules(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestReadRules(t *testing.T) {
	d := t.TempDir()
	if rules, age, err := ReadRules(d); rules != nil || age != 0 || err != nil {
		t.Errorf("without a file: %v, %s, %v", rules, age, err)
	}
	if err := os.WriteFile(filepath.Join(d, JobFile), []byte("schedule: {daily: {interval: 1d, keep: 9}}\nmin-age: 6d\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if rules, age, err := ReadRules(d); len(rules) != 1 || age != 6*schedule.Day || err != nil {
		t.Errorf("%v, %s, %v", rules, age, err)
	}
}

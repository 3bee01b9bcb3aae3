package fault

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"backy/pkg/durable"
	"backy/pkg/expire"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

// born is what is remembered of a revision in spite of its host's clock.
type born struct {
	at   time.Time // when it was truly made
	tags []string
}

// TestClocks backs up and expires a job every 20 minutes, on hosts whose clocks are wrong. At any time the newest revision is
// there, and as many good ones with each tag as are to be kept; none has gone earlier than the clocks differ; and all that is
// listed restores.
func TestClocks(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	rules := schedule.Schedule{"hourly": {Interval: time.Hour, Keep: 3}, "daily": {Interval: schedule.Day, Keep: 2}}
	day := func(i int) time.Duration { // a day forth or back, now and then, for some runs
		switch i % 20 {
		case 7, 8:
			return schedule.Day
		case 14, 15, 16:
			return -schedule.Day
		}
		return 0
	}
	for _, test := range []struct {
		name   string
		begin  string
		wrong  func(i int) time.Duration // by how much the clock is wrong at run i
		differ time.Duration             // what clocks differ by at most
		policy schedule.Policy
	}{
		{"right", "2026-11-20T10:00:00Z", func(int) time.Duration { return 0 }, 0, rules},
		{"two hosts an hour apart", "2026-11-20T10:00:00Z", func(i int) time.Duration { return time.Duration(i%2) * time.Hour }, time.Hour, rules},
		{"a clock that leaps a day", "2026-11-20T10:00:00Z", day, schedule.Day, rules},
		{"summer time ends", "2026-10-24T12:00:00Z", func(int) time.Duration { return 0 }, 0, schedule.Calendar{Keep: map[string]int{"hourly": 5, "daily": 2}, Zone: berlin}},
		{"summer time begins", "2026-03-28T12:00:00Z", func(int) time.Duration { return 0 }, 0, schedule.Calendar{Keep: map[string]int{"hourly": 5, "daily": 2}, Zone: berlin}},
	} {
		t.Run(test.name, func(t *testing.T) {
			rnd := newRandom(t)
			truth, err := time.Parse(time.RFC3339, test.begin)
			must(t, err)
			clock := truth
			w := repo.World{Now: func() time.Time { return clock }, Ops: durable.Ops{}}
			r, err := repo.Init(filepath.Join(t.TempDir(), "srv"), block, w)
			must(t, err)
			job, err := r.Job("vm1")
			must(t, err)
			disks, known, made, gone := map[string][]byte{}, map[string]born{}, map[string]int{}, 0
			disk := newDisk(rnd, 2)
			for i := range 100 {
				clock = truth.Add(test.wrong(i))
				list, _, err := job.List()
				must(t, err)
				source := fmt.Sprint(i)
				disk = change(rnd, disk, 2)
				disks[source] = disk
				rev, err := backup(r, "vm1", source, disk)
				must(t, err)
				tags := rules.Due(repo.Scheduled(list), clock)
				must(t, job.Change(ctx, rev.ID, func(s *repo.State) error { s.Tags = tags; return nil }))
				known[rev.ID] = born{truth, tags}
				for _, tag := range tags {
					made[tag]++
				}

				report, err := expire.Run(ctx, expire.Options{Job: job, Policy: test.policy, Now: w.Now, Log: quiet})
				must(t, err)
				left := map[string]int{}
				for _, f := range report.Revisions {
					switch age := truth.Sub(known[f.ID].at); {
					case f.Goes && f.ID == rev.ID:
						t.Fatalf("run %d: the newest is gone", i)
					case f.Goes:
						gone++
						for _, tag := range known[f.ID].tags {
							if least := time.Duration(rules[tag].Keep) * rules[tag].Interval; age < least-test.differ && !isCalendar(test.policy) {
								t.Fatalf("run %d: %s is gone after %s, want at least %s", i, tag, age, least-test.differ)
							}
						}
						delete(known, f.ID)
					default:
						for _, tag := range f.Tags {
							left[tag]++
						}
					}
				}
				for tag, rule := range rules {
					if !isCalendar(test.policy) && left[tag] < min(rule.Keep, made[tag]) {
						t.Fatalf("run %d: %d with %s are left of %d, want %d", i, left[tag], tag, made[tag], rule.Keep)
					}
				}
				truth = truth.Add(20 * time.Minute)
			}
			must(t, allWhole(r, func(rev repo.Revision) []byte { return disks[rev.Source] }))
			if gone == 0 {
				t.Error("nothing was ever expired, so this shows nothing")
			}
			t.Logf("%d are gone, %d are left", gone, len(known))
		})
	}
}

func isCalendar(p schedule.Policy) bool {
	_, ok := p.(schedule.Calendar)
	return ok
}

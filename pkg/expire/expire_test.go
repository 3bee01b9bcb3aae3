package expire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/pkg/durable"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

var (
	ctx   = context.Background()
	quiet = slog.New(slog.DiscardHandler)
	now   = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	daily = schedule.Schedule{"daily": {Interval: schedule.Day, Keep: 3}, "weekly": {Interval: schedule.Week, Keep: 2}}
)

func newJob(t *testing.T, world repo.World) *repo.Job {
	t.Helper()
	if world.Now == nil {
		world.Now = func() time.Time { return now }
	}
	r, err := repo.Init(filepath.Join(t.TempDir(), "srv"), repo.MinBlock, world)
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.Job("vm1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(j.Dir(), 0o750); err != nil {
		t.Fatal(err)
	}
	return j
}

// add makes a revision of a disk of zeroes.
func add(t *testing.T, j *repo.Job, age time.Duration, state repo.State) string {
	t.Helper()
	r := repo.Revision{ID: repo.NewID(), Time: now.Add(-age), Source: "x", Host: "here", Size: repo.MinBlock, Block: repo.MinBlock, Read: repo.ReadFull}
	if state.Trust == "" {
		state.Trust = repo.Trusted
	}
	for suffix, text := range map[string][]byte{".state": state.Bytes(), ".rev": r.Bytes()} {
		if err := os.WriteFile(filepath.Join(j.Dir(), r.ID+suffix), text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return r.ID
}

func options(j *repo.Job) Options {
	return Options{Job: j, Policy: daily, Now: func() time.Time { return now }, Log: quiet}
}

// tags are the job's revisions, newest first, each by its tags.
func tags(t *testing.T, j *repo.Job) string {
	t.Helper()
	list, broken, err := j.List()
	if err != nil || len(broken) > 0 {
		t.Fatal(err, broken)
	}
	var all []string
	for _, r := range slices.Backward(list) {
		all = append(all, strings.Join(r.State.Tags, ","))
		if r.StateErr != nil {
			t.Fatal(r.StateErr)
		}
	}
	return strings.Join(all, " ")
}

// week adds a backup of each of eight days, oldest last, and returns what is to be left of them.
func week(t *testing.T, j *repo.Job) (want string) {
	t.Helper()
	for day := range 8 {
		s := repo.State{Tags: []string{"daily"}}
		if day == 5 || day == 7 {
			s.Tags = append(s.Tags, "weekly")
		}
		add(t, j, time.Duration(day)*schedule.Day, s)
	}
	return "daily daily daily daily weekly weekly" // 3 days old is not older than 3 days
}

func TestRun(t *testing.T) {
	j := newJob(t, repo.World{})
	want := week(t, j)
	o := options(j)
	before := tags(t, j)
	o.DryRun = true
	dry, err := Run(ctx, o)
	if err != nil || tags(t, j) != before || dry.Forgotten() != 2 || !dry.DryRun {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	o.DryRun = false
	report, err := Run(ctx, o)
	if err != nil || tags(t, j) != want || report.Forgotten() != 2 || report.Refused != "" || len(report.Revisions) != 8 {
		t.Fatalf("%s, %+v, %v", tags(t, j), report, err)
	}
	report.DryRun = true
	if fmt.Sprint(report) != fmt.Sprint(dry) {
		t.Errorf("the dry run said\n%+v\nand this happened\n%+v", dry, report)
	}
	if report, err = Run(ctx, o); err != nil || report.Forgotten() != 0 || tags(t, j) != want {
		t.Errorf("again: %+v, %v", report, err)
	}
}

// What nobody here knows about a state is kept when a tag goes.
func TestStateIsKept(t *testing.T) {
	j := newJob(t, repo.World{})
	add(t, j, 0, repo.State{Tags: []string{"daily"}})
	id := add(t, j, schedule.Day, repo.State{Tags: []string{"daily", "x"}, Trust: repo.Distrusted, Why: repo.WhyDamage, Damage: []repo.Range{{Offset: 0, Length: 4096}}})
	path := filepath.Join(j.Dir(), id+".state")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, "from-the-future: yes\n"...), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(ctx, options(j)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	want := strings.Replace(string(text), "[daily, x]", "[daily]", 1) + "from-the-future: yes\n"
	if err != nil || string(got) != want {
		t.Errorf("got\n%s\nwant\n%s%v", got, want, err)
	}
}

// Protection and tags that come while expire goes about its work count, or come too late; nothing that has them is gone.
func TestBesideTagging(t *testing.T) {
	for range 20 {
		j := newJob(t, repo.World{})
		var ids []string
		for day := range 10 {
			ids = append(ids, add(t, j, time.Duration(day)*schedule.Day, repo.State{Tags: []string{}}))
		}
		var wg sync.WaitGroup
		kept := map[string]bool{}
		wg.Go(func() {
			for i := range ids {
				id := ids[len(ids)-1-i]
				err := j.Change(ctx, id, func(s *repo.State) error {
					s.Tags = append(s.Tags, "manual:keep")
					return nil
				})
				if err == nil {
					kept[id] = true
				} else if !errors.Is(err, repo.ErrNoRevision) {
					t.Error(err)
				}
			}
		})
		for range 2 {
			wg.Go(func() {
				if _, err := Run(ctx, options(j)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for id := range kept {
			if _, err := j.Get(id); err != nil {
				t.Errorf("it was tagged: %v", err)
			}
		}
	}
}

// Wherever an error of the disk ends it, each revision is as it was or as it is to be, and the next run ends the work.
func TestStopsAnywhere(t *testing.T) {
	for stop := 0; ; stop++ {
		calls, on := 0, false
		fail := func(*os.File) error {
			if calls++; on && calls > stop {
				return errors.New("broken")
			}
			return nil
		}
		j := newJob(t, repo.World{Ops: durable.Ops{Fdatasync: fail, FsyncDir: fail, Syncfs: fail}})
		want := week(t, j)
		before := strings.Fields(tags(t, j))
		calls, on = 0, true
		_, err := Run(ctx, options(j))
		on = false
		after := map[string]bool{}
		for _, s := range append(before, "daily", "weekly") {
			after[s] = true
		}
		for s := range strings.FieldsSeq(tags(t, j)) {
			if !after[s] {
				t.Errorf("stopped at %d: a revision has %s", stop, s)
			}
		}
		if err == nil {
			if stop < 4 {
				t.Errorf("only %d calls make anything durable", stop)
			}
			break
		}
		if _, err := Run(ctx, options(j)); err != nil || tags(t, j) != want {
			t.Errorf("stopped at %d, and run again: %s, %v", stop, tags(t, j), err)
		}
	}
}

// Backups by the schedule with a clock that leaps a day forth or back now and then, and expire after each: as many as are
// to be kept are there at any time, the newest among them, and with a clock that is behind nothing goes.
func TestClockLeaps(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 3))
		clock := now
		world := repo.World{Now: func() time.Time { return clock }}
		j := newJob(t, world)
		var made []time.Time
		for day := range 60 {
			truth := now.Add(time.Duration(day) * schedule.Day)
			clock = truth.Add(time.Duration(r.IntN(3)-1) * schedule.Day * time.Duration(r.IntN(8)/7))
			stamp := clock
			if n := len(made); n > 0 && !stamp.After(made[n-1]) {
				stamp = made[n-1].Add(time.Microsecond) // as the commit does
			}
			made = append(made, stamp)
			list, _, _ := j.List()
			add(t, j, now.Sub(stamp), repo.State{Tags: daily.Due(repo.Scheduled(list), clock)})
			o := options(j)
			o.Now = world.Now
			report, err := Run(ctx, o)
			if err != nil {
				t.Fatalf("seed %d, day %d: %v", seed, day, err)
			}
			if stamp.After(clock) && (report.Refused == "" || report.Forgotten() > 0) {
				t.Fatalf("seed %d, day %d: the clock is behind, and %+v", seed, day, report)
			}
			left, _, _ := j.List()
			if n := len(left); n < min(day+1, 3) || !left[n-1].Time.Equal(stamp.Truncate(time.Microsecond)) {
				t.Fatalf("seed %d, day %d: %d are left, the newest of %s", seed, day, n, left[n-1].Time)
			}
		}
	}
}

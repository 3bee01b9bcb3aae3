package schedule

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// revision reads "2014-05-10 10:00 daily,weekly distrusted protected unknown"; its id is the time.
func revision(line string) Revision {
	words := strings.Fields(line)
	r := Revision{ID: words[0] + " " + words[1], Time: at(words[0] + " " + words[1]), Known: true, Good: true, Tags: []string{}}
	for _, w := range words[2:] {
		switch w {
		case "distrusted":
			r.Good = false
		case "protected":
			r.Protected = true
		case "unknown":
			r.Known, r.Good = false, false
		default:
			r.Tags = strings.Split(w, ",")
		}
	}
	return r
}

func revisions(lines ...string) []Revision {
	var list []Revision
	for _, l := range lines {
		list = append(list, revision(l))
	}
	return list
}

// gone are the revisions that go, and those that lose tags, as "id -tag,tag".
func gone(verdicts []Verdict) []string {
	list := []string{}
	for _, v := range verdicts {
		if v.Goes {
			list = append(list, v.ID)
		} else if len(v.Lost) > 0 {
			list = append(list, v.ID+" -"+strings.Join(v.Lost, ","))
		}
	}
	return list
}

func TestByTags(t *testing.T) {
	five := Schedule{"daily": {Day, 5}}
	one := Schedule{"daily": {Day, 1}, "weekly": {Week, 1}}
	week := []string{"2014-05-10 10:00 daily", "2014-05-09 10:00 daily", "2014-05-08 10:00 daily", "2014-05-07 10:00 daily", "2014-05-06 10:00 daily"}
	for _, test := range []struct {
		name string
		s    Schedule
		list []string
		want []string
		err  error
	}{
		{"six, but none is older than five days", five, append(week[:5:5], "2014-05-06 11:00 daily"), nil, nil},
		{"and one that is", five, append(week[:5:5], "2014-05-06 11:00 daily", "2014-05-04 11:00 daily"), []string{"2014-05-04 11:00"}, nil},
		{"exactly five days are not more", five, append(week[:5:5], "2014-05-05 10:00 daily"), nil, nil},
		{"a second more is", five, append(week[:5:5], "2014-05-05 09:59:59 daily"), []string{"2014-05-05 09:59:59"}, nil},
		{"old ones that nothing replaced", five, []string{"2010-01-01 00:00 daily", "2010-01-02 00:00 daily"}, nil, nil},
		{"a tag goes, another stays", one, []string{"2014-05-10 10:00 daily", "2014-05-08 10:00 daily,weekly"}, []string{"2014-05-08 10:00 -daily"}, nil},
		{"tags that the schedule does not have", one, []string{"2014-05-10 10:00 daily,x", "2014-05-09 10:00 y,daily", "2014-05-08 10:00 z"},
			[]string{"2014-05-08 10:00", "2014-05-09 10:00 -y", "2014-05-10 10:00 -x"}, nil},
		{"manual tags stay", one, []string{"2014-05-10 10:00 daily", "2014-05-01 10:00 manual:keep,daily"}, []string{"2014-05-01 10:00 -daily"}, nil},
		{"protected ones stay, with all tags", one, []string{"2014-05-10 10:00 daily", "2014-05-01 10:00 x protected", "2014-05-01 10:00 protected"}, nil, nil},
		{"without tags", one, []string{"2014-05-10 10:00 daily", "2014-05-10 09:00"}, []string{"2014-05-10 09:00"}, nil},
		{"the newest stays without a tag", one, []string{"2014-05-10 10:00", "2014-05-01 10:00 daily"}, nil, nil},
		{"the newest and the newest good one", one, []string{"2014-05-10 10:00 distrusted", "2014-05-09 10:00 distrusted", "2014-05-08 10:00", "2014-05-07 10:00"},
			[]string{"2014-05-07 10:00", "2014-05-09 10:00"}, nil},
		{"a distrusted one does not count", one, []string{"2014-05-10 10:00 daily distrusted", "2014-05-08 10:00 daily", "2014-05-07 10:00 daily"}, []string{"2014-05-07 10:00"}, nil},
		{"a distrusted one goes like others", one, []string{"2014-05-10 10:00 daily", "2014-05-08 10:00 daily distrusted"}, []string{"2014-05-08 10:00"}, nil},
		{"of unknown state", one, []string{"2014-05-10 10:00 daily", "2014-05-01 10:00 unknown", "2014-05-01 09:00"}, []string{"2014-05-01 09:00"}, nil},
		{"none is good", one, []string{"2014-05-10 10:00 distrusted", "2014-05-09 10:00 distrusted", "2014-05-08 10:00 unknown"}, nil, ErrNoneGood},
		{"none is good, but none would go", one, []string{"2014-05-10 10:00 distrusted"}, nil, nil},
		{"the newest is ahead of the clock", one, []string{"2014-05-10 10:00:01 daily", "2014-05-01 10:00"}, nil, ErrClock},
		{"it is ahead, and of unknown state", one, []string{"2014-05-11 10:00 unknown", "2014-05-01 10:00", "2014-05-01 11:00"}, nil, ErrClock},
		{"a tag that is there twice counts once", Schedule{"daily": {Day, 2}}, []string{"2014-05-10 10:00 daily,daily", "2014-05-01 10:00 daily"}, nil, nil},
		{"keep for longer than time can tell", Schedule{"x": {1000 * Week, 1 << 40}}, []string{"2014-05-10 10:00 x", "1970-01-01 00:00 x"}, nil, nil},
		{"without a schedule", nil, []string{"2014-05-10 10:00", "2014-05-01 10:00 x"}, nil, nil},
		{"nothing", one, nil, nil, nil},
	} {
		verdicts, err := test.s.Expire(revisions(test.list...), at("2014-05-10 10:00"), 0)
		if got := gone(verdicts); !errors.Is(err, test.err) || err != nil && test.err == nil || strings.Join(got, "; ") != strings.Join(test.want, "; ") {
			t.Errorf("%s: %v, %v, want %v, %v", test.name, got, err, test.want, test.err)
		}
		if len(verdicts) != len(test.list) {
			t.Errorf("%s: %d verdicts", test.name, len(verdicts))
		}
	}
}

func TestReasons(t *testing.T) {
	s := Schedule{"daily": {Day, 2}, "weekly": {Week, 2}}
	list := revisions("2014-05-10 10:00", "2014-05-09 12:00 daily", "2014-05-09 09:00 daily", "2014-05-09 08:00 daily,weekly", "2014-05-01 10:00 daily,weekly,manual:x,y",
		"2014-05-01 09:00", "2014-05-01 08:00 weekly unknown", "2014-05-01 07:00 x protected")
	verdicts, err := s.Expire(list, at("2014-05-10 10:00"), 30*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range slices.Backward(verdicts) {
		got = append(got, fmt.Sprintf("%s %t %s", v.ID[8:], v.Goes, strings.Join(v.Why, "; ")))
	}
	want := []string{
		"10 10:00 false it is the newest",
		"09 12:00 false daily stays: 0 newer, 2 are kept",
		"09 09:00 false daily stays: 1 newer, 2 are kept",
		"09 08:00 false daily stays: 2 newer, but not older than 2d; weekly stays: 0 newer, 2 are kept",
		"01 10:00 false daily goes: 3 newer, and older than 2d; weekly stays: 1 newer, 2 are kept; manual:x stays: it is manual; y goes: it is not in the schedule",
		"01 09:00 true no tag is left",
		"01 08:00 false its state cannot be read",
		"01 07:00 false it is protected",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	verdicts, _ = s.Expire(revisions("2014-05-10 10:00 daily", "2014-05-09 12:00", "2014-05-08 12:00"), at("2014-05-10 10:00"), 30*time.Hour)
	if v := verdicts[1]; v.Goes || v.Why[0] != "it is younger than 30h" || !verdicts[0].Goes {
		t.Errorf("%+v", verdicts)
	}
}

// history is a random job: what a backup each few hours leaves, with all that may befall it.
func history(r *rand.Rand, now time.Time) []Revision {
	tags := []string{"hourly", "daily", "weekly", "old", "manual:x"}
	var list []Revision
	for i, when := 0, now; i < r.IntN(40); i++ {
		when = when.Add(-time.Duration(r.Int64N(int64(30 * time.Hour))).Truncate(time.Hour))
		v := Revision{ID: fmt.Sprint(i), Time: when, Known: r.IntN(20) > 0, Protected: r.IntN(20) == 0, Tags: []string{}}
		v.Good = v.Known && r.IntN(5) > 0
		for n, tag := range tags {
			if r.IntN(2+3*n) == 0 {
				v.Tags = append(v.Tags, tag)
			}
		}
		list = append(list, v)
	}
	slices.Reverse(list)
	return list
}

// naive is the same by sentences, with no thought for how often it looks at what. It wants revisions oldest first.
func naive(s Schedule, list []Revision, now time.Time, minAge time.Duration) (left map[string][]string) {
	left = map[string][]string{}
	anyGood, wouldGo := false, false
	for i, r := range list {
		var tags []string
		newerGood := 0
		for _, tag := range r.Tags {
			with := 0
			for _, o := range list[i+1:] {
				if o.Good && slices.Contains(o.Tags, tag) {
					with++
				}
			}
			rule, ok := s[tag]
			if strings.HasPrefix(tag, "manual:") || ok && (with < rule.Keep || !r.Time.Before(now.Add(-time.Duration(rule.Keep)*rule.Interval))) {
				tags = append(tags, tag)
			}
		}
		for _, o := range list[i+1:] {
			if o.Good {
				newerGood++
			}
		}
		anyGood = anyGood || r.Good
		switch {
		case !r.Known:
			left[r.ID] = nil
		case r.Protected:
			left[r.ID] = r.Tags
		case len(tags) > 0:
			left[r.ID] = tags
		case i == len(list)-1, r.Good && newerGood == 0, now.Sub(r.Time) < minAge:
			left[r.ID] = r.Tags
		default:
			wouldGo = true
		}
	}
	if wouldGo && !anyGood {
		for _, r := range list {
			left[r.ID] = r.Tags
		}
	}
	return left
}

func TestAgainstNaiveModel(t *testing.T) {
	s := Schedule{"hourly": {time.Hour, 5}, "daily": {Day, 3}, "weekly": {Week, 2}}
	now := at("2026-11-21 10:00")
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 1))
		list := history(r, now)
		minAge := time.Duration(r.IntN(3)) * Day
		verdicts, err := s.Expire(list, now, minAge)
		want := naive(s, list, now, minAge)
		n := 0
		for _, v := range verdicts {
			left, stays := want[v.ID]
			if v.Goes == stays || stays && v.Known && !slices.Equal(left, v.Left) {
				t.Fatalf("seed %d: %+v, want %v, %t", seed, v, left, stays)
			}
			if !v.Goes {
				n++
			}
		}
		if n != len(want) || err != nil && !errors.Is(err, ErrNoneGood) {
			t.Fatalf("seed %d: %d stay, want %d; %v", seed, n, len(want), err)
		}
		promises(t, seed, s, list, now, minAge)
		promises(t, seed, Calendar{Keep: map[string]int{"last": 1 + r.IntN(3), "daily": r.IntN(5), "weekly": r.IntN(3)}}, list, now, minAge)
	}
}

// promises are those that hold for each policy.
func promises(t *testing.T, seed uint64, p Policy, list []Revision, now time.Time, minAge time.Duration) {
	t.Helper()
	isGood := func(r Revision) bool { return r.Good }
	verdicts, _ := p.Expire(list, now, minAge)
	var after []Revision
	for i, v := range verdicts {
		if v.Goes && (v.Protected || !v.Known || i == len(verdicts)-1 || now.Sub(v.Time) < minAge || slices.ContainsFunc(v.Tags, IsManual)) {
			t.Fatalf("seed %d: %+v goes", seed, v)
		}
		if !v.Goes {
			r := v.Revision
			r.Tags = v.Left
			after = append(after, r)
		}
		if len(v.Why) == 0 {
			t.Fatalf("seed %d: %+v has no reason", seed, v)
		}
	}
	if slices.ContainsFunc(list, isGood) != slices.ContainsFunc(after, isGood) {
		t.Fatalf("seed %d: no good one is left of %+v", seed, list)
	}
	if !slices.ContainsFunc(list, isGood) && len(after) != len(list) {
		t.Fatalf("seed %d: there is no good one, and some go", seed)
	}
	again, _ := p.Expire(after, now, minAge)
	if left := gone(again); len(left) > 0 {
		t.Fatalf("seed %d: a second time %v go", seed, left)
	}
	early, err := p.Expire(list, now.Add(-30*24*time.Hour*3), minAge)
	if len(list) > 0 && (!errors.Is(err, ErrClock) || len(gone(early)) > 0) {
		t.Fatalf("seed %d: with a clock far behind: %v, %v", seed, gone(early), err)
	}
}

// A clock that is a day ahead for a while takes no more than what is beyond the count, and never the newest kept.
func TestClockAhead(t *testing.T) {
	s := Schedule{"daily": {Day, 5}}
	var list []Revision
	for day := 1; day <= 20; day++ {
		list = append(list, revision(fmt.Sprintf("2026-11-%02d 03:00 daily", day)))
	}
	for _, ahead := range []time.Duration{Day, 365 * Day} {
		verdicts, err := s.Expire(list, at("2026-11-20 04:00").Add(ahead), 0)
		if err != nil || slices.ContainsFunc(verdicts[15:], func(v Verdict) bool { return v.Goes }) {
			t.Errorf("%s ahead: %v, %v", ahead, gone(verdicts), err)
		}
	}
}

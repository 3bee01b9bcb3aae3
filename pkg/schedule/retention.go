package schedule

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Policy says which of a job's revisions may go.
type Policy interface {
	// Expire returns a verdict for each revision, oldest first. The error is of a job that is to be left alone, and its
	// verdicts are then that all stays: ErrClock, ErrNoneGood.
	//
	// Whatever the policy: a revision stays as it is, tags and all, if it is protected or if its state is not known. It
	// does not go if it is younger than minAge, the newest of all, or the newest good one, and keeps its last tags then.
	// One that has a manual tag stays.
	Expire(revisions []Revision, now time.Time, minAge time.Duration) ([]Verdict, error)
}

var (
	_ Policy = Schedule{}
	_ Policy = Calendar{}
)

// Why a job is left alone.
var (
	ErrClock    = errors.New("the clock is behind the newest revision, so no age can be trusted")
	ErrNoneGood = errors.New("it has no good revision, so all are kept")
)

// Verdict is what becomes of a revision.
type Verdict struct {
	Revision
	Goes bool     // it is to be forgotten
	Left []string // its tags from now on
	Lost []string // those that it loses
	Why  []string // reasons, in words
}

// Expire goes by tags. A revision's tag goes once as many newer good revisions have it as are kept and the revision is
// older than that many intervals; a tag that is not in the schedule goes at once, unless it is a manual one. A revision
// without tags goes. By a nil schedule nothing does.
func (s Schedule) Expire(revisions []Revision, now time.Time, minAge time.Duration) ([]Verdict, error) {
	newer := map[string]int{} // good ones, by tag
	return expire(revisions, now, minAge, func(r Revision) Verdict {
		v := Verdict{Revision: r, Left: []string{}}
		if s == nil {
			v.stay("the job has no schedule")
			return v
		}
		for i, tag := range r.Tags {
			stays, why := s.judge(tag, newer[tag], now.Sub(r.Time))
			v.Why = append(v.Why, tag+" "+why)
			if stays {
				v.Left = append(v.Left, tag)
			} else {
				v.Lost = append(v.Lost, tag)
			}
			if r.Good && !slices.Contains(r.Tags[i+1:], tag) {
				newer[tag]++
			}
		}
		if v.Goes = len(v.Left) == 0; v.Goes {
			v.Why = append(v.Why, "no tag is left")
		}
		return v
	})
}

// judge says whether a tag stays on a revision of that age, when that many newer good revisions have it.
func (s Schedule) judge(tag string, newer int, age time.Duration) (stays bool, why string) {
	rule, ok := s[tag]
	switch {
	case IsManual(tag):
		return true, "stays: it is manual"
	case !ok:
		return false, "goes: it is not in the schedule"
	case newer < rule.Keep:
		return true, fmt.Sprintf("stays: %d newer, %d are kept", newer, rule.Keep)
	case age <= rule.age():
		return true, fmt.Sprintf("stays: %d newer, but not older than %s", newer, FormatDuration(rule.age()))
	}
	return false, fmt.Sprintf("goes: %d newer, and older than %s", newer, FormatDuration(rule.age()))
}

// stay leaves the revision as it is.
func (v *Verdict) stay(why string) {
	v.Goes, v.Left, v.Lost, v.Why = false, slices.Clone(v.Tags), nil, []string{why}
}

// expire asks judge about each revision whose state is known, the newest first, and lets no verdict take what must stay.
func expire(revisions []Revision, now time.Time, minAge time.Duration, judge func(Revision) Verdict) ([]Verdict, error) {
	revisions = slices.Clone(revisions)
	slices.SortStableFunc(revisions, func(a, b Revision) int { return a.Time.Compare(b.Time) })
	if n := len(revisions); n > 0 && revisions[n-1].Time.After(now) {
		return leave(revisions, ErrClock)
	}
	verdicts := make([]Verdict, len(revisions))
	goes, good := false, false
	for i, r := range slices.Backward(revisions) {
		v := Verdict{Revision: r}
		if !r.Known {
			v.Tags = nil
			v.stay("its state cannot be read")
			verdicts[i] = v
			continue
		}
		v = judge(r)
		// One that would stay by itself may lose tags all the same, the newest too; a protected one is left as it is.
		switch {
		case r.Protected:
			v.stay("it is protected")
		case !v.Goes:
		case i == len(revisions)-1:
			v.stay("it is the newest")
		case r.Good && !good:
			v.stay("it is the newest good one")
		case now.Sub(r.Time) < minAge:
			v.stay("it is younger than " + FormatDuration(minAge))
		}
		good = good || r.Good
		goes = goes || v.Goes
		verdicts[i] = v
	}
	if goes && !good {
		return leave(revisions, ErrNoneGood)
	}
	return verdicts, nil
}

func leave(revisions []Revision, why error) ([]Verdict, error) {
	verdicts := make([]Verdict, len(revisions))
	for i, r := range revisions {
		verdicts[i] = Verdict{Revision: r}
		verdicts[i].stay(why.Error())
	}
	return verdicts, why
}

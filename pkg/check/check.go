// Package check says whether all jobs are backed up in time, for people who want to be woken up if not. Judge is pure: what
// is known of the jobs goes in, a verdict comes out. Collect finds out what is known from the repository and the
// configuration alone, so that it needs no scheduler to be alive. The verdict is written as a monitoring plugin's.
package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level is how bad something is. Its value is a monitoring plugin's exit code.
type Level int

// The levels. OK is also that of what is merely told.
const (
	OK Level = iota
	Warning
	Critical
	Unknown // it could not be found out
)

var levels = []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

func (l Level) String() string { return levels[l] }

// badness orders levels: what is known to be bad comes before what is not known, and that before a mere warning.
func (l Level) badness() int { return slices.Index([]Level{OK, Warning, Unknown, Critical}, l) }

// Job is what is known of one job.
type Job struct {
	Name       string
	Age        time.Duration // of the newest good revision; where there is none, how long the job exists
	Limit      time.Duration // the SLA: how old it may get; 0 where the job has no schedule, or an unknown one (Blind)
	Never      bool          // there is no good revision
	Revisions  int           // how many there are
	Distrusted int           // how many of them are distrusted
	Manual     []string      // tags that begin with manual:
	Blind      bool          // some of it could not be read, so there may be a newer revision
	Note       string        // why it is late, if something is known, such as the last failure; "" if not
}

// Share is the job's age in percent of its SLA; 0 where it has none.
func (j Job) Share() float64 {
	if j.Limit <= 0 {
		return 0
	}
	return float64(j.Age) / float64(j.Limit) * 100
}

// Finding is something that was found out, in words.
type Finding struct {
	Level Level
	Job   string // "" for the repository
	Text  string
}

func (f Finding) String() string {
	level := f.Level.String()
	if f.Level == OK {
		level = "info"
	}
	if f.Job != "" {
		return level + ": " + f.Job + ": " + f.Text
	}
	return level + ": " + f.Text
}

// Facts are what is known of a repository.
type Facts struct {
	Jobs     []Job     // those that are to be judged
	Findings []Finding // what else there is to say
	Broken   int       // .rev files that cannot be read
	Reports  int       // in quarantine
	Bad      int       // objects that are known to be bad
}

// Thresholds are the ranges of Job.Share in which all is well.
type Thresholds struct{ Warning, Critical Range }

// DefaultThresholds warn from 80 % of the SLA on.
var DefaultThresholds = Thresholds{Range{Start: 0, End: 80}, Range{Start: 0, End: 100}}

// Verdict is what comes of it.
type Verdict struct {
	Level    Level
	Summary  string    // one line, without the level; any text may be in it
	Findings []Finding // in detail: the worst first, then by job
	Facts    Facts
	Late     int // jobs whose share is out of the critical range
	Near     int // those out of the warning range alone
	Limits   Thresholds
}

// Judge judges. A job is late when its share is out of the critical range; a job of which not all could be read is never
// late, but unknown.
func Judge(f Facts, t Thresholds) Verdict {
	v := Verdict{Facts: f, Limits: t, Findings: slices.Clone(f.Findings)}
	var late, near, distrusted, blind []Job
	revisions, free := 0, 0
	for _, j := range f.Jobs {
		switch {
		case j.Limit <= 0 && j.Blind:
			blind = append(blind, j)
		case j.Limit <= 0:
			free++
			v.find(OK, j, "it has no schedule, and is never late")
		case t.Critical.Alerts(j.Share()) && j.Blind:
			blind = append(blind, j)
			v.find(Unknown, j, "not all of it can be read; by what can, "+j.words())
		case t.Critical.Alerts(j.Share()):
			late = append(late, j)
			v.find(Critical, j, j.words()+j.why())
		case t.Warning.Alerts(j.Share()):
			near = append(near, j)
			v.find(Warning, j, j.words()+j.why())
		default:
			v.find(OK, j, j.words())
		}
		if j.Distrusted > 0 {
			distrusted = append(distrusted, j)
			revisions += j.Distrusted
			v.find(Warning, j, count(j.Distrusted, "revision")+" of "+fmt.Sprint(j.Revisions)+" distrusted")
		}
		if len(j.Manual) > 0 {
			v.find(OK, j, "manual tags: "+strings.Join(j.Manual, ", "))
		}
	}
	if f.Reports > 0 {
		v.Findings = append(v.Findings, Finding{Warning, "", count(f.Reports, "report") + " in quarantine: see `backy scrub reports list`"})
	}
	if f.Bad > 0 {
		v.Findings = append(v.Findings, Finding{Warning, "", count(f.Bad, "object") + " known to be bad, and not yet healed"})
	}
	v.Late, v.Near = len(late), len(near)
	for _, list := range [][]Job{late, blind, near} {
		slices.SortStableFunc(list, func(a, b Job) int { return cmp.Compare(b.Share(), a.Share()) })
	}
	slices.SortStableFunc(v.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Level.badness(), a.Level.badness()), strings.Compare(a.Job, b.Job))
	})
	if len(v.Findings) > 0 {
		v.Level = v.Findings[0].Level
	}
	v.Summary = strings.Join(v.parts(late, blind, near, distrusted, revisions, free), "; ")
	return v
}

func (v *Verdict) find(l Level, j Job, text string) {
	v.Findings = append(v.Findings, Finding{l, j.Name, text})
}

// parts are what the summary says, the worst first.
func (v *Verdict) parts(late, blind, near, distrusted []Job, revisions, free int) []string {
	var parts []string
	add := func(n int, format string, args ...any) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	jobs := count(len(v.Facts.Jobs), "job")
	add(len(late), "%d of %s late: %s", len(late), jobs, several(late, Job.long))
	add(len(blind), "%d of %s unknown: %s", len(blind), jobs, several(blind, Job.long))
	v.others(Unknown, add)
	add(len(near), "%d of %s near the SLA: %s", len(near), jobs, several(near, Job.long))
	add(revisions, "%s distrusted: %s", count(revisions, "revision"), several(distrusted, func(j Job) string { return j.Name }))
	add(v.Facts.Reports, "%s in quarantine", count(v.Facts.Reports, "report"))
	add(v.Facts.Bad, "%s bad", count(v.Facts.Bad, "object"))
	v.others(Warning, add)
	if within := len(v.Facts.Jobs) - len(late) - len(blind) - free; within > 0 || len(parts) == 0 {
		add(1, "%s within SLA", count(within, "job"))
	}
	add(free, "%d without a schedule", free)
	return parts
}

// others adds what was found out beside the jobs' ages.
func (v *Verdict) others(l Level, add func(int, string, ...any)) {
	list := slices.DeleteFunc(slices.Clone(v.Facts.Findings), func(f Finding) bool { return f.Level != l })
	add(len(list), "%s", several(list, func(f Finding) string { return strings.TrimPrefix(f.Job+": "+f.Text, ": ") }))
}

// mostNamed is how many things of a kind the summary names.
const mostNamed = 5

func several[T any](list []T, name func(T) string) string {
	var words []string
	for _, item := range list[:min(len(list), mostNamed)] {
		words = append(words, name(item))
	}
	if more := len(list) - len(words); more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// long is the job's name, and how it is with it in brief.
func (j Job) long() string {
	switch {
	case j.Limit <= 0:
		return j.Name
	case j.Never && j.Blind:
		return fmt.Sprintf("%s (no good backup that can be read, SLA %s)", j.Name, span(j.Limit))
	case j.Never:
		return fmt.Sprintf("%s (never backed up, SLA %s)", j.Name, span(j.Limit))
	}
	return fmt.Sprintf("%s (%s, SLA %s)", j.Name, span(j.Age), span(j.Limit))
}

func (j Job) words() string {
	if j.Never {
		return fmt.Sprintf("there has been no good backup since it exists, %s ago; the SLA is %s", span(j.Age), span(j.Limit))
	}
	return fmt.Sprintf("the newest good backup is %s old; the SLA is %s", span(j.Age), span(j.Limit))
}

func (j Job) why() string {
	if j.Note == "" {
		return ""
	}
	return "; " + j.Note
}

// span is a duration in its two largest units: "36h" is "1d 12h".
func span(d time.Duration) string {
	if d < time.Second {
		return "0s"
	}
	var words []string
	for _, u := range []struct {
		letter string
		length time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		n := d / u.length
		d %= u.length
		if n > 0 {
			words = append(words, fmt.Sprintf("%d%s", n, u.letter))
		} else if len(words) > 0 {
			break // 1d 5s tells more than anyone wants to know
		}
		if len(words) == 2 {
			break
		}
	}
	return strings.Join(words, " ")
}

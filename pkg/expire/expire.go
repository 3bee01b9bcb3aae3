// Package expire lets revisions go that a policy has no use for any more. What they alone held stays in the repository
// until the next purge.
package expire

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"backy/pkg/repo"
	"backy/pkg/schedule"
)

// Options say what to do.
type Options struct {
	Job    *repo.Job
	Policy schedule.Policy
	MinAge time.Duration // younger revisions stay, whatever the policy says
	DryRun bool          // only say what would be done
	Now    func() time.Time
	Log    *slog.Logger
}

// Report is what became of a job's revisions, or would become of them in a dry run.
type Report struct {
	Job       string    `json:"job"`
	Now       time.Time `json:"now"`
	DryRun    bool      `json:"dry_run"`
	Refused   string    `json:"refused,omitempty"` // why the job was left alone
	Revisions []Fate    `json:"revisions"`         // oldest first
	Broken    []string  `json:"broken,omitempty"`  // files of revisions that cannot be read; they stay
}

// Fate is what becomes of one revision.
type Fate struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	Goes bool      `json:"goes"` // it is forgotten
	Tags []string  `json:"tags"` // that it has from now on
	Lost []string  `json:"lost"` // tags that it loses
	Why  []string  `json:"why"`
}

// Forgotten counts the revisions that go.
func (r Report) Forgotten() int {
	n := 0
	for _, f := range r.Revisions {
		if f.Goes {
			n++
		}
	}
	return n
}

// Run expires the revisions of one job. It decides and acts while nobody else changes them. A job that has to be left
// alone is no error of Run: the report says so.
func Run(ctx context.Context, o Options) (Report, error) {
	report := Report{Job: o.Job.Name, DryRun: o.DryRun}
	if o.DryRun { // which needs no lock, and no right to write
		list, broken, err := o.Job.List()
		if err != nil {
			return report, fmt.Errorf("expire %s: %w", o.Job.Name, err)
		}
		_ = o.decide(ctx, &report, list, broken)
		return report, nil
	}
	err := o.Job.Edit(ctx, repo.Guard{MinAge: o.MinAge}, func(e *repo.Edit) error {
		for _, v := range o.decide(ctx, &report, e.Revisions, e.Broken) {
			if err := change(e, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return report, fmt.Errorf("expire %s: %w", o.Job.Name, err)
	}
	return report, nil
}

// decide fills the report and returns what to do.
func (o Options) decide(ctx context.Context, report *Report, list []repo.Revision, broken []repo.Broken) []schedule.Verdict {
	report.Now = o.Now().UTC()
	verdicts, refused := o.Policy.Expire(repo.Scheduled(list), report.Now, o.MinAge)
	report.Revisions = fates(verdicts)
	for _, b := range broken {
		o.Log.WarnContext(ctx, "a revision cannot be read, and stays", "file", b.Path, "error", b.Err)
		report.Broken = append(report.Broken, b.Path)
	}
	if refused != nil {
		report.Refused = refused.Error()
		return nil
	}
	return verdicts
}

func change(e *repo.Edit, v schedule.Verdict) error {
	e.Because(v.ID, strings.Join(v.Why, "; "))
	switch {
	case v.Goes:
		return e.Forget(v.ID)
	case len(v.Lost) > 0:
		return e.Change(v.ID, func(s *repo.State) error {
			s.Tags = v.Left
			return nil
		})
	}
	return nil
}

func fates(verdicts []schedule.Verdict) []Fate {
	list := make([]Fate, len(verdicts))
	for i, v := range verdicts {
		list[i] = Fate{v.ID, v.Time, v.Goes, filled(v.Left), filled(v.Lost), filled(v.Why)}
	}
	return list
}

// filled makes nil, which is null in JSON, an empty list.
func filled(list []string) []string { return append([]string{}, list...) }

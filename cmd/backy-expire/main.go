// Backy-expire forgets the revisions that a job's schedule, or a calendar, has no use for any more.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // --zone should not depend on what is installed

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/config"
	"backy/pkg/expire"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

func main() { app.Main(command) }

var command = app.Command{
	Name:  "backy-expire",
	Usage: "forget the revisions that have had their time",
	Help: `Goes by the schedule in the file config of the job's directory, here of a job with two tags:

  schedule:
    daily: {interval: 1d, keep: 9}
    weekly: {interval: 1w, keep: 5}
  min-age: 2d

A revision loses a tag when 9 newer good ones have it and it is older than 9 times its interval, and is forgotten when
no tag is left. Tags that the schedule does not have are taken away, but those that begin with "manual:" stay for good.
An interval is a number of s, m, h, d or w. A job without a schedule is left alone.

With --keep, tags do not matter, but for manual ones. What stays is the newest good revision of each of so many
hours, days, weeks (from Monday), months and years that have one, and the last few; the periods begin as the clocks of
--zone say. It can be used for jobs without a schedule.

These stay in any case: protected revisions, those younger than min-age, those whose state cannot be read, the newest,
and the newest that is not distrusted. A distrusted one never counts as one that is kept. A job is left alone, and the
exit code is 1, if its newest revision is ahead of the clock, or if no good revision would be left.

In the base directory, or with it as -b, all jobs are gone through. The space comes back with the next purge.`,
	Examples: `# what would go, and why?
backy-expire -b /srv/backy/vm1 --dry-run
backy-expire -b /srv/backy
backy-expire -b /srv/backy/vm1 --keep last=3,hourly=24,daily=7,weekly=4,monthly=12,yearly=2 --zone Europe/Berlin`,
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "change nothing; say for each revision what would become of it, and why"},
		&cli.BoolFlag{Name: "json", Usage: "say the same on standard output as JSON, one job a line"},
		&cli.StringFlag{Name: "keep", Usage: "go by a calendar, a `LIST` of some of last=N,hourly=N,daily=N,weekly=N,monthly=N,yearly=N"},
		&cli.StringFlag{Name: "zone", Value: "UTC", Usage: "the time `ZONE` of --keep, as in Europe/Berlin; Local is that of this host"},
	},
	Action: run,
}

// calendar is the policy of --keep; nil without it.
func calendar(c *app.Context) (schedule.Policy, error) {
	if !c.IsSet("keep") {
		if c.IsSet("zone") {
			return nil, app.Usagef("--zone goes with --keep")
		}
		return nil, nil
	}
	name := c.String("zone")
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" {
		return nil, app.Usagef("--zone: %q is no time zone that is known here; want one as in UTC or Europe/Berlin", name)
	}
	policy, err := schedule.ParseCalendar(c.String("keep"), zone)
	if err != nil {
		return nil, app.Usagef("--keep: %w", err)
	}
	return policy, nil
}

func run(ctx context.Context, c *app.Context) error {
	policy, err := calendar(c)
	if err != nil {
		return err
	}
	r, name, err := c.Repo()
	if err != nil {
		return err
	}
	if name != "" {
		job, err := r.Job(name)
		if err == nil {
			err = job.Exists()
		}
		if err != nil {
			return err
		}
		return one(ctx, c, job, policy)
	}
	var failed []error
	for job, err := range r.Jobs(ctx) {
		if err != nil {
			failed = append(failed, err) // of a directory; the walk goes on behind it
			continue
		}
		if err := one(ctx, c, job, policy); err != nil {
			failed = append(failed, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return worst(c, failed)
}

// worst says all errors but the one that decides the exit code, which is returned: one of a failure, if there is one.
func worst(c *app.Context, all []error) error {
	if len(all) == 0 {
		return nil
	}
	at := 0
	for i, err := range all {
		if app.ExitCode(err) == 1 {
			at = i
		}
	}
	for i, err := range all {
		if i != at {
			c.Log.Error(err.Error())
		}
	}
	return all[at]
}

// one expires the revisions of one job and tells of it.
func one(ctx context.Context, c *app.Context, job *repo.Job, policy schedule.Policy) error {
	rules, minAge, err := config.ReadRules(job.Dir())
	var other *config.NamedError
	switch {
	case policy != nil && errors.As(err, &other): // the calendar needs no rules
	case err != nil:
		return err
	case policy == nil:
		policy = rules
	}
	report, err := expire.Run(ctx, expire.Options{Job: job, Policy: policy, MinAge: minAge, DryRun: c.Bool("dry-run"), Now: c.Now, Log: c.Log})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = json.NewEncoder(c.Stdout).Encode(report)
	} else {
		err = tell(c, report)
	}
	switch {
	case err != nil:
		return err
	case report.Refused != "":
		return fmt.Errorf("%s is left alone: %s", job.Name, report.Refused)
	case len(report.Broken) > 0:
		return app.Damaged("%s: .rev files that cannot be read, and stay: %d, named above", job.Name, len(report.Broken))
	}
	return nil
}

// tell says what became of the revisions: in a dry run of each, else of those that were changed.
func tell(c *app.Context, report expire.Report) error {
	t := app.Table{Columns: []app.Column{{Title: "Date (" + app.Zone() + ")"}, {Title: "ID"}, {Title: "Fate"}, {Title: "Tags"}, {Title: "Why"}}}
	rows := 0
	for _, f := range report.Revisions {
		if !report.DryRun && !f.Goes && len(f.Lost) == 0 {
			continue
		}
		fate := "stays"
		if f.Goes {
			fate = "goes"
		}
		tags := strings.Join(f.Tags, ",")
		for _, tag := range f.Lost {
			tags = strings.TrimSpace(tags + " -" + tag)
		}
		t.Row(f.Time.Local().Format(time.DateTime), f.ID, fate, tags, strings.Join(f.Why, "; "))
		rows++
	}
	if rows > 0 {
		if _, err := t.WriteTo(c.Stdout); err != nil {
			return err
		}
	}
	verb := "forgotten"
	if report.DryRun {
		verb = "to be forgotten"
	}
	_, err := fmt.Fprintf(c.Stdout, "%s: %d of %d revisions %s\n", report.Job, report.Forgotten(), len(report.Revisions), verb)
	return err
}

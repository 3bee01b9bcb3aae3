package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/config"
	"backy/pkg/disk"
	"backy/pkg/repo"
	"backy/pkg/scrub"
)

var verifyVerb = app.Command{
	Name: "verify", Usage: "read revisions back whole, and trust them again if they are right",
	Help: `Reads all that the revisions reach, and checks it against the names. Without -r that is all distrusted revisions
of the job. One that is right becomes verified, also if it was distrusted by backy distrust; but not one that a wrong
change map or a comparison with its source made distrusted: only "backy scrub -s SOURCE" can tell whether it is right.
One that is damaged stays, distrusted, with its ranges listed; with --remove-failed it is forgotten.`,
	Examples: `backy-scrub verify -b /srv/backy/vm1
backy-scrub verify -b /srv/backy/vm1 -r last`,
	Progress: true,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Usage: "the revisions `REV`"},
		&cli.BoolFlag{Name: "pending", Usage: "only the newest distrusted revision, if it was not verified before or was healed since: backy backup does this"},
		&cli.BoolFlag{Name: "remove-failed", Usage: "forget those that are damaged, but none that is protected; where no other would be left, or one is younger than the min-age in config, none"},
		&cli.StringFlag{Name: "max-duration", Usage: "begin to read nothing more after a `TIME` such as 30m or 4h"},
		jsonFlag,
	},
	Action: verify,
}

var spotVerb = app.Command{
	Name: "spot", Usage: "compare a sample of a revision with its source",
	Help: `Reads some of the blocks that the revision does not have in common with its base from the repository and from SOURCE,
and compares them. backy backup does this after each backup. A SOURCE without a snapshot has to be as it was when
it was backed up: --since gives its size, and mtime and ctime in nanoseconds, from before; otherwise it is not checked.
A check that did not come to its end is no success: the exit code is then 1.`,
	Examples: `backy-scrub spot -b /srv/backy/vm1 -s /var/lib/images/vm1.img --since $(stat -c %s,%.9Y,%.9Z /var/lib/images/vm1.img | tr -d .)
backy-scrub spot -b /srv/backy/vm1 -s /dev/vg0/vm1-snap -p 5`,
	Progress: true,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Value: "last", Usage: "the revision `REV`"},
		&cli.StringFlag{Name: "source", Aliases: []string{"s"}, Required: true, Usage: "the disk or snapshot `SOURCE` that it was made of"},
		&cli.StringFlag{Name: "since", Usage: "compare only if SOURCE still has this `STATE`: SIZE,MTIME,CTIME"},
		&cli.StringFlag{Name: "percent", Aliases: []string{"p"}, Value: "1", Usage: "compare `PERCENT` of them, but at least one"},
		&cli.StringFlag{Name: "max-duration", Value: "5m", Usage: "begin to read nothing more after a `TIME`"},
		jsonFlag,
	},
	Action: spot,
}

var reportsVerb = app.Command{
	Name: "reports", Usage: "list, show or delete what scrubs found", Args: "ACTION [ID...]",
	Help: `A scrub that found anything leaves a report, and blocks that differ from their source as evidence. ACTION is
list, show (as JSON), or delete. ID is that of a report, or the beginning of it. Reports are in .backy/quarantine.`,
	Examples: `backy-scrub reports -b /srv/backy list
backy-scrub reports -b /srv/backy show NkjcG4wt
backy-scrub reports -b /srv/backy delete NkjcG4wt`,
	Action: reports,
}

func verify(ctx context.Context, c *app.Context) error {
	r, job, err := c.Job()
	if err != nil {
		return err
	}
	o, err := options(c, r)
	if err != nil {
		return err
	}
	o.Lift = true
	if c.Bool("pending") {
		if c.IsSet("revision") {
			return app.Usagef("--pending says itself which revision")
		}
		next, err := scrub.Pending(ctx, r, job)
		if err != nil || next == nil {
			return err
		}
		o.Revisions = []repo.Revision{*next}
	} else if o.Revisions, err = selected(r, job.Name, c.String("revision"), "trust:distrusted"); err != nil {
		return err
	}
	if len(o.Revisions) == 0 {
		c.Log.Info("there is nothing to verify: no revision of " + job.Name + " is distrusted")
		return nil
	}
	report, err := scrub.Run(ctx, o)
	if err != nil {
		return err
	}
	if c.Bool("remove-failed") {
		if err := removeFailed(ctx, c, job, o.Revisions, report); err != nil {
			c.Log.Error(err.Error())
			return cmp.Or(tell(c, report), err)
		}
	}
	err = tell(c, report)
	if err == nil && !report.Complete {
		err = fmt.Errorf("%s is not verified: the time was over before the end", report.What)
	}
	return err
}

// removeFailed forgets the revisions that were to be verified and are damaged.
func removeFailed(ctx context.Context, c *app.Context, job *repo.Job, list []repo.Revision, report scrub.Report) error {
	var ids []string
	for _, v := range report.Revisions {
		if len(v.Damage) > 0 && slices.ContainsFunc(list, func(r repo.Revision) bool { return r.ID == v.ID }) {
			ids = append(ids, v.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	_, minAge, err := config.ReadRules(job.Dir())
	if named := (*config.NamedError)(nil); err != nil && !errors.As(err, &named) {
		return err
	}
	var gone []string
	err = job.Edit(ctx, repo.Guard{MinAge: minAge}, func(e *repo.Edit) error {
		for _, r := range e.Revisions {
			switch {
			case !slices.Contains(ids, r.ID):
			case r.State.Protected:
				c.Log.Warn("revision " + r.ID + " is damaged, and stays: it is protected")
			default:
				gone = append(gone, r.ID)
				if err := e.Forget(r.ID); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove those that failed: %w", err)
	}
	if len(gone) > 0 {
		c.Log.Warn("forgotten, because damaged: " + strings.Join(gone, ", "))
	}
	return nil
}

func spot(ctx context.Context, c *app.Context) error {
	r, job, err := c.Job()
	if err != nil {
		return err
	}
	o, err := options(c, r)
	if err != nil {
		return err
	}
	if o.Share, err = percent(c); err != nil {
		return err
	}
	rev, err := job.Find(c.String("revision"))
	if err != nil {
		return err
	}
	o.Revisions, o.Changed = []repo.Revision{rev}, true
	if c.IsSet("since") {
		if o.Since, err = parseState(c.String("since")); err != nil {
			return app.Usagef("--since: %w", err)
		}
	}
	done, err := source(c, &o)
	if err != nil {
		return err
	}
	defer done()
	report, err := scrub.Run(ctx, o)
	if err != nil {
		return err
	}
	err = tell(c, report)
	switch {
	case err != nil:
		return err
	case report.Skipped != "":
		return fmt.Errorf("%s is not checked: %s", report.What, report.Skipped)
	case report.NoVerdict != "":
		return fmt.Errorf("%s is not checked: %s", report.What, report.NoVerdict)
	case !report.Complete:
		return fmt.Errorf("%s is checked only in part: the time was over after %d blocks", report.What, report.Blocks)
	}
	return nil
}

// parseState reads SIZE,MTIME,CTIME, the times in nanoseconds since 1970.
func parseState(text string) (*disk.State, error) {
	words := strings.Split(text, ",")
	var n [3]int64
	if len(words) != len(n) {
		return nil, fmt.Errorf("%q is no SIZE,MTIME,CTIME", text)
	}
	for i, word := range words {
		var err error
		if n[i], err = strconv.ParseInt(word, 10, 64); err != nil {
			return nil, fmt.Errorf("%q is no SIZE,MTIME,CTIME", text)
		}
	}
	return &disk.State{Size: n[0], Modified: time.Unix(0, n[1]), Changed: time.Unix(0, n[2])}, nil
}

func reports(_ context.Context, c *app.Context) error {
	r, _, err := c.Repo()
	if err != nil {
		return err
	}
	ids := c.Args().Slice()[1:]
	action := c.Args().First()
	switch {
	case action == "list" && len(ids) == 0:
		return listReports(c, r)
	case (action == "show" || action == "delete") && len(ids) > 0:
	case action == "show" || action == "delete":
		return app.Usagef("%s what? The ID of a report is missing; `backy-scrub reports list` lists them", action)
	default:
		return app.Usagef("%q is nothing to do with reports: want list, show ID or delete ID", strings.Join(c.Args().Slice(), " "))
	}
	for _, id := range ids {
		q, err := r.Quarantine(id)
		if err != nil {
			return err
		}
		if action == "delete" {
			if err := q.Delete(); err != nil {
				return fmt.Errorf("delete a report: %w", err)
			}
			continue
		}
		text, err := q.Read()
		if err != nil {
			return err
		}
		if _, err := c.Stdout.Write(text); err != nil {
			return err
		}
		c.Log.Info("the evidence is in " + q.Path())
	}
	return nil
}

func listReports(c *app.Context, r *repo.Repo) error {
	ids, err := r.Quarantines()
	if err != nil {
		return err
	}
	var list []scrub.Report
	for _, id := range ids {
		report := scrub.Report{ID: id, What: "(it cannot be read)"}
		if q, err := r.Quarantine(id); err == nil {
			if text, err := q.Read(); err == nil {
				if err := json.Unmarshal(text, &report); err != nil {
					report.What = fmt.Sprintf("(it cannot be read: %v)", err)
				}
			}
		}
		list = append(list, report)
	}
	slices.SortFunc(list, func(a, b scrub.Report) int { return a.Time.Compare(b.Time) })
	t := app.Table{Columns: []app.Column{{Title: "Date (" + app.Zone() + ")"}, {Title: "ID"}, {Title: "What"}, {Title: "Bad", Right: true}, {Title: "Differs", Right: true}, {Title: "Unknown", Right: true}}}
	for _, q := range list {
		t.Row(q.Time.Local().Format(time.DateTime), q.ID, q.What, strconv.Itoa(len(q.Bad)), strconv.FormatInt(int64(len(q.Differs))+q.DiffersMore, 10), strconv.Itoa(len(q.Unknown)+q.UnknownMore))
	}
	if len(list) > 0 {
		if _, err := t.WriteTo(c.Stdout); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(c.Stdout, "%d reports\n", len(list))
	return err
}

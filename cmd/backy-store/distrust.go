package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/repo"
)

var distrustVerb = app.Command{
	Name: "distrust", Usage: "mark revisions that may differ from what the disk was",
	Help: `Distrusts the revisions that -r names, or those from -f to -u, or, without any of these, all of the job. A
distrusted revision can still be restored, but no backup builds on it, the next backup of the job reads the
whole disk, and expire does not count it. backy verify checks that it can be read, and trusts it again.
` + naming,
	Examples: `backy-store distrust -b /srv/backy/vm1 -r last
# all since the storage began to fail
backy-store distrust -f 2026-11-01
backy-store distrust -f first -u 2026-10-31`,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Usage: "the revisions `REV`"},
		&cli.StringFlag{Name: "from", Aliases: []string{"f"}, Usage: "the first one, `REV` or a date (default: the oldest)"},
		&cli.StringFlag{Name: "until", Aliases: []string{"u"}, Usage: "the last one, `REV` or a date (default: the newest)"},
	},
	Action: distrust,
}

func distrust(ctx context.Context, c *app.Context) error {
	between := c.IsSet("from") || c.IsSet("until")
	if c.IsSet("revision") && between {
		return app.Usagef("-r cannot be had together with -f and -u")
	}
	_, job, err := c.Job()
	if err == nil {
		err = job.Exists()
	}
	if err != nil {
		return err
	}
	marked, before := 0, 0
	err = job.Edit(ctx, repo.Guard{}, func(e *repo.Edit) error {
		list := e.Revisions
		switch {
		case c.IsSet("revision"):
			list, err = e.Select(c.String("revision"))
		case between:
			list, err = e.Between(c.String("from"), c.String("until"))
		}
		if err != nil {
			return err
		}
		for _, r := range list {
			if r.StateErr != nil {
				c.Log.Warn("a revision whose state cannot be read is not trusted anyway", "revision", r.ID, "error", r.StateErr)
				continue
			}
			if r.State.Trust == repo.Distrusted && r.State.Why != repo.WhyDamage {
				before++
				continue
			}
			if err := e.Change(r.ID, func(s *repo.State) error {
				s.Trust, s.Why, s.Checked = repo.Distrusted, repo.WhyOperator, time.Time{}
				return nil
			}); err != nil {
				return err
			}
			marked++
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.Log.Info(fmt.Sprintf("%d revisions of %s are distrusted now; %d were already", marked, job.Name, before))
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/event"
	"backy/pkg/repo"
)

var purgeVerb = app.Command{
	Name: "purge", Usage: "free the space of what no revision needs any more",
	Help: `Deletes the objects that no revision and no living session reaches, in all of the repository. It can run beside
everything else, waits for nobody, and may be stopped at any moment: the next purge goes on.

What nobody needs is first moved to .backy/limbo, and deleted when each backup that was under way then has ended: such a
backup may have found it and be about to use it. In a repository at rest one call does both. Otherwise the summary says for
whom it waits; purge again later, or with --wait. A backup that hangs is cut off with --end: it cannot commit any more.

It stops before it changes anything where a revision, or a page of one, cannot be read, and where more than half of all
objects would go.`,
	Examples: `backy-store forget -b /srv/backy/vm1 -r first && backy-store purge -b /srv/backy
# what would one pass do?
backy-store purge -b /srv/backy --dry-run
# the backup that purge says it waits for hangs
backy-store purge -b /srv/backy --end NkjcG4wtGr5uRyCsQeWXQd`,
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "change nothing; say what one pass would do"},
		&cli.BoolFlag{Name: "wait", Usage: "until what is in limbo now is deleted, too"},
		&cli.StringSliceFlag{Name: "end", Usage: "take the session `ID` for over, though it seems to be alive; may be given again"},
		&cli.BoolFlag{Name: "force", Usage: "also where more than half of all objects would go"},
		&cli.BoolFlag{Name: "json", Usage: "say what was done on standard output, as JSON"},
	},
	Progress: true,
	Action:   purge,
	Grace:    10 * time.Second,
}

func purge(ctx context.Context, c *app.Context) error {
	r, _, err := c.Repo()
	if err != nil {
		return err
	}
	o := repo.PurgeOptions{
		DryRun: c.Bool("dry-run"), Force: c.Bool("force"), Wait: c.Bool("wait"), End: c.StringSlice("end"), Log: c.Log,
		Progress: func(done, total int64) { // what the pages map, so that it is bytes like all progress
			span := r.BlockSize * 1024
			c.Events.Emit(event.Event{Kind: event.Progress, Done: done * span, Total: total * span})
		},
	}
	if o.DryRun && o.Wait {
		return app.Usagef("--dry-run waits for nothing: leave --wait out")
	}
	for _, id := range o.End {
		if err := repo.CheckID(id); err != nil {
			return app.Usagef("--end: %w", err)
		}
	}
	begin := c.Now()
	report, err := r.Purge(ctx, o)
	c.EndProgress()
	if err != nil {
		return err
	}
	if !o.DryRun {
		c.Events.Emit(event.Event{Kind: event.Purged, Freed: report.Freed.Bytes, Objects: report.Freed.Objects, Duration: c.Now().Sub(begin).Round(time.Millisecond).Seconds(),
			Message: strings.ReplaceAll(strings.TrimSpace(summary(report)), "\n", "; ")})
	}
	if c.Bool("json") {
		return json.NewEncoder(c.Stdout).Encode(report)
	}
	_, err = c.Stdout.WriteString(summary(report))
	return err
}

// summary is what people want to know of a purge.
func summary(r repo.PurgeReport) string {
	var s strings.Builder
	freed, back, cut := "freed", "put back from limbo, for it is needed again", "was cut off"
	if r.DryRun {
		freed, back, cut = "would be freed", "would be put back from limbo, for it is needed again", "would be cut off"
	}
	for _, e := range r.Ended {
		if e.Alive { // of those that just ended, nobody wants to know
			fmt.Fprintf(&s, "%s; it %s\n", e, cut)
		}
	}
	fmt.Fprintf(&s, "%s %s\n", amount(r.Freed), freed)
	if r.DryRun {
		fmt.Fprintf(&s, "%s would be moved to limbo\n", amount(r.Moved))
	}
	if r.Back.Objects > 0 {
		fmt.Fprintf(&s, "%s %s\n", amount(r.Back), back)
	}
	fmt.Fprintf(&s, "%s kept: revisions or sessions need them\n", count(r.Kept))
	if r.TooMany {
		fmt.Fprintln(&s, "more than half of all objects would be moved, so this takes --force")
	}
	for _, e := range r.Limbo {
		fmt.Fprintf(&s, "%s in limbo (%s)", amount(e.Amount), e.Epoch)
		if len(e.For) == 0 {
			fmt.Fprintln(&s, "; the next purge frees them")
			continue
		}
		fmt.Fprintln(&s, " until these have ended, who may have found them in place:")
		for _, w := range e.For {
			fmt.Fprintf(&s, "  %s on %s, pid %d, since %s (--end %s cuts it off)\n", w.Kind, w.Host, w.PID, w.Since.Local().Format(time.DateTime), w.ID)
		}
	}
	return s.String()
}

func amount(a repo.Amount) string { return count(a.Objects) + ", " + app.Bytes(a.Bytes) + "," }

func count(n int64) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}

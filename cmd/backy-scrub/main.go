// Backy-scrub reads back what a repository holds, and says what is to be trusted.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/open"
	"backy/pkg/repo"
	"backy/pkg/schedule"
	"backy/pkg/scrub"
)

func main() { app.Main(command) }

var jsonFlag = &cli.BoolFlag{Name: "json", Usage: "the report as JSON on standard output"}

var command = app.Command{
	Name:  "backy-scrub",
	Usage: "read back what the repository holds, and find what is bad",
	Help: `Reads objects and checks them against their names: in the base directory all of the repository, in a job's
directory, or with it as -b, what the job's revisions reach, with -r what these reach. Nothing is read twice.

What is bad is marked, and every revision that reaches it, in any job, becomes distrusted, with the ranges of its
disk that are damaged. It can be restored all the same, but for these, and stays the base of the next backup; that
reads them from the disk again, and so heals all revisions. Revisions that were read whole and are right become
verified. What could not be read, because of an I/O error, is unknown, and changes nothing.

With -p, a part of the repository is read, each time the part that is next: 30 runs of -p 3.33 read everything once.
The report says when the part was last read whose turn is longest ago. A whole scrub that is ended by --max-duration
goes on there, too. With -r, -p reads a sample of the revision.

With -s, every block of the revision is compared with SOURCE, the disk or snapshot that it was made of, those too
that are zero. If it differs, the revision becomes distrusted and is no base any more; the blocks are kept in a report.
SOURCE has to be as it was then: a disk in use differs.

The exit code is 3 where data is damaged, and was not healed.`,
	Examples: `backy-scrub -b /srv/backy -p 3.33
backy-scrub -b /srv/backy --max-duration 4h
backy-scrub -b /srv/backy/vm1 -r last -s /dev/vg0/vm1-snap
backy-scrub -b /srv/backy --heal-from /mnt/other/backy
# heal what is known to be bad, and read nothing else
backy-scrub -b /srv/backy -p 0 --heal-from /mnt/other/backy`,
	Progress: true,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Usage: "only the revisions `REV`"},
		&cli.StringFlag{Name: "percent", Aliases: []string{"p"}, Value: "100", Usage: "read `PERCENT` of it"},
		&cli.StringFlag{Name: "source", Aliases: []string{"s"}, Usage: "compare the revision with `SOURCE`"},
		&cli.StringFlag{Name: "max-duration", Usage: "begin to read nothing more after a `TIME` such as 30m or 4h"},
		&cli.StringFlag{Name: "heal-from", Usage: "take good copies of what is bad from the repository at `DIR`"},
		jsonFlag,
	},
	Action: run,
	Verbs:  []app.Command{verifyVerb, spotVerb, reportsVerb},
}

// percent reads a number from 0 to 100, with or without a percent sign, as a share.
func percent(c *app.Context) (float64, error) {
	text := c.String("percent")
	n, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !(n >= 0 && n <= 100) {
		return 0, app.Usagef("--percent: %q is no number from 0 to 100", text)
	}
	return n / 100, nil
}

// options are those that all ways to scrub share.
func options(c *app.Context, r *repo.Repo) (scrub.Options, error) {
	o := scrub.Options{Repo: r, Share: 1, Now: c.Now, Log: c.Log, Events: c.Events}
	if text := c.String("max-duration"); text != "" {
		limit, err := schedule.ParseDuration(text)
		if err != nil {
			return o, app.Usagef("--max-duration: %w", err)
		}
		o.Limit = limit
	}
	return o, nil
}

func run(ctx context.Context, c *app.Context) error {
	r, name, err := c.Repo()
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
	if name != "" {
		if o.Revisions, err = selected(r, name, c.String("revision"), "all"); err != nil {
			return err
		}
		if !c.IsSet("revision") && o.Share < 1 && o.Share > 0 {
			return app.Usagef("--percent goes round the objects of the whole repository, or samples a revision: say -b %s, or -r", r.Base)
		}
	} else if c.IsSet("revision") || c.IsSet("source") {
		return app.Usagef("--revision and --source need a job: -b %s/JOB", r.Base)
	}
	if c.IsSet("source") {
		if len(o.Revisions) != 1 {
			return app.Usagef("--source is compared with one revision; name it with -r")
		}
		done, err := source(c, &o)
		if err != nil {
			return err
		}
		defer done()
	}
	if dir := c.String("heal-from"); dir != "" {
		if o.HealFrom, _, err = repo.Open(dir, repo.World{Now: c.Now}); err != nil {
			return fmt.Errorf("--heal-from: %w", err)
		}
		if o.HealFrom.Base == r.Base {
			return app.Usagef("--heal-from: %s is the repository that is to be healed", dir)
		}
	}
	report, err := scrub.Run(ctx, o)
	if err != nil {
		return err
	}
	return tell(c, report)
}

// selected are the revisions of a job that a text names, or those that otherwise names.
func selected(r *repo.Repo, name, spec, otherwise string) ([]repo.Revision, error) {
	job, err := r.Job(name)
	if err == nil {
		err = job.Exists()
	}
	if err != nil {
		return nil, err
	}
	if spec == "" {
		spec = otherwise
	}
	list, err := job.Select(spec)
	if list == nil {
		list = []repo.Revision{}
	}
	return list, err
}

// source opens what the revision is compared with.
func source(c *app.Context, o *scrub.Options) (done func(), err error) {
	a, err := open.Parse(c.String("source"))
	if err != nil {
		return nil, app.Usage(err)
	}
	d, err := open.Source(a, open.Options{})
	if err != nil {
		return nil, err
	}
	o.Source, o.SourceName = d, c.String("source")
	return func() { d.Close() }, nil
}

// tell says how it went.
func tell(c *app.Context, r scrub.Report) error {
	c.EndProgress()
	if c.Bool("json") {
		if err := json.NewEncoder(c.Stdout).Encode(r); err != nil {
			return err
		}
	} else if err := write(c, r); err != nil {
		return err
	}
	kept := ""
	if r.ID != "" {
		kept = "; `backy-scrub reports show " + r.ID[:8] + "` tells more"
	}
	switch unknown := len(r.Unknown) + r.UnknownMore; {
	case r.Damaged():
		return app.Damaged("%s is damaged: %d objects are bad, %d of them new, and %d ranges differ from the source%s", r.What, len(r.Bad)-healed(r), fresh(r), int64(len(r.Differs))+r.DiffersMore, kept)
	case unknown > 0:
		return fmt.Errorf("%d things of %s could not be read, which says nothing about them%s", unknown, r.What, kept)
	}
	return nil
}

func fresh(r scrub.Report) (n int) {
	for _, b := range r.Bad {
		if b.New {
			n++
		}
	}
	return n
}

// healed counts the bad objects of a report that are good now.
func healed(r scrub.Report) (n int) {
	good := map[string]bool{}
	for _, key := range r.Healed {
		good[key] = true
	}
	for _, b := range r.Bad {
		if good[b.Key] {
			n++
		}
	}
	return n
}

// write writes a report for people.
func write(c *app.Context, r scrub.Report) error {
	if len(r.Revisions) > 0 {
		t := app.Table{Columns: []app.Column{{Title: "Job"}, {Title: "Date (" + app.Zone() + ")"}, {Title: "ID"}, {Title: "Trust"}, {Title: "Damaged", Right: true}, {Title: "Ranges"}}}
		for _, v := range r.Revisions {
			t.Row(v.Job, v.Time.Local().Format(time.DateTime), v.ID, strings.TrimSpace(v.Trust+" "+v.Why), size(v.Damage), ranges(v.Damage))
		}
		if _, err := t.WriteTo(c.Stdout); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("%s: %d objects read (%s)", r.What, r.Objects, app.Bytes(r.Read))
	if r.Blocks > 0 {
		text += fmt.Sprintf(", %d blocks compared with the source", r.Blocks)
	}
	text += fmt.Sprintf(", %d bad, %d healed", len(r.Bad)-healed(r), len(r.Healed))
	switch {
	case r.Skipped != "":
		text += "; not checked: " + r.Skipped
	case !r.Complete:
		text += "; the time was over before the end"
	}
	if strings.HasPrefix(r.What, "the repository") {
		text += "; all of it was last read "
		if r.Oldest == nil {
			text += "never"
		} else {
			text += "since " + r.Oldest.Local().Format(time.DateTime)
		}
	}
	_, err := fmt.Fprintln(c.Stdout, text)
	return err
}

func size(list []repo.Range) string {
	n := int64(0)
	for _, r := range list {
		n += r.Length
	}
	if n == 0 {
		return ""
	}
	return app.Bytes(n)
}

// ranges are the first few of a list.
func ranges(list []repo.Range) string {
	var words []string
	for i, r := range list {
		if i == 4 {
			words = append(words, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		words = append(words, r.String())
	}
	return strings.Join(words, " ")
}

// Backy-restore gives a revision back: to a disk, to standard output, or as a stream of extents.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/open"
	"backy/pkg/restore"
)

func main() { app.Main(command) }

var command = app.Command{
	Name:  "backy-restore",
	Usage: "a revision to a disk, to standard output, or to a stream of extents",
	Args:  "[TARGET]",
	Help: `Writes the disk of a revision to TARGET: a new image file, which is sparse and gets its name when it is whole and on
the disk; with --force an image file or block device that exists, all of which is written over, with zeroes where
the disk has zeroes; an image of Ceph (rbd:POOL[/NAMESPACE]/IMAGE, in a build with the tag ceph), new or, with --force,
one that exists; or "-", standard output. A TARGET that is too small is refused before anything is written.

Each block is checked against its name before it is written. What is damaged is listed as ranges of bytes, becomes
zeroes, or is left alone with --keep, and does not stop the rest; the exit code is then 3.

The revision is named with -r: a count back (0 is the newest), last or first, an id or its start, a tag, or a date.
backy-store status lists what there is. A repository that cannot be written to will do.

With --diff, a stream of extents that rbd import-diff and backy-chunk take goes to standard output: the whole disk,
or with --from what has changed since that revision. At the first damage it ends with exit code 1 and can not be
imported; with --keep the damaged ranges are left out, and the exit code is 3.`,
	Examples: `backy-restore -b /srv/backy/vm1 vm1.img
# what was there a week ago, over a volume of at least its size
backy-restore -b /srv/backy/vm1 -r 2026-11-14 --force /dev/vg0/vm1
# is all of the newest revision there and right?
backy-restore -b /srv/backy/vm1 --check
backy-restore -b /srv/backy/vm1 - | ssh other 'dd of=/dev/vg0/vm1 bs=4M'
backy-restore -b /srv/backy/vm1 --diff | rbd import-diff - vms/vm1-restored`,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Value: "last", Usage: "the revision `REV`"},
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "write over a TARGET that exists"},
		&cli.BoolFlag{Name: "sparse", Usage: "write no zeroes: TARGET is known to be all zero"},
		&cli.BoolFlag{Name: "keep", Usage: "leave in TARGET what is there where the revision is damaged; leave it out of a --diff"},
		&cli.BoolFlag{Name: "check", Usage: "read and check everything, and write nothing"},
		&cli.BoolFlag{Name: "diff", Usage: "write a stream of extents to standard output"},
		&cli.StringFlag{Name: "from", Usage: "with --diff: only what differs from revision `REV`"},
		&cli.BoolFlag{Name: "json", Usage: "say on standard output, as JSON, what was restored and what is damaged"},
		app.SizeFlag("memory", "128M", "what blocks on their way may take: `SIZE`"),
	},
	Progress: true,
	Action:   run,
}

// what is where a revision is to go.
type what struct {
	target string // to be opened; "" for standard output and for a check
	stdout bool
	diff   bool
}

// understand finds out what the flags ask for, and refuses what makes no sense together.
func understand(c *app.Context) (what, error) {
	target := c.Args().First()
	w := what{target: target, diff: c.Bool("diff")}
	w.stdout = target == "-" || w.diff
	if w.stdout {
		w.target = ""
	}
	switch check := c.Bool("check"); {
	case check && (w.diff || target != ""):
		return w, app.Usagef("--check writes nothing; leave --diff and TARGET away")
	case w.diff && target != "" && target != "-":
		return w, app.Usagef("--diff writes to standard output: say > %s", target)
	case !check && !w.diff && target == "":
		return w, app.Usagef("TARGET is missing: a file, a block device, - for standard output; or one of --check and --diff")
	case c.IsSet("from") && !w.diff:
		return w, app.Usagef("--from goes with --diff")
	case c.Bool("sparse") && w.target == "", c.Bool("force") && w.target == "":
		return w, app.Usagef("--force and --sparse are about a TARGET that is a file or block device")
	case c.Bool("keep") && !w.diff && w.target == "":
		return w, app.Usagef("--keep is about a TARGET that is a file or block device, or about a --diff")
	case c.Bool("json") && w.stdout:
		return w, app.Usagef("--json and the disk cannot both go to standard output; --events FILE tells of damage, too")
	}
	return w, nil
}

func run(ctx context.Context, c *app.Context) error {
	w, err := understand(c)
	if err != nil {
		return err
	}
	o := restore.Options{Sparse: c.Bool("sparse"), Keep: c.Bool("keep"), Memory: c.Size("memory"), Log: c.Log, Events: c.Events}
	if err := find(c, &o); err != nil {
		return err
	}
	var out *os.File
	switch {
	case w.stdout:
		if out, err = c.Output("a disk"); err != nil {
			return err
		}
		if w.diff {
			o.Diff = out
		} else {
			o.Stream = out
		}
	case w.target != "":
		a, err := open.Parse(w.target)
		if err != nil {
			return app.Usage(err)
		}
		t, err := open.Target(a, o.Revision.Size, c.Bool("force"))
		if err != nil {
			return err
		}
		defer t.Close()
		o.Target = t
	}
	report, err := restore.Run(ctx, o)
	if err != nil {
		return err
	}
	if out != nil {
		if err := sync(out); err != nil {
			return err
		}
	}
	return tell(c, w, report)
}

// find opens the repository and finds the revisions.
func find(c *app.Context, o *restore.Options) error {
	r, job, err := c.Job()
	if err != nil {
		return err
	}
	o.Repo = r
	if o.Revision, err = c.Find(job, c.String("revision")); err != nil {
		return err
	}
	if c.IsSet("from") {
		from, err := c.Find(job, c.String("from"))
		if err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		o.From = &from
	}
	return nil
}

// sync makes durable what standard output is, if that has such a notion.
func sync(out *os.File) error {
	i, err := out.Stat()
	if err != nil || !i.Mode().IsRegular() && i.Mode()&fs.ModeDevice == 0 || i.Mode()&fs.ModeCharDevice != 0 {
		return err
	}
	return out.Sync()
}

// tell says how it went.
func tell(c *app.Context, w what, r restore.Report) error {
	var err error
	if c.Bool("json") {
		err = json.NewEncoder(c.Stdout).Encode(r)
	}
	to := w.target
	switch {
	case w.diff:
		to = "a stream of extents"
	case w.stdout:
		to = "standard output"
	case to == "":
		to = "nowhere, to check it"
	}
	name := fmt.Sprintf("revision %s of %s (%s, %s)", r.Revision, r.Job, r.Time.Local().Format(time.DateTime), app.Bytes(r.Size))
	c.Log.Info(name+" restored to "+to, "read", app.Bytes(r.Read))
	if len(r.Damage) == 0 {
		return err
	}
	now := "zeroes"
	switch {
	case c.Bool("check"):
		now = "lost"
	case w.diff:
		now = "left out"
	case c.Bool("keep"):
		now = "left as they were"
	}
	return errors.Join(app.Damaged("%s is damaged: %s in %d ranges, listed above, are %s", name, app.Bytes(r.Lost()), len(r.Damage), now), err)
}

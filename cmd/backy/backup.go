package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/config"
	"backy/pkg/pipeline"
)

func backupCommand() app.Command {
	return app.Command{
		Name:  "backup",
		Usage: "make a revision of a disk",
		Args:  "[SOURCE]",
		Help: `Backs up SOURCE: an image file, a block device, rbd:POOL/IMAGE, or "-" for standard input. Without
SOURCE, the file "config" in the job's directory tells it:

    source:
      type: file
      filename: /dev/vg0/vm1
    schedule:
      daily: {interval: 1d, keep: 9}
      weekly: {interval: 1w, keep: 5}

Tags have to be in that schedule, or begin with manual:. A backup without tags gets those that are due by it;
where the job has none, by daily, weekly and monthly.

This is backy-read | backy-chunk | backy-store; the flags are theirs. All of SOURCE is read, but only
what differs from the newest revision is compressed and stored; with --map, only what the map names is
read, unless the newest revision is distrusted. Of an image of Ceph a snapshot is made, and only what
changed since the last one's is read. --freeze and --thaw are run around that; the config has them as
freeze, thaw and freeze-time, and full-always. One line of JSON that describes the new revision goes to
standard output. Where a stage finds that what it built on went away meanwhile, all is run again, once.

Afterwards a sample of what was stored is read back and compared with SOURCE, or with its snapshot, where
it did not change meanwhile, and the newest distrusted revision of the job is verified, once. If either finds damage, the
exit code is 3; the new revision is there all the same.`,
		Examples: `backy backup -b /srv/backy/vm1 /dev/vg0/vm1 -t daily
cd /srv/backy/vm1 && backy backup -t daily,weekly
# read only what has changed since the newest revision's snapshot
rbd diff --from-snap old --format=json vms/vm1@new > map.json
backy backup -b /srv/backy/vm1 rbd:vms/vm1@new -t daily --map map.json
# the same by a snapshot of backy's own, of a file system that is at rest
backy backup -b /srv/backy/vm1 rbd:vms/vm1 -t daily --freeze 'ssh vm1 fsfreeze -f /srv' --thaw 'ssh vm1 fsfreeze -u /srv'
zcat vm1.gz | backy backup -b /srv/backy/vm1 - --size 10G -t manual:old`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "tags", Aliases: []string{"t"}, Usage: "the revision's `TAGS`, separated by commas; those that begin with manual: are never expired (default: those that are due by the job's schedule)"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "take tags that the job's schedule does not have; backy expire may remove them again"},
			&cli.StringFlag{Name: "base", Value: "last", Usage: "the revision `REV` to compare with; last is the newest that is fit for it; none is to compare with nothing"},
			&cli.StringFlag{Name: "map", Usage: "a `FILE` that says what may have changed since the base: rbd diff or nbdinfo --map, as JSON"},
			&cli.StringFlag{Name: "alloc", Usage: "a `FILE` that says where the disk holds data: rbd diff, qemu-img map or nbdinfo --map, as JSON"},
			&cli.BoolFlag{Name: "compare", Usage: "read everything and compare it with the base, also where it is known what has changed"},
			&cli.BoolFlag{Name: "full", Usage: "read everything and build on nothing; a snapshot that is made for it does not stay"},
			&cli.StringFlag{Name: "freeze", Usage: "before a snapshot is made, run `CMD` by /bin/sh, and --thaw after it"},
			&cli.StringFlag{Name: "thaw", Usage: "after the snapshot is made, run `CMD`, whatever became of it"},
			&cli.StringFlag{Name: "freeze-time", Usage: "how long each of them may take: a `TIME` (default: 30s)"},
			&cli.StringFlag{Name: "freeze-vm", Usage: "have the snapshot made by who looks after the virtual machine `NAME`, asked through Consul"},
			app.SizeFlag("size", "", "the `SIZE` of what comes on standard input, if that is a pipe"),
			&cli.BoolFlag{Name: "no-holes", Usage: "read holes too, in place of taking them for zero"},
			&cli.BoolFlag{Name: "direct", Usage: "read past the page cache (O_DIRECT)"},
			app.SizeFlag("limit-rate", "", "read at most `SIZE` bytes a second"),
			app.SizeFlag("memory", "", "what blocks on their way through backy-chunk may take: `SIZE`"),
			&cli.StringFlag{Name: "spot-check", Usage: "afterwards compare `PERCENT` of what was stored with SOURCE, if that is a file that did not change meanwhile, or with its snapshot; 0 is none (default: as the job's config says, or 1%)"},
			&cli.StringFlag{Name: "spot-time", Usage: "end that after a `TIME`, as in 30m (default: as the job's config says, or 5m)"},
			app.FractionFlag("min-free", "", "stop before less than this `SHARE` of the repository's disk is free"),
		},
		Progress: true,
		Action:   backup,
		Grace:    2 * grace,
	}
}

// grace is how long the stages may take to end; ours is longer, to see them end.
const grace = 5 * time.Second

func backup(ctx context.Context, c *app.Context) error {
	dir := c.Backupdir
	if dir == "" {
		dir = "."
	}
	b := &pipeline.Backup{Dir: dir}
	if err := findSource(c, b); err != nil {
		return err
	}
	if c.IsSet("tags") && strings.Trim(c.String("tags"), ", ") == "" {
		return app.Usagef("-t names no tags; leave it out to get those that are due")
	}
	check, err := newChecks(c, dir, b.Source)
	if err != nil {
		return err
	}
	flags(c, b)
	revision, err := run(ctx, c, b)
	return check.after(ctx, revision, err)
}

// findSource sets what is to be read: what was said, or what the job's config says. Where both are the same disk it is read
// as the config says, too.
func findSource(c *app.Context, b *pipeline.Backup) error {
	job, err := config.ReadJob(b.Dir)
	source := c.Args().First()
	switch {
	case source != "":
		if err := checkSource(source, job); err != nil {
			return err
		}
		b.Source = source
		if job == nil {
			if !errors.Is(err, fs.ErrNotExist) {
				c.Log.Warn("the job's config is not heeded, because it is wrong: " + err.Error())
			}
			return nil
		}
		if known, err := job.Source.Address(); err == nil && source != "-" && pipeline.Same(source, known) {
			return b.From(job.Source)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return app.Usagef("SOURCE is missing, and there is no %s that tells it; say which disk to back up", config.JobFile+" in "+b.Dir)
	case err != nil:
		return err
	}
	return b.From(job.Source)
}

// checkSource finds out early that a file is not there, because people give tags as they did with the backy of old.
func checkSource(source string, job *config.Job) error {
	scheme, _, address := strings.Cut(source, ":")
	if source == "-" || address && scheme != "manual" && !strings.Contains(scheme, "/") {
		return nil // backy-read knows
	}
	if _, err := os.Stat(source); !errors.Is(err, fs.ErrNotExist) {
		return nil // as above
	}
	example := "backy backup SOURCE -t " + source
	if job != nil {
		example = "backy backup -t " + source
	}
	if strings.Contains(source, "/") {
		example = "backy backup SOURCE -t daily"
	}
	return app.Usagef("%s: there is no such file or device. SOURCE is the disk to back up; tags are given with -t: %s", source, example)
}

// flags sets what the command line says of the stages; it comes after what the config says, and counts.
func flags(c *app.Context, b *pipeline.Backup) {
	b.Shared = c.CommonArgs()
	b.Again = func(stage string) {
		c.Log.Info("nothing is wrong, but " + stage + " asks to be run again; doing so, once")
	}
	if base := c.String("base"); base != "none" {
		b.Base = base
	}
	if c.Bool("compare") {
		b.Read = slices.DeleteFunc(b.Read, func(flag string) bool { return flag == "--full" }) // of full-always
	}
	for _, stage := range []struct {
		to    *[]string
		names []string
	}{
		{&b.Read, []string{"map", "alloc", "size", "no-holes", "direct", "limit-rate", "compare", "full", "freeze", "thaw", "freeze-time", "freeze-vm"}},
		{&b.Chunk, []string{"memory"}},
		{&b.Store, []string{"tags", "force", "min-free"}},
	} {
		for _, f := range stage.names {
			if c.IsSet(f) {
				*stage.to = append(*stage.to, fmt.Sprintf("--%s=%v", f, c.Value(f)))
			}
		}
	}
}

// run makes the backup and tells of it.
func run(ctx context.Context, c *app.Context, b *pipeline.Backup) (revision string, err error) {
	begin := c.Now()
	var result bytes.Buffer // one line, or none; it must not meet the progress bar
	o := pipeline.Options{Stdout: &result, Stderr: c.Stderr, Grace: grace, Events: c.Events.Emit}
	if b.Source == "-" {
		o.Stdin = c.Stdin
	}
	committed, err := b.Run(ctx, o)
	c.EndProgress()
	if _, werr := c.Stdout.Write(result.Bytes()); err == nil && werr != nil {
		err = fmt.Errorf("the backup is made, but to tell of it failed: %w", werr)
	}
	if err == nil && committed != nil {
		c.Log.Info(fmt.Sprintf("revision %s of %s: %s, of which %s changed; %s stored; took %s", committed.Revision, committed.Job,
			app.Bytes(committed.Total), app.Bytes(committed.Changed), app.Bytes(committed.Stored), app.Duration(c.Now().Sub(begin))))
		revision = committed.Revision
	}
	return revision, err
}

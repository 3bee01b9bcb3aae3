// Backy-read turns a disk into a stream of extents.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/freeze"
	"backy/pkg/open"
	"backy/pkg/read"
	"backy/pkg/schedule"
)

func main() { app.Main(command) }

var command = app.Command{
	Name:  "backy-read",
	Usage: "a disk to a stream of extents",
	Args:  "SOURCE",
	Help: `Reads an image file, a block device, an image of Ceph (rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT], in a build with
the tag ceph), or standard input (-), and writes on standard output what rbd export-diff would: a stream of extents.
Holes are not read, blocks that are all zero are not sent.

An image of Ceph is read from a snapshot of its own, where a job is given (-b) and no SNAPSHOT is named. It is called
backy-ID, for the revision to be, and stays until that one is superseded: with --base, the next read asks the cluster
what has changed since, and reads only that. The job's next read of the image, or --sweep, removes what is not needed any
more. Snapshots that others made are never touched.
--freeze is a command that is run before the snapshot is made, and --thaw one that is run after it, whatever happens.

With --base, all is read and only what differs from that revision is sent; with --map too, only what the map says
has changed is read. A map is a hint: some of the blocks that it leaves out are read and compared, and if it lies,
everything is read. So it is where the base is last, and the newest revision is no base. A map comes from one of
  rbd diff --from-snap OLD --format=json POOL/IMAGE@NEW
  nbdinfo --map=qemu:dirty-bitmap:NAME --json URI
An allocation map (--alloc), for a disk that cannot tell its holes, from one of
  rbd diff --format=json POOL/IMAGE@NEW
  qemu-img map --output=json IMAGE
  nbdinfo --map --json URI`,
	Examples: `backy-read disk.img | backy-chunk -b /srv/backy/vm1 | backy-store -b /srv/backy/vm1 -t daily
backy-read -b /srv/backy/vm1 --base last rbd:vms/vm1 | backy-chunk -b /srv/backy/vm1 | backy-store -b /srv/backy/vm1 -t daily
backy-read -b /srv/backy/vm1 --base last /dev/vg0/vm1-snap | backy-chunk -b /srv/backy/vm1 | backy-store -b /srv/backy/vm1 -t daily
zcat disk.gz | backy-read --size 10G - | backy-chunk > disk.tar`,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "base", Usage: "send only what differs from the revision `REV`; last is the newest that is fit, if there is one"},
		&cli.BoolFlag{Name: "compare", Usage: "read everything and compare it with the base, also where it is known what has changed"},
		&cli.BoolFlag{Name: "full", Usage: "read everything and send all of it; a snapshot that is made for it does not stay"},
		&cli.BoolFlag{Name: "sweep", Usage: "read nothing; remove the snapshots of earlier reads of SOURCE that the job does not need any more"},
		&cli.StringFlag{Name: "map", Usage: "a `FILE` that says what may have changed since the base"},
		&cli.StringFlag{Name: "alloc", Usage: "a `FILE` that says where the disk holds data; the rest is zero"},
		app.SizeFlag("size", "", "the `SIZE` of what comes on standard input, if that is a pipe"),
		app.SizeFlag("block", "", "block `SIZE`: a power of two from 256K to 16M (default: the base's, or the repository's, or 4M)"),
		&cli.IntFlag{Name: "check", Value: read.DefaultCheck, Usage: "check a map by reading `N` blocks that it leaves out"},
		&cli.BoolFlag{Name: "no-holes", Usage: "read holes too, in place of taking them for zero"},
		&cli.BoolFlag{Name: "direct", Usage: "read past the page cache (O_DIRECT)"},
		app.SizeFlag("limit-rate", "", "read at most `SIZE` bytes a second"),
		&cli.StringFlag{Name: "freeze", Usage: "before the snapshot is made, run `CMD` by /bin/sh; it finds the snapshot's name in BACKY_SNAPSHOT"},
		&cli.StringFlag{Name: "thaw", Usage: "after it is made, run `CMD`, whatever became of it"},
		&cli.StringFlag{Name: "freeze-time", Value: schedule.FormatDuration(freeze.DefaultLimit), Usage: "how long each of them may take: a `TIME` such as 30s"},
		&cli.StringFlag{Name: "freeze-vm", Usage: "have the snapshot made by who looks after the virtual machine `NAME`, asked through Consul (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN)"},
	},
	Progress: true,
	Action:   run,
	Grace:    grace,
}

// grace is how long it may take to remove the snapshot of a read that was interrupted.
const grace = 5 * time.Second

func run(ctx context.Context, c *app.Context) error {
	if c.Bool("sweep") {
		return sweep(ctx, c)
	}
	out, err := c.Output("a stream of extents")
	if err != nil {
		return err
	}
	r, job, err := c.RepoIfAny()
	if err != nil {
		return err
	}
	if c.Int("check") < 0 {
		return app.Usagef("--check %d: want a number of blocks", c.Int("check"))
	}
	o := read.Options{
		Out: out, Repo: r, Job: job, Base: c.String("base"), Block: c.Size("block"), Check: c.Int("check"),
		NoHoles: c.Bool("no-holes"), Rate: c.Size("limit-rate"), Full: c.Bool("full"), Compare: c.Bool("compare"),
		Now: c.Now, Log: c.Log, Events: c.Events,
	}
	for name, to := range map[string]*io.Reader{"map": &o.Map, "alloc": &o.Alloc} {
		if path := c.String(name); path != "" {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			*to = f
		}
	}
	if err := source(c, &o); err != nil {
		return err
	}
	if o.Disk != nil {
		defer o.Disk.Close()
	}
	if o.Freeze, err = freezer(c, o); err != nil {
		return err
	}
	return unbroken(out, func() error { return read.Run(ctx, o) })
}

// unbroken lets f have its own end where out is a pipe that nobody reads any more: it has a snapshot to remove. Then the
// process ends as it would have without.
func unbroken(out *os.File, f func() error) error {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	err := f()
	signal.Stop(broken)
	if errors.Is(err, syscall.EPIPE) {
		_, _ = out.Write([]byte{0}) // ends us, if it is standard output
	}
	return err
}

// sweep removes what earlier reads have left.
func sweep(ctx context.Context, c *app.Context) error {
	_, job, err := c.Job()
	if err != nil {
		return err
	}
	var o read.Options
	if c.Args().First() == "-" {
		return app.Usagef("--sweep: standard input has no snapshots; name the SOURCE that was read")
	}
	if err := source(c, &o); err != nil {
		return err
	}
	defer o.Disk.Close()
	left, err := read.Sweep(ctx, job, o.Disk, o.Source, c.Log)
	if err == nil && left > 0 {
		err = fmt.Errorf("%d of what earlier reads of %s have left could not be removed; the next read tries again", left, o.Source)
	}
	return err
}

// source opens what is to be read.
func source(c *app.Context, o *read.Options) error {
	name := c.Args().First()
	options := open.Options{Direct: c.Bool("direct")}
	if name != "-" {
		if c.IsSet("size") {
			return app.Usagef("--size is for standard input; %s has a size of its own", name)
		}
		a, err := open.Parse(name)
		if err == nil {
			a, err = a.Absolute()
		}
		if err != nil {
			return app.Usage(err)
		}
		o.Source = a.String()
		o.Disk, err = open.Source(a, options)
		return err
	}
	o.Source = "-"
	disk, err := open.File(c.Stdin, options)
	switch {
	case err == nil && c.IsSet("size") && c.Size("size") != disk.Size():
		return app.Usagef("standard input has %d bytes, and --size says %d", disk.Size(), c.Size("size"))
	case err == nil:
		o.Disk = disk
		return nil
	case !open.IsStream(err):
		return err
	case !c.IsSet("size"):
		return app.Usagef("standard input does not tell its size; give it with --size")
	}
	in, err := c.Input("a disk")
	o.Stream, o.Size = in, c.Size("size")
	return err
}

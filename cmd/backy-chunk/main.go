// Backy-chunk turns a stream of extents into a stream of objects.
package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/chunk"
)

func main() { app.Main(command) }

var command = app.Command{
	Name:  "backy-chunk",
	Usage: "a stream of extents to a stream of objects",
	Help: `Reads on standard input what backy-read or rbd export-diff wrote, cuts it into blocks, and writes on standard
output a tar archive: compressed chunks, each named by the SHA-256 of its content, and pages that map the disk's
blocks to them. In a job's directory, or with -b, it leaves out what the repository has.

A stream that builds on a snapshot of backy's names its base. For one that builds on another snapshot, say with
--base which revision was made from that.`,
	Examples: `backy-read disk.img | backy-chunk | tar -tv
cd /srv/backy/vm1 && rbd export-diff vms/vm1@now - | backy-chunk | backy-store -t daily
rbd export-diff --from-snap yesterday vms/vm1@now - | backy-chunk --base last | backy-store -t daily`,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "base", Usage: "the revision `REV` was made from the snapshot that the stream builds on"},
		app.SizeFlag("block", "", "block `SIZE`: a power of two from 256K to 16M (default: the base's, or the repository's, or 4M)"),
		app.SizeFlag("memory", "64M", "what blocks on their way may take: `SIZE`"),
	},
	Action: func(ctx context.Context, c *app.Context) error {
		in, err := c.Input("a stream of extents")
		if err != nil {
			return err
		}
		out, err := c.Output("a stream of objects")
		if err != nil {
			return err
		}
		r, job, err := c.RepoIfAny()
		if err != nil {
			return err
		}
		return chunk.Run(ctx, chunk.Options{
			In: in, Out: out, Repo: r, Job: job, Base: c.String("base"), Block: c.Size("block"), Memory: c.Size("memory"),
			Now: c.Now, Log: c.Log, Events: c.Events,
		})
	},
}

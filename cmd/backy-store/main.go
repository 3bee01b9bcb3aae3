// Backy-store is the writer of a repository: it makes one, stores streams of objects as revisions, shows them, and
// writes them as streams again.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/chunk"
	"backy/pkg/repo"
	"backy/pkg/store"
)

func main() { app.Main(command) }

var storing = []cli.Flag{
	&cli.StringFlag{Name: "tags", Aliases: []string{"t"}, Usage: "`TAGS` of the revision, separated by commas (default: those that are due by the job's schedule)"},
	app.FractionFlag("min-free", "1%", "stop before less than this `SHARE` of the disk is free"),
	&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "take tags that the job's schedule does not have; backy expire may remove them again"},
	&cli.BoolFlag{Name: "verify", Usage: "unpack and check each object, also of a stream that was made on this host just now"},
}

var command = app.Command{
	Name:  "backy-store",
	Usage: "a stream of objects to a revision in a repository",
	Help: `Without a verb, reads on standard input what backy-chunk wrote and commits it as a revision of the job whose
directory is given with -b, or is the current one. What is said to be committed is on the disk; a stream that ends
early is never committed. One line of JSON on standard output tells what was made.`,
	Examples: `backy-store init /srv/backy
cd /srv/backy/vm1 && backy-read --base last /dev/vg0/snap | backy-chunk | backy-store -t daily
backy-store status -b /srv/backy/vm1`,
	Flags:  storing,
	Action: save(false),
	Verbs: []app.Command{
		{
			Name: "init", Usage: "make a repository", Args: "BASEDIR",
			Help:     `Makes a repository in BASEDIR: the directory with all jobs below it and one pool of objects that they share.`,
			Examples: `backy-store init /srv/backy`,
			Flags:    []cli.Flag{app.SizeFlag("block", "4M", "block `SIZE` of new revisions: a power of two from 256K to 16M")},
			Action:   initialize,
		},
		{
			Name: "status", Usage: "list revisions",
			Help: `Lists the revisions of a job; in the base directory, or with it as -b, those of all jobs.
` + naming,
			Examples: `backy-store status -b /srv/backy/vm1
backy-store status -r 'tag:weekly&2026-01-01..2026-06-30'`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Value: "all", Usage: "the revisions `REV`, of each job"},
				&cli.BoolFlag{Name: "json", Usage: "as JSON"},
				&cli.BoolFlag{Name: "yaml", Usage: "as YAML"},
			},
			Action: status,
		},
		{
			Name: "export", Usage: "a revision to a stream of objects",
			Help: `Writes a whole revision on standard output, as a tar archive that import takes. Each object is checked on
the way; at the first bad one the archive is left without its end, and cannot be imported.`,
			Examples: `backy-store export -b /srv/backy/vm1 -r last | ssh other backy-store import -b /srv/backy/vm1`,
			Flags:    []cli.Flag{&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Value: "last", Usage: "the revision `REV`"}},
			Action:   export,
		},
		{
			Name: "import", Usage: "a stream of objects from elsewhere to a revision",
			Help: `Stores a stream from a file or another host. Each object is unpacked and checked against its name before it
is stored. The revision keeps its id, and its tags unless others are given.`,
			Examples: `backy-store import -b /srv/backy/vm1 < vm1.tar`,
			Flags:    storing[:3],
			Action:   save(true),
		},
		tagsVerb,
		protectVerb,
		unprotectVerb,
		forgetVerb,
		distrustVerb,
		duVerb,
		purgeVerb,
	},
}

// save stores a stream, which is always checked if it is foreign.
func save(foreign bool) func(context.Context, *app.Context) error {
	return func(ctx context.Context, c *app.Context) error { return saveStream(ctx, c, foreign) }
}

func saveStream(ctx context.Context, c *app.Context, foreign bool) error {
	in, err := c.Input("a stream of objects")
	if err != nil {
		return err
	}
	r, job, err := c.Job()
	if err != nil {
		return err
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	o := store.Options{
		In: in, Repo: r, Job: job, MinFree: c.Fraction("min-free"), BootID: chunk.BootID(), Log: c.Log, Events: c.Events,
		Import: foreign,
		Verify: c.Bool("verify") || foreign || info.Mode().IsRegular(),
	}
	if c.IsSet("tags") {
		if o.Tags, err = parseTags(c.String("tags")); err != nil {
			return err
		}
		if len(o.Tags) == 0 {
			return app.Usagef("-t names no tags; leave it out to get those that are due")
		}
		if err := checkTags(job, o.Tags, c.Bool("force")); err != nil {
			return err
		}
	}
	if !foreign {
		o.Due = func() ([]string, error) { return due(c, job) }
	}
	rev, err := store.Run(ctx, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(c.Stdout).Encode(rev.Info())
}

func parseTags(list string) ([]string, error) {
	tags := []string{}
	for tag := range strings.SplitSeq(list, ",") {
		if tag = strings.TrimSpace(tag); tag == "" {
			continue
		}
		if err := repo.CheckTag(tag); err != nil {
			return nil, app.Usage(err)
		}
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

func initialize(_ context.Context, c *app.Context) error {
	r, err := repo.Init(c.Args().First(), c.Size("block"), repo.World{Now: c.Now})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Stderr, "%s is a repository now; a job is a directory below it, such as %s/vm1\n", r.Base, r.Base)
	return err
}

func export(ctx context.Context, c *app.Context) error {
	out, err := c.Output("a stream of objects")
	if err != nil {
		return err
	}
	r, job, err := c.Job()
	if err != nil {
		return err
	}
	rev, err := c.Find(job, c.String("revision"))
	if err != nil {
		return err
	}
	session, unregistered, err := r.Read(rev)
	if err != nil {
		return err
	}
	defer session.Close()
	if unregistered != nil {
		c.Log.Warn("no session could be registered; a purge beside this may end it", "reason", unregistered)
	}
	return store.Export(ctx, r, rev, out)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/config"
	"backy/pkg/repo"
)

// naming says, for --help, how revisions are named.
const naming = `
REV is a count back (0 is the newest), last, latest or first, an id or its first 4 letters or more, a tag
(the newest that has it) or a date (the newest that is not younger); or a set: all, tag:TAG,
trust:trusted, trust:verified, trust:distrusted, a range A..B with both ends, A&B for those in both,
A,B for those in either, first(A), last(A), not(A), reverse(A).`

var tagsVerb = app.Command{
	Name: "tags", Usage: "change the tags of revisions", Args: "ACTION REV TAGS",
	Help: `Sets, adds or removes TAGS, separated by commas. ACTION is set, add or remove. Either all revisions that
REV names are changed, or none. Tags have to be in the job's schedule, if it has one, or begin with
manual:. A revision without tags goes with the next backy expire, unless it is protected; where the job has
no schedule, it stays.
` + naming,
	Examples: `backy-store tags -b /srv/backy/vm1 add last manual:before-upgrade
backy-store tags set --expect daily,weekly 0 daily
backy-store tags remove --autoremove 'tag:daily&..2026-01-31' daily`,
	Flags: []cli.Flag{
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "take tags that the job's schedule does not have; backy expire may remove them again"},
		&cli.BoolFlag{Name: "autoremove", Usage: "forget revisions that have no tags left"},
		&cli.StringFlag{Name: "expect", Usage: "change nothing unless each of the revisions has just these `TAGS` now"},
	},
	Action: tags,
}

var protectVerb = app.Command{
	Name: "protect", Usage: "keep revisions for good", Args: "REV",
	Help: `Protects revisions: they never expire, and cannot be forgotten, also not by force, until backy-store
unprotect takes that back.
` + naming,
	Examples: `backy-store protect -b /srv/backy/vm1 last
backy-store protect tag:monthly`,
	Action: protect(true),
}

var unprotectVerb = app.Command{
	Name: "unprotect", Usage: "let protected revisions go again", Args: "REV",
	Help:     `Takes the protection of revisions back. That by itself forgets none of them.` + "\n" + naming,
	Examples: `backy-store unprotect -b /srv/backy/vm1 2026-11-21`,
	Action:   protect(false),
}

var forgetVerb = app.Command{
	Name: "forget", Usage: "remove revisions",
	Help: `Removes the revisions that -r names, all or none. There is no way back. What they alone needed is freed by
backy purge. Protected ones are never forgotten; and only with --force the last good revision of a job, those
younger than the min-age in the job's config, and those whose files cannot be read.
` + naming,
	Examples: `backy-store forget -b /srv/backy/vm1 -r NkjcG4wtGr5uRyCsQeWXQd
backy-store forget -r 'trust:distrusted&..2026-01-31'`,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "revision", Aliases: []string{"r"}, Usage: "the revisions `REV`; there is no default"},
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "also if no good revision is left, or one is too young or cannot be read"},
	},
	Action: forget,
}

func tags(ctx context.Context, c *app.Context) error {
	action, spec := c.Args().Get(0), c.Args().Get(1)
	if !slices.Contains([]string{"set", "add", "remove"}, action) {
		return app.Usagef("%q is nothing to do with tags: want set, add or remove", action)
	}
	given, err := parseTags(c.Args().Get(2))
	if err != nil {
		return err
	}
	expect, err := parseTags(c.String("expect"))
	if err != nil {
		return err
	}
	if len(given) == 0 && action != "set" {
		return app.Usagef("there are no tags to %s", action)
	}
	_, job, err := c.Job()
	if err != nil {
		return err
	}
	guard, err := guardOf(job, false)
	if err != nil && (!c.Bool("force") || c.Bool("autoremove")) {
		return err
	}
	if action != "remove" {
		if err := checkTags(job, given, c.Bool("force")); err != nil {
			return err
		}
	}
	edit := func(e *repo.Edit, r repo.Revision) error {
		if c.IsSet("expect") && !sameTags(r.State.Tags, expect) {
			return fmt.Errorf("nothing was changed: revision %s has the tags %s, not %s", r.ID, shown(r.State.Tags), shown(expect))
		}
		var left []string
		err := e.Change(r.ID, func(s *repo.State) error {
			s.Tags = change(s.Tags, action, given)
			left = s.Tags
			return nil
		})
		if err == nil && c.Bool("autoremove") && len(left) == 0 {
			err = e.Forget(r.ID)
		}
		return err
	}
	return editEach(ctx, c, job, spec, guard, edit)
}

// change is what becomes of a revision's tags. Those that it has keep their order.
func change(have []string, action string, given []string) []string {
	if action == "set" {
		have = nil
	}
	list := slices.DeleteFunc(slices.Clone(have), func(t string) bool { return action == "remove" && slices.Contains(given, t) })
	for _, t := range given {
		if action != "remove" && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

func sameTags(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// shown is a list of tags for people.
func shown(tags []string) string {
	if len(tags) == 0 {
		return "(none)"
	}
	return strings.Join(tags, ",")
}

func protect(yes bool) func(context.Context, *app.Context) error {
	return func(ctx context.Context, c *app.Context) error {
		_, job, err := c.Job()
		if err != nil {
			return err
		}
		return editEach(ctx, c, job, c.Args().First(), repo.Guard{}, func(e *repo.Edit, r repo.Revision) error {
			return e.Change(r.ID, func(s *repo.State) error {
				s.Protected = yes
				return nil
			})
		})
	}
}

func forget(ctx context.Context, c *app.Context) error {
	spec := c.String("revision")
	if strings.TrimSpace(spec) == "" {
		return app.Usagef("say with -r which revisions to forget")
	}
	_, job, err := c.Job()
	if err != nil {
		return err
	}
	guard, err := guardOf(job, c.Bool("force"))
	if err != nil && !c.Bool("force") {
		return err
	}
	if repo.CheckID(spec) == nil { // it may be one that cannot be read, which has an id alone
		err := job.Forget(ctx, []string{spec}, guard)
		if err == nil {
			c.Log.Info("forgotten: " + spec + "; backy purge frees what it alone needed")
		}
		return err
	}
	return editEach(ctx, c, job, spec, guard, func(e *repo.Edit, r repo.Revision) error { return e.Forget(r.ID) })
}

// editEach does something to each revision that a text names, all or none of it, and says what became of them.
func editEach(ctx context.Context, c *app.Context, job *repo.Job, spec string, guard repo.Guard, f func(*repo.Edit, repo.Revision) error) error {
	if err := job.Exists(); err != nil {
		return err
	}
	var touched []repo.Revision
	err := job.Edit(ctx, guard, func(e *repo.Edit) (err error) {
		if touched, err = e.Select(spec); err != nil {
			return err
		}
		for _, r := range touched {
			if err := f(e, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(touched) == 0 {
		c.Log.Info("no revision of " + job.Name + " is " + spec + "; there is nothing to do")
	}
	return tell(c, job, touched)
}

// tell says what has become of revisions.
func tell(c *app.Context, job *repo.Job, touched []repo.Revision) error {
	gone := 0
	for _, r := range touched {
		line := r.ID + " of " + r.Time.Local().Format(time.DateTime)
		now, err := job.Get(r.ID)
		if errors.Is(err, repo.ErrNoRevision) {
			gone++
			c.Log.Info("forgotten: " + line)
			continue
		}
		if err != nil {
			return err
		}
		line += ": tags " + shown(now.State.Tags)
		if now.State.Protected {
			line += ", protected"
		}
		c.Log.Info(line)
	}
	if gone > 0 {
		c.Log.Info(fmt.Sprintf("%d revisions are forgotten; backy purge frees what they alone needed", gone))
	}
	return nil
}

// guardOf is how careful the job is with what it forgets.
func guardOf(job *repo.Job, force bool) (repo.Guard, error) {
	g := repo.Guard{Force: force}
	if force {
		return g, nil
	}
	_, age, err := config.ReadRules(job.Dir())
	g.MinAge = age
	return g, err
}

// checkTags refuses tags that the job's schedule does not have, unless forced.
func checkTags(job *repo.Job, tags []string, force bool) error {
	if force {
		return nil
	}
	rules, _, err := config.ReadRules(job.Dir())
	if err != nil {
		return err
	}
	if err := rules.Check(tags); err != nil {
		return app.Usagef("%w; --force takes it all the same", err)
	}
	return nil
}

// due are the tags of a backup that was given none: those that the job's schedule wants now.
func due(c *app.Context, job *repo.Job) ([]string, error) {
	rules, _, err := config.ReadRules(job.Dir())
	if err != nil {
		return nil, fmt.Errorf("which tags are due: %w", err)
	}
	list, _, err := job.List()
	if err != nil {
		return nil, err
	}
	tags := rules.Due(repo.Scheduled(list), c.Now())
	if len(tags) == 0 && rules != nil {
		c.Log.Info("no tag is due by the job's schedule; the revision gets none, and expires once there is a newer one")
	}
	return tags, nil
}

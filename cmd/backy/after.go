package main

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"backy/pkg/app"
	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/pipeline"
	"backy/pkg/schedule"
)

// checks are made after a backup: a sample of it is compared with its source, and the newest distrusted revision is
// verified.
type checks struct {
	*app.Context
	dir    string
	source string
	since  string // what the source looked like before: SIZE,MTIME,CTIME; "" where that says nothing
	spot   config.SpotCheck
}

func newChecks(c *app.Context, dir, source string) (*checks, error) {
	k := &checks{Context: c, dir: dir, source: source, spot: config.DefaultSpotCheck}
	job, err := config.ReadJob(dir)
	switch {
	case err == nil:
		k.spot = job.Spot
	case !errors.Is(err, fs.ErrNotExist) && c.Args().First() == "":
		return nil, err
	}
	if text := c.String("spot-check"); text != "" {
		n, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
		if err != nil || !(n >= 0 && n <= 100) {
			return nil, app.Usagef("--spot-check: %q is no number from 0 to 100", text)
		}
		k.spot.Percent = n
	}
	if text := c.String("spot-time"); text != "" {
		if k.spot.Time, err = schedule.ParseDuration(text); err != nil {
			return nil, app.Usagef("--spot-time: %w", err)
		}
	}
	k.since = pipeline.Look(source)
	return k, nil
}

// after makes the checks of a revision that was made, and removes the snapshots of the source that the job does not need
// any more; err is how the backup ended. What could not be done takes nothing from a backup that was; a check that found
// damage decides the exit code.
func (k *checks) after(ctx context.Context, revision string, err error) error {
	if err != nil || revision == "" {
		return err
	}
	err = k.check(ctx, revision)
	if pipeline.Snapshots(k.source) && ctx.Err() == nil {
		if err := k.run(ctx, "backy-read", pipeline.Sweep(k.source, k.dir)); err != nil {
			k.Log.Warn("the backup is made, but snapshots that nobody needs any more stay until the next one", "source", k.source, "reason", err)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// check makes the checks. Its error is what damage they found.
func (k *checks) check(ctx context.Context, revision string) error {
	if _, err := pipeline.Find("backy-scrub"); err != nil {
		k.Log.Warn("the backup is made, but not checked: " + err.Error())
		return nil
	}
	var found []error
	scrub := func(damage string, args ...string) {
		err := k.run(ctx, "backy-scrub", append(args, "-b", k.dir))
		var failure *pipeline.Failure
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.As(err, &failure) && failure.Code == 3:
			found = append(found, app.Damaged("the backup is made, but %s", damage))
		default:
			k.Log.Warn("the backup is made, but a check of it came to no end", "check", args[0], "reason", err)
		}
	}
	if args := pipeline.Spot(k.source, k.since, revision, k.spot); args != nil {
		scrub("revision "+revision+" differs from its source, or is damaged", args...)
	} else if k.spot.Percent > 0 {
		k.Log.Info("revision " + revision + " is not compared with its source: nobody can tell whether " + k.source + " is still as it was")
	}
	scrub("an older revision that was distrusted is damaged", "verify", "--pending")
	return errors.Join(found...)
}

// run runs one of our commands, and passes on what it tells of revisions.
func (k *checks) run(ctx context.Context, name string, args []string) error {
	path, err := pipeline.Find(name)
	if err != nil {
		return err
	}
	args = append(append(args, k.CommonArgs()...), pipeline.Events()...)
	return pipeline.Run(ctx, []pipeline.Stage{{Name: name, Path: path, Args: args}}, pipeline.Options{
		Stderr: k.Stderr, Grace: grace, Events: func(e event.Event) {
			switch e.Kind {
			case event.Verified, event.Distrusted, event.Damaged, event.Warning:
				k.Events.Emit(e)
			}
		},
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
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

// after makes the checks of a revision that was made; err is how the backup ended. A check that could not be made takes
// nothing from a backup that was; one that found damage decides the exit code.
func (k *checks) after(ctx context.Context, revision string, err error) error {
	if err != nil || revision == "" {
		return err
	}
	path, err := pipeline.Find("backy-scrub")
	if err != nil {
		k.Log.Warn("the backup is made, but not checked: " + err.Error())
		return nil
	}
	var found []error
	switch {
	case k.spot.Percent == 0:
	case k.since == "":
		k.Log.Info("revision " + revision + " is not compared with its source: nobody can tell whether " + k.source + " is still as it was")
	default:
		args := []string{"spot", "-r", revision, "--source=" + k.source, "--since=" + k.since, fmt.Sprintf("--percent=%v", k.spot.Percent)}
		if k.spot.Time > 0 {
			args = append(args, "--max-duration="+schedule.FormatDuration(k.spot.Time))
		}
		found = append(found, k.run(ctx, path, "revision "+revision+" differs from its source, or is damaged", args...))
	}
	found = append(found, k.run(ctx, path, "an older revision that was distrusted is damaged", "verify", "--pending"))
	return errors.Join(found...)
}

// run runs a check, and passes on what it tells of revisions. It returns an error only for damage, and where all is to end.
func (k *checks) run(ctx context.Context, path, damage string, args ...string) error {
	args = append(append(append(args, "-b", k.dir), k.CommonArgs()...), pipeline.Events()...)
	err := pipeline.Run(ctx, []pipeline.Stage{{Name: "backy-scrub", Path: path, Args: args}}, pipeline.Options{
		Stderr: k.Stderr, Grace: grace, Events: func(e event.Event) {
			switch e.Kind {
			case event.Verified, event.Distrusted, event.Damaged, event.Warning:
				k.Events.Emit(e)
			}
		},
	})
	var failure *pipeline.Failure
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return nil
	case errors.As(err, &failure) && failure.Code == 3:
		return app.Damaged("the backup is made, but %s", damage)
	default:
		k.Log.Warn("the backup is made, but a check of it came to no end", "check", args[0], "reason", err)
		return nil
	}
}

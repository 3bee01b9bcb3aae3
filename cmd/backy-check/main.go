// Backy-check tells a monitoring system whether all jobs are backed up in time.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/check"
	"backy/pkg/config"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

func main() {
	debug.SetGCPercent(400) // it reads much, keeps little, and is soon over
	app.Main(command)
}

const defaultConfig = "/etc/backy.conf"

var command = app.Command{
	Name:  "backy-check",
	Usage: "tell a monitoring system whether all jobs are backed up in time",
	Help: `A plugin for Nagios, Icinga and their like. It reads the configuration of the scheduler and the revisions in the
repository, and nothing else; so it tells of a scheduler that is dead, too. With -b and without -c it goes by the file
config in each job's directory, for those who run backups from timers or cron. It changes nothing, and may read as any
user who can read the repository.

CRITICAL   a job is late: its newest good revision is older than its SLA, 1.5 times the smallest interval of its
           schedule; or it has none and exists for longer. A distrusted revision is not good. What is more than 5
           minutes ahead of the clock has no known age, and is no success.
UNKNOWN    something that is needed cannot be read, or takes longer than --timeout
WARNING    a job's newest good revision has reached 80 % of its SLA; revisions are distrusted, or cannot be read; there
           are reports of scrubs in quarantine, or bad objects, or revisions in a directory that can be no job
OK         none of that. Tags that begin with manual: are told of with -v, and no reason to worry; so are directories
           with revisions that are no jobs.

-w and --critical are ranges, as all plugins have them, of a job's age in percent of its SLA: "90" is 0 to 90, "@90:" what
is below 90. -c is the configuration, as it is for the scheduler and its client.`,
	Examples: `backy-check
backy-check -c /etc/backy.conf --job vm1 --job 'web/*' -v
backy-check -b /srv/backy -w 90 --critical 120`,
	Plugin: true,
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: defaultConfig, Usage: "the scheduler's configuration, a `FILE`"},
		&cli.StringSliceFlag{Name: "job", Aliases: []string{"j"}, Usage: "only the job `NAME`, or those of a pattern as in 'web/*'; may be given several times"},
		&cli.StringFlag{Name: "warning", Aliases: []string{"w"}, Value: check.DefaultThresholds.Warning.String(), Usage: "warn where a job's age in percent of its SLA is not in `RANGE`"},
		&cli.StringFlag{Name: "critical", Value: check.DefaultThresholds.Critical.String(), Usage: "a job is late where that is not in `RANGE`"},
		&cli.StringFlag{Name: "timeout", Aliases: []string{"t"}, Value: "30s", Usage: "give up after a `TIME`, UNKNOWN"},
		&cli.BoolFlag{Name: "json", Usage: "the verdict as JSON, in place of the plugin's line"},
	},
	Action: run,
}

func run(ctx context.Context, c *app.Context) error {
	var t check.Thresholds
	for name, to := range map[string]*check.Range{"warning": &t.Warning, "critical": &t.Critical} {
		var err error
		if *to, err = check.ParseRange(c.String(name)); err != nil {
			return app.Usagef("--%s: %w", name, err)
		}
	}
	limit, err := schedule.ParseDuration(c.String("timeout"))
	if err != nil || limit == 0 {
		return app.Usagef("--timeout: %q is no time to wait: want one as in 30s", c.String("timeout"))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("there is no verdict after %s; does a disk hang?", schedule.FormatDuration(limit)))
	defer cancel()
	facts, err := within(ctx, func() (check.Facts, error) { return collect(ctx, c) })
	if err != nil {
		return err
	}
	v := check.Judge(facts, t)
	if c.Bool("json") {
		err = json.NewEncoder(c.Stdout).Encode(v)
	} else {
		_, err = io.WriteString(c.Stdout, v.Plugin(c.Verbose, c.IsSet("job")))
	}
	if err != nil {
		return err
	}
	return app.Verdict(v.Level)
}

// within calls f, and does not wait for it when ctx is over: it may hang in a read that nothing interrupts.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// collect finds out what is known, of the jobs of the configuration, or with -b of those in the repository.
func collect(ctx context.Context, c *app.Context) (check.Facts, error) {
	o := check.Options{Only: c.StringSlice("job"), Dead: c.Verbose || c.Bool("json"), Now: c.Now()}
	if c.Backupdir != "" {
		if c.IsSet("config") {
			return check.Facts{}, app.Usagef("-b and -c each say where the jobs are: give one of them")
		}
		r, name, err := c.Repo()
		if err != nil {
			return check.Facts{}, err
		}
		if name != "" {
			if len(o.Only) > 0 {
				return check.Facts{}, app.Usagef("-b %s is a job already; for others give -b %s", c.Backupdir, r.Base)
			}
			o.Only = []string{name}
		}
		o.Repo = r
		return check.Collect(ctx, o)
	}
	var err error
	if o.Config, err = config.ReadDaemon(c.String("config")); err != nil {
		return check.Facts{}, err
	}
	r, name, err := repo.Open(o.Config.Global.BaseDir, repo.World{Now: c.Now})
	if err == nil && name != "" {
		err = fmt.Errorf("base-dir of %s: %s is no base directory of a repository; that is %s", o.Config.Path, o.Config.Global.BaseDir, r.Base)
	}
	o.Repo = r
	if err != nil {
		return check.Facts{}, err
	}
	return check.Collect(ctx, o)
}

// Backy-sched is the scheduler: a daemon that backs up each job when it is due, and the commands that ask it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/config"
	"backy/pkg/sched"
	"backy/pkg/sched/api"
)

func main() { app.Main(command()) }

// defaultConfig is where the configuration is.
const defaultConfig = "/etc/backy.conf"

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: defaultConfig, Usage: "the configuration `FILE`"}
}

func command() app.Command {
	c := scheduler("backy-sched")
	c.Verbs = []app.Command{scheduler("scheduler"), eventsCommand(), clientCommand()}
	c.Plugin = isCheck(os.Args[1:]) // who misspells a flag has no verb yet
	return c
}

// scheduler is the daemon, as the program itself and as a verb.
func scheduler(name string) app.Command {
	return app.Command{
		Name:  name,
		Usage: "back up each job when it is due",
		Help: `Runs in the foreground until SIGTERM or Ctrl-C, which end the backups under way; the next start makes them up. SIGHUP reads
the configuration again; if that is wrong, it says so, and the one before holds. pipeline.example is a complete one.

Each job runs when a tag of its schedule is due. Jobs are spread over the interval by their names. What was missed is
made up for at once; what fails is tried again after 2 minutes, 4, 8, and so on, up to 6 hours.

There is one scheduler for a repository. It needs nothing but the configuration and the repository: all else that it keeps,
in .backy/nats, may be lost. If it is killed, the backups under way come to their end, and the next scheduler
leaves them alone until then.

Its own backups can be given up, told apart and replaced with other tools: what happens is told as events over NATS
(doc/events.md), and what is due is a message in a work queue there.`,
		Examples: `backy-sched -c /etc/backy.conf
backy-sched --check-config -c new.conf
backy-sched events -c /etc/backy.conf --follow`,
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "check-config", Usage: "say what is wrong with the configuration, and end"},
		},
		Action: run,
		Grace:  time.Minute,
	}
}

// readConfig reads the configuration. Of what is wrong with it, each mistake is said; the error counts them.
func readConfig(c *app.Context) (*config.Daemon, error) {
	d, err := config.ReadDaemon(c.String("config"))
	var mistakes config.Mistakes
	switch {
	case errors.As(err, &mistakes):
		for _, m := range mistakes {
			c.Log.Error(m.Error())
		}
		return nil, fmt.Errorf("%s is wrong in %d places, listed above", c.String("config"), len(mistakes))
	case errors.Is(err, os.ErrNotExist) && !c.IsSet("config"):
		return nil, fmt.Errorf("the configuration: %w; -c names another file, and pipeline.example is one to begin with", err)
	case err != nil:
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	return d, nil
}

func run(ctx context.Context, c *app.Context) error {
	conf, err := readConfig(c)
	if err != nil {
		return err
	}
	if c.Bool("check-config") {
		_, err := fmt.Fprintf(c.Stdout, "%s is right: %d jobs\n", conf.Path, len(conf.Jobs))
		return err
	}
	if c.Backupdir != "" {
		return app.Usagef("-b is not for the scheduler: base-dir in %s says where the repository is", conf.Path)
	}
	manager, err := app.OpenManager()
	if err != nil {
		return err
	}
	defer manager.Close()
	debug.SetGCPercent(50) // a daemon that holds many revisions and makes little garbage

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // from before anybody knows us
	defer signal.Stop(hangup)
	return serve(ctx, c, conf, manager, hangup)
}

// apiGrace is how long answers may take at the end.
const apiGrace = 2 * time.Second

// serve runs the daemon with its API until ctx ends.
func serve(ctx context.Context, c *app.Context, conf *config.Daemon, manager *app.Manager, hangup <-chan os.Signal) (err error) {
	var server *api.Server
	ready := make(chan struct{})
	o := sched.Options{Config: conf, Log: c.Log, Now: c.Now, Ready: func() { server.Ready(); close(ready) },
		Reloaded: func(fresh *config.Daemon) error { return server.Apply(fresh.API) }}
	d, err := sched.Open(ctx, o)
	if err != nil {
		return err
	}
	defer d.Close()
	server = api.New(api.Options{Control: d, Log: c.Log, Now: c.Now})
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiGrace)
		defer cancel()
		_ = server.Close(ending) // who still asks gets no answer
	}()
	if err := server.Apply(conf.API); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil)
	beside.Go(func() { watch(ctx, c, d, manager, ready, hangup) })
	if err := d.Serve(ctx); err != nil {
		return err
	}
	if stopped := (*app.Interrupted)(nil); errors.As(context.Cause(ctx), &stopped) && stopped.Signal == os.Interrupt {
		return stopped
	}
	return nil // SIGTERM is how a daemon ends
}

// watch tells the service manager how the daemon gets on, and has it reload at SIGHUP.
func watch(ctx context.Context, c *app.Context, d *sched.Daemon, manager *app.Manager, ready <-chan struct{}, hangup <-chan os.Signal) {
	say := func(err error) {
		if err != nil {
			c.Log.Warn(err.Error())
		}
	}
	var watchdog sync.WaitGroup
	defer watchdog.Wait()
	watchdog.Go(func() { say(manager.Watch(ctx, d.Alive)) })
	for {
		select {
		case <-ctx.Done():
			say(manager.Stopping("ending what is under way"))
			return
		case <-ready:
			ready = nil
			c.Log.Info(fmt.Sprintf("scheduling %d jobs of %s", len(d.Config().Jobs), d.Config().Global.BaseDir))
			say(manager.Ready(status(d)))
		case <-hangup:
			say(manager.Reloading())
			_ = d.Reload() // it has said what is wrong
			say(manager.Ready(status(d)))
		}
	}
}

// status is a line for the service manager.
func status(d *sched.Daemon) string {
	return fmt.Sprintf("scheduling %d jobs with %s", len(d.Config().Jobs), strings.Join(d.Config().Global.FollowUps, ", "))
}

// Package app is what all mains share: flags and their order, help, logging, events, signals and exit codes, and how
// figures look to people. A main is then a list of flags and one call:
//
//	func main() {
//		app.Main(app.Command{
//			Name:     "backy-example",
//			Usage:    "a disk to an extent stream",
//			Args:     "SOURCE",
//			Flags:    []cli.Flag{&cli.StringFlag{Name: "base", Usage: "emit only what differs from `REV`"}},
//			Examples: "backy-example disk.img > disk.extents",
//			Action: func(ctx context.Context, c *app.Context) error {
//				return example.Run(ctx, example.Options{Source: c.Args().First(), Base: c.String("base"), Log: c.Log})
//			},
//		})
//	}
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/event"
)

// Command is a program, or one verb of it.
type Command struct {
	Name  string // of the program, such as "backy-store"; of a verb, such as "status"
	Usage string // what it does, in a few words

	// Args names the arguments, as help shows them: "SOURCE" must be there, "[SOURCE]" may be, and a last "NAME..." is
	// one or more, "[NAME...]" none or more. Another number of arguments is a usage error before Action is called.
	Args string

	// Help explains what --help's list of flags cannot: a few paragraphs, lines up to 100 columns. Examples are shown
	// as they are, one command a line, "#" lines between them; each command has at least one.
	Help, Examples string

	// Flags are this command's own; the common ones (-b, -v, -l, --taskid, --events, --version, --help) come by
	// themselves. A word in `back quotes` in a flag's usage is shown as the name of its value. See also SizeFlag and
	// FractionFlag.
	Flags []cli.Flag

	// Progress draws a bar on standard error, where that is a terminal, from what goes through Context.Events. It is
	// for who has the whole picture: backy, backy-restore, and backy-read; three bars in a pipe would be a mess.
	Progress bool

	// Plugin makes it a plugin of a monitoring system: Action returns a Verdict, and whatever keeps it from one, wrong usage
	// too, is told on standard output and is UNKNOWN, exit code 3.
	Plugin bool

	// Verbs are the commands that the first argument selects. Without such an argument, Action is called; where Action
	// is nil, a verb must be given. Flags may stand before the verb and after it, and are those of the verb.
	Verbs []Command

	// Action does the work. ctx is cancelled by SIGINT and SIGTERM. What is wrong is returned, never printed: Main
	// prints it, once, sends it as an event, and turns it into the exit code.
	Action func(ctx context.Context, c *Context) error

	// Grace is how long Action may take to clean up after ctx was cancelled, before the process ends without it; 0 is
	// 2 s. Some wait in a read that nothing interrupts, and all are safe to end at any moment.
	Grace time.Duration
}

// Context is what an Action is given: its flags and arguments, by the methods of the embedded context (String, Bool,
// Int64, IsSet, Args …) and by Size and Fraction, and the world around it.
type Context struct {
	*cli.Context

	Backupdir string        // --backupdir; "" if not given. See Repo and RepoIfAny
	Verbose   bool          // --verbose
	Logfile   string        // --logfile; "" if not given
	Task      string        // --taskid, or one made up
	Log       *slog.Logger  // words for people: Info and up, Debug with -v; a Warn is also sent as an event, so say it once
	Events    *event.Writer // nil (which is fine) if nobody listens

	Stdin, Stdout *os.File  // for streams, see Input and Output
	Stderr        io.Writer // standard error beside a progress bar, for reports; write whole lines
	Now           func() time.Time

	screen *screen
}

// EndProgress takes the progress bar off the terminal; call it before results are written to Stdout, which may be the same
// terminal. The next progress event draws it again.
func (c *Context) EndProgress() { c.screen.clear() }

// Process is the world that a Command runs in.
type Process struct {
	Args                  []string // the program's name first, as in os.Args
	Stdin, Stdout, Stderr *os.File
	Now                   func() time.Time
}

// Main runs c as this process and exits with the code that Run returns. It takes SIGINT and SIGTERM: the first cancels
// the Action's context; a second ends the process at once.
func Main(c Command) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Stop(signals)
		cancel(&Interrupted{s})
	}()
	os.Exit(Run(ctx, c, Process{os.Args, os.Stdin, os.Stdout, os.Stderr, time.Now}))
}

// defaultGrace is that of a Command that has none.
const defaultGrace = 2 * time.Second

// Run runs c in the world p and returns its exit code; see ExitCode. What went wrong has been printed then.
func Run(ctx context.Context, c Command, p Process) int {
	l, err := c.parse(p.Args[1:])
	switch {
	case err != nil:
		return l.command.refuse(p, c.Name, err)
	case l.help:
		help(p.Stdout, l.command, l.name)
		return 0
	case l.version:
		printVersion(p.Stdout, c.Name)
		return 0
	}
	code := -1
	a := cli.App{
		Name: l.name, Flags: append(commonFlags(), l.command.Flags...),
		HideHelp: true, HideVersion: true, HideHelpCommand: true,
		Writer: io.Discard, ErrWriter: io.Discard,
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return Usage(err) },
		ExitErrHandler: func(*cli.Context, error) {}, // else it would print and exit by itself
		Action: func(flags *cli.Context) error {
			world, finish, err := open(c.Name, l.command, flags, p)
			if err != nil {
				return err
			}
			code = finish(ctx, await(ctx, cmp.Or(l.command.Grace, defaultGrace), func() error { return l.command.Action(ctx, world) }))
			return nil
		},
	}
	if err := a.RunContext(ctx, append([]string{l.name}, l.argv...)); err != nil {
		return l.command.refuse(p, c.Name, err)
	}
	return code
}

// Fail says err, as the command of that name would, and returns the exit code. It is for who ends before there is a
// command to run.
func Fail(name string, err error) int {
	return refuse(Process{Stderr: os.Stderr}, name, err)
}

// FailPlugin is Fail for a plugin.
func FailPlugin(err error) int { return unknown(os.Stdout, err) }

// refuse says why the command did not run.
func (c *Command) refuse(p Process, name string, err error) int {
	if c.Plugin {
		return unknown(p.Stdout, err)
	}
	return refuse(p, name, err)
}

// refuse says what is wrong before there is a log.
func refuse(p Process, name string, err error) int {
	log := slog.New(newLines(p.Stderr, name, slog.LevelInfo))
	log.Error(err.Error())
	code := ExitCode(err)
	if code == codeUsage {
		log.Info("`" + name + " --help` tells more")
	}
	return code
}

// await calls f, and waits for it no longer than grace after ctx is cancelled.
func await(ctx context.Context, grace time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return context.Cause(ctx)
	}
}

// open makes the Context of a command. finish closes what was opened, having said how the command ended, and returns the
// exit code.
func open(name string, c *Command, flags *cli.Context, p Process) (w *Context, finish func(context.Context, error) int, err error) {
	w = &Context{
		Context: flags, Backupdir: flags.String("backupdir"), Verbose: flags.Bool("verbose"), Logfile: flags.String("logfile"),
		Task: flags.String("taskid"), Stdin: p.Stdin, Stdout: p.Stdout, Now: p.Now,
	}
	if flags.IsSet("backupdir") && w.Backupdir == "" {
		return nil, nil, Usagef("--backupdir is empty; for the current directory leave it out")
	}
	if w.Task == "" {
		w.Task = newTask()
	}
	screen := newScreen(p.Stderr)
	w.Stderr, w.screen = screen, screen
	eventFile, err := openEvents(flags.String("events"))
	if err != nil {
		return nil, nil, err
	}
	w.Events = newEvents(name, w.Task, eventFile, screen.bar(c.Progress && !inherited(flags.String("events")), p.Now), p.Now)
	level := slog.LevelInfo
	if w.Verbose && !c.Plugin { // whose words go to standard output
		level = slog.LevelDebug
	}
	handlers := []slog.Handler{newLines(screen, name, level), warnings{w.Events}}
	var logfile *os.File
	if w.Logfile != "" {
		if logfile, err = os.OpenFile(w.Logfile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640); err != nil {
			return nil, nil, fmt.Errorf("log file: %w", err)
		}
		text := slog.NewTextHandler(logfile, &slog.HandlerOptions{Level: slog.LevelDebug})
		handlers = append(handlers, text.WithAttrs([]slog.Attr{slog.String("command", name), slog.String("task", w.Task), slog.Int("pid", os.Getpid())}))
	}
	w.Log = slog.New(slog.NewMultiHandler(handlers...))
	w.Log.Debug("start", "args", p.Args[1:], "version", version())

	return w, func(ctx context.Context, err error) int {
		if err != nil && errors.As(context.Cause(ctx), new(*Interrupted)) {
			err = context.Cause(ctx) // whatever failed, this is why
		}
		w.Events.Flush()
		screen.clear()
		code := w.tell(c, err)
		w.Log.Debug("end", "code", code)
		if err := w.Events.Err(); err != nil {
			w.Log.Debug("events were lost", "error", err)
		}
		if eventFile != nil {
			_ = eventFile.Close() // each line was written, or its error said
		}
		if logfile != nil {
			_ = logfile.Close()
		}
		return code
	}, nil
}

// tell says how the command ended, and returns the exit code.
func (c *Context) tell(command *Command, err error) int {
	code := ExitCode(err)
	if err == nil || errors.As(err, new(Verdict)) { // which has been said
		return code
	}
	kind := event.Failed
	if code == codeDamaged {
		kind = event.Damaged
	}
	c.Events.Emit(event.Event{Kind: kind, Message: err.Error()})
	if command.Plugin {
		return unknown(c.Stdout, err)
	}
	c.Log.Error(err.Error())
	if code == codeUsage {
		c.Log.Info("`" + c.App.Name + " --help` tells more")
	}
	return code
}

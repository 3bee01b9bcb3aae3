package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/event"
)

// The test binary is also a command, so that signals and descriptors can be tried in a process of their own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "be-a-command" {
		os.Args = append([]string{"backy-wait"}, os.Args[2:]...)
		Main(Command{Name: "backy-wait", Flags: []cli.Flag{&cli.BoolFlag{Name: "stubborn"}}, Action: waits})
	}
	os.Exit(m.Run())
}

// waits says that it is ready, and then waits to be stopped.
func waits(ctx context.Context, c *Context) error {
	c.Log.Warn("nobody knows", "what", "for")
	fmt.Fprintln(c.Stdout, "ready")
	<-ctx.Done()
	if c.Bool("stubborn") {
		select {}
	}
	return errors.New("some consequence")
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// run runs a command in a world of temporary files.
func run(t *testing.T, c Command, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	d := t.TempDir()
	file := func(name string) *os.File {
		f, err := os.Create(filepath.Join(d, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	p := Process{append([]string{c.Name}, args...), file("in"), file("out"), file("err"), func() time.Time { return noon }}
	code = Run(t.Context(), c, p)
	return code, content(t, p.Stdout.Name()), content(t, p.Stderr.Name())
}

func content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// show is a command with every kind of flag, and verbs, that says what it was given.
func show() Command {
	print := func(_ context.Context, c *Context) error {
		fmt.Fprintf(c.Stdout, "dir=%s verbose=%t tags=%s force=%t size=%d part=%g args=%q\n", c.Backupdir, c.Verbose,
			c.String("tags"), c.Bool("force"), c.Size("memory"), c.Fraction("min-free"), c.Args().Slice())
		return nil
	}
	return Command{
		Name: "backy-show", Usage: "say what it was given", Args: "[SOURCE]", Examples: "backy-show -t daily disk.img",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "tags", Aliases: []string{"t"}, Usage: "`TAGS`, with commas between"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do it all the same"},
			SizeFlag("memory", "64MiB", "use at most `SIZE`"),
			FractionFlag("min-free", "1%", "stop when less than `PART` is free"),
		},
		Action: print,
		Verbs: []Command{
			{Name: "list", Usage: "list things", Args: "NAME...", Action: print, Flags: []cli.Flag{&cli.BoolFlag{Name: "json"}}},
		},
	}
}

func TestFlagsAndArguments(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", `dir= verbose=false tags= force=false size=67108864 part=0.01 args=[]`},
		{"-t daily disk.img", `dir= verbose=false tags=daily force=false size=67108864 part=0.01 args=["disk.img"]`},
		// Flags may follow arguments, and be written in all the usual ways.
		{"disk.img -t daily -v", `dir= verbose=true tags=daily force=false size=67108864 part=0.01 args=["disk.img"]`},
		{"disk.img -vft daily", `dir= verbose=true tags=daily force=true size=67108864 part=0.01 args=["disk.img"]`},
		{"-tdaily --backupdir=/srv/x", `dir=/srv/x verbose=false tags=daily force=false size=67108864 part=0.01 args=[]`},
		{"--memory 1G --min-free 0.5", `dir= verbose=false tags= force=false size=1073741824 part=0.5 args=[]`},
		{"--tags=a=b,c", `dir= verbose=false tags=a=b,c force=false size=67108864 part=0.01 args=[]`},
		// A value may begin with a dash; "-" is an argument; after "--" all is.
		{"-t -x -", `dir= verbose=false tags=-x force=false size=67108864 part=0.01 args=["-"]`},
		{"-v -- -t", `dir= verbose=true tags= force=false size=67108864 part=0.01 args=["-t"]`},
		// The flags of a verb may stand on both sides of it.
		{"-b /srv list a b", `dir=/srv verbose=false tags= force=false size=0 part=0 args=["a" "b"]`},
		{"--json list a -v", `dir= verbose=true tags= force=false size=0 part=0 args=["a"]`},
	} {
		code, out, stderr := run(t, show(), strings.Fields(test.args)...)
		if code != 0 || out != test.want+"\n" {
			t.Errorf("%s: exit code %d\n got %s want %s\n%s", test.args, code, out, test.want, stderr)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"a b", `unexpected argument "b": backy-show [SOURCE]`},
		{"--nonsense", "flag --nonsense is not known"},
		{"-x", "flag -x is not known"},
		{"-t", "flag -t needs a value"},
		{"list", "NAME is missing: backy-show list NAME..."},
		{"list a -t daily", "flag -t is not known"}, // it is one of the command, not of the verb
		{"--memory much", `--memory: "much" is no size: want bytes, as in 4194304, 4MiB or 1.5G`},
		{"--min-free 200%", `--min-free: "200%" is no part of a whole`},
		{"--events fd:0", "want fd: and the number of an open descriptor"},
		{"--events fd:999", "descriptor 999 is not open for writing"},
		{"-b ", "--backupdir is empty"},
	} {
		code, out, stderr := run(t, show(), strings.Split(test.args, " ")...)
		if code != 2 || out != "" || !strings.HasPrefix(stderr, "backy-show: ") || !strings.Contains(stderr, test.want) || !strings.Contains(stderr, "--help` tells more") {
			t.Errorf("%q: exit code %d, %s\n got %s want %s", test.args, code, out, stderr, test.want)
		}
	}
	onlyVerbs := show()
	onlyVerbs.Action = nil
	if code, _, stderr := run(t, onlyVerbs); code != 2 || !strings.Contains(stderr, "the verbs are: list") {
		t.Errorf("no verb: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, onlyVerbs, "lst"); code != 2 || !strings.Contains(stderr, `"lst" is no verb of backy-show; they are: list`) {
		t.Errorf("no such verb: exit code %d, %s", code, stderr)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"-t", "x", "too", "many", "--help"}} {
		code, out, _ := run(t, show(), args...)
		for _, want := range []string{"backy-show: say what it was given", "[FLAGS] [SOURCE]", "list NAME...", "-t, --tags TAGS",
			"      --memory SIZE", "(default: 64MiB)", "-b, --backupdir DIR", "Examples:\n  backy-show -t daily disk.img", "Exit codes: 0 done"} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("%v: exit code %d, no %q in\n%s", args, code, want, out)
			}
		}
		for line := range strings.Lines(out) {
			if len(line) > helpColumns+1 {
				t.Errorf("too long: %s", line)
			}
		}
	}
	for _, args := range [][]string{{"list", "--help"}, {"help", "list"}} {
		if code, out, _ := run(t, show(), args...); code != 0 || !strings.Contains(out, "backy-show list [FLAGS] NAME...") {
			t.Errorf("%v: exit code %d\n%s", args, code, out)
		}
	}
	if code, out, _ := run(t, show(), "--version"); code != 0 || !strings.HasPrefix(out, "backy-show ") || !strings.Contains(out, "(go1.") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

func TestVerb(t *testing.T) {
	for _, test := range []struct{ args, verb, rest string }{
		{"status --json", "status", "--json"},
		{"-b /srv/x status --json", "status", "-b /srv/x --json"},
		{"-vb /srv/x status", "status", "-vb /srv/x"},
		{"--backupdir=/srv/x -v restore -r 1 out", "restore", "--backupdir=/srv/x -v -r 1 out"},
		{"--help", "", "--help"},
		{"-- status", "", "-- status"},
		{"", "", ""},
	} {
		verb, rest := Verb(strings.Fields(test.args))
		if verb != test.verb || strings.Join(rest, " ") != test.rest {
			t.Errorf("%s: %s, %v", test.args, verb, rest)
		}
	}
}

type again struct{}

func (again) Error() string { return "the base is gone" }
func (again) ExitCode() int { return 75 }

type strange struct{}

func (strange) Error() string { return "strange" }
func (strange) ExitCode() int { return 42 }

func TestExitCodes(t *testing.T) {
	other := exec.Command("/bin/sh", "-c", "exit 3").Run() // some other program's code means something else
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{Usagef("x"), 2},
		{Usage(nil), 0},
		{fmt.Errorf("restore: %w", Damaged("2 ranges are damaged")), 3},
		{fmt.Errorf("commit: %w", again{}), 75},
		{&Interrupted{syscall.SIGTERM}, 130},
		{fmt.Errorf("rbd: %w", other), 1},
		{strange{}, 1},
	} {
		if got := ExitCode(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

func TestWhatIsSaid(t *testing.T) {
	d := t.TempDir()
	log, events := filepath.Join(d, "log"), filepath.Join(d, "events")
	c := Command{Name: "backy-store", Action: func(_ context.Context, c *Context) error {
		c.Log.Debug("looked", "where", "a b")
		c.Log.Info("wrote", "bytes", 12)
		c.Log.Info(errors.Join(errors.New("one"), errors.New("two")).Error())
		c.Log.Warn("the name is \x1b[31mred")
		c.Events.About("vm1", "ID")
		c.Events.Emit(event.Event{Kind: event.Progress, Done: 1})
		c.Events.Emit(event.Event{Kind: event.Progress, Done: 2})
		return fmt.Errorf("store: %w", again{})
	}}
	code, _, stderr := run(t, c, "-l", log, "--events", events, "--taskid", "TASK")
	want := "backy-store: wrote (bytes=12)\nbacky-store: one; two\nbacky-store: warning: the name is ?[31mred\nbacky-store: store: the base is gone\n"
	if code != 75 || stderr != want {
		t.Errorf("exit code %d\n got %s want %s", code, stderr, want)
	}
	for _, want := range []string{"level=DEBUG msg=looked", "task=TASK", "command=backy-store", `msg="store: the base is gone"`, "time="} {
		if text := content(t, log); !strings.Contains(text, want) {
			t.Errorf("no %s in the log:\n%s", want, text)
		}
	}
	var kinds []string
	r := event.NewReader(strings.NewReader(content(t, events)))
	for e, err := r.Next(); err == nil; e, err = r.Next() {
		kinds = append(kinds, fmt.Sprint(e.Kind, e.Done, e.Job, e.Stage, e.Task))
	}
	if got := strings.Join(kinds, " "); got != "warning0storeTASK progress1vm1storeTASK progress2vm1storeTASK failed0vm1storeTASK" {
		t.Errorf("events: %s", got)
	}

	_, _, stderr = run(t, c, "-v")
	if !strings.Contains(stderr, `looked (where="a b")`) {
		t.Errorf("with -v: %s", stderr)
	}
}

func TestSignals(t *testing.T) {
	for name, test := range map[string]struct {
		signal os.Signal
		args   []string
	}{
		"Ctrl-C":              {syscall.SIGINT, nil},
		"kill":                {syscall.SIGTERM, nil},
		"who does not listen": {syscall.SIGTERM, []string{"--stubborn"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, events := signalled(t, test.signal, test.args)
			if code != 130 {
				t.Errorf("exit code %d", code)
			}
			last := events[len(events)-1]
			if events[0].Kind != event.Warning || last.Kind != event.Failed || last.Message != "stopped by signal: "+test.signal.String() {
				t.Errorf("events %+v", events)
			}
		})
	}
}

// signalled starts the waiting command with its events on descriptor 3, and sends it a signal once it is ready.
func signalled(t *testing.T, s os.Signal, args []string) (int, []event.Event) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0], append([]string{"be-a-command", "--events", "fd:3"}, args...)...)
	cmd.ExtraFiles = []*os.File{w}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	var events []event.Event
	for d := json.NewDecoder(r); ; {
		var e event.Event
		if d.Decode(&e) != nil {
			break
		}
		events = append(events, e)
	}
	cmd.Wait() // its code is what we ask for
	return cmd.ProcessState.ExitCode(), events
}

// A plugin's words are one line on standard output, whatever happens.
func TestPlugin(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		err  error
		code int
		out  string
	}{
		{"all is well", nil, Verdict(0), 0, "said\n"},
		{"a warning", nil, Verdict(1), 1, "said\n"},
		{"critical, with more about it", []string{"-v"}, fmt.Errorf("it is %w", Verdict(2)), 2, "said\n"},
		{"nothing is known", nil, Verdict(3), 3, "said\n"},
		{"it failed", nil, errors.New("open a|b:\n\tno"), 3, "said\nUNKNOWN: open a¦b: no\n"},
		{"wrong usage, found by the action", nil, Usagef("no"), 3, "said\nUNKNOWN: no\n"},
		{"data is damaged, which is no verdict", nil, Damaged("no"), 3, "said\nUNKNOWN: no\n"},
		{"an unknown flag", []string{"--no"}, nil, 3, "UNKNOWN: check: flag --no is not known\n"},
		{"an argument too many", []string{"no"}, nil, 3, "UNKNOWN: unexpected argument \"no\": check\n"},
		{"a flag's value", []string{"-n", "no"}, nil, 3, "UNKNOWN: invalid value \"no\" for flag -number: parse error\n"},
		{"a flag of all commands", []string{"-b", ""}, nil, 3, "UNKNOWN: --backupdir is empty; for the current directory leave it out\n"},
	} {
		c := Command{Name: "check", Plugin: true, Flags: []cli.Flag{&cli.IntFlag{Name: "number", Aliases: []string{"n"}}}, Action: func(_ context.Context, c *Context) error {
			fmt.Fprintln(c.Stdout, "said")
			c.Log.Debug("not said")
			return test.err
		}}
		code, out, stderr := run(t, c, test.args...)
		if code != test.code || out != test.out || stderr != "" {
			t.Errorf("%s: code %d, %q, %q", test.name, code, out, stderr)
		}
	}
	_, out, _ := run(t, Command{Name: "check", Plugin: true, Action: func(context.Context, *Context) error { return nil }}, "--help")
	if !strings.Contains(out, "Exit codes: 0 OK; 1 WARNING; 2 CRITICAL; 3 UNKNOWN, wrong usage too.\n") {
		t.Error(out)
	}
}

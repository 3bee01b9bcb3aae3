package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app/apptest"
	"backy/pkg/repo"
)

// The scripts in testdata are sessions with the command, at the time that $NOW says; without it, at the real one.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy-check": apptest.Main(command)})
}

func TestScripts(t *testing.T) {
	bin := apptest.Build(t, "", "backy", "backy-read", "backy-chunk", "backy-store", "backy-scrub")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", e.Getenv("PATH")+string(filepath.ListSeparator)+bin)
			e.Setenv("NOW", "2026-11-21T10:00")
			e.Setenv("TZ", "UTC")
			_, err := repo.Init(filepath.Join(e.WorkDir, "srv"), repo.DefaultBlock, repo.World{Now: time.Now})
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"revision": revision, "verdict": verdict},
	})
}

// revision JOB TIME [TAGS] [distrusted] makes a revision of a disk of zeroes; "revision JOB TIME broken" one whose .rev cannot
// be read.
func revision(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	rev := repo.Revision{ID: repo.NewID(), Time: apptest.Time(args[1]), Source: "file:/x", Host: "here", Size: repo.DefaultBlock, Block: repo.DefaultBlock, Read: repo.ReadFull}
	rev.State = repo.State{Tags: []string{}, Trust: repo.Trusted}
	text := rev.Bytes()
	for _, word := range args[2:] {
		switch word {
		case "distrusted":
			rev.State.Trust, rev.State.Why = repo.Distrusted, repo.WhyOperator
		case "broken":
			text = []byte("format: 1\n")
		default:
			rev.State.Tags = strings.Split(word, ",")
		}
	}
	ts.Check(os.MkdirAll(dir, 0o750))
	ts.Check(os.WriteFile(filepath.Join(dir, rev.ID+".state"), rev.State.Bytes(), 0o640))
	ts.Check(os.WriteFile(filepath.Join(dir, rev.ID+".rev"), text, 0o640))
}

// What the Monitoring Plugins Development Guidelines let a plugin write: a line of words, maybe with figures, and more lines
// of words.
const number = `-?[0-9]+(\.[0-9]+)?`

var conforming = regexp.MustCompile(`^(OK|WARNING|CRITICAL|UNKNOWN): [^|\n]+( \|( '([^'=|\n]|'')+'=(U|` + number + `)(s|%|B|c)?(;[0-9.:~@-]*){0,2}(;(` + number + `)?){0,2})+)?\n([^|\n]+\n)*$`)

// verdict STATE COMMAND... runs a command that is a plugin, whose verdict has to be STATE: in its words and as its exit code.
// Its output has to conform, but for that of --json; and nothing is on standard error.
func verdict(ts *testscript.TestScript, neg bool, args []string) {
	code := map[string]int{"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}
	want, known := code[args[0]]
	if neg || !known {
		ts.Fatalf("usage: verdict OK|WARNING|CRITICAL|UNKNOWN COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	out := ts.ReadFile("stdout")
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s", got, want, out)
	}
	if text := ts.ReadFile("stderr"); text != "" {
		ts.Fatalf("on standard error: %s", text)
	}
	if strings.HasPrefix(out, "{") && strings.HasPrefix(out, fmt.Sprintf(`{"status":%q,"code":%d,`, args[0], want)) {
		return
	}
	if !strings.HasPrefix(out, args[0]+": ") || !conforming.MatchString(out) || len(out) > 8192 {
		ts.Fatalf("this does not conform: %q", out)
	}
}

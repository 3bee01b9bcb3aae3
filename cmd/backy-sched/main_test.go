package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app/apptest"
)

// The scripts in testdata are sessions with the daemon as it is installed, with real disks, processes and a bus of its own.
// Beside what testscript knows, they have:
//
//	until LINE      runs a line of bash again and again until it succeeds
//	code N LINE     runs a line of bash, and wants this exit code
//	disk FILE SIZE  makes an image of so many MiB, no two blocks of it alike
//	$PORT, $BUS_PORT  ports that nobody listens at
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy-sched": main})
}

func TestScripts(t *testing.T) {
	bin := apptest.Build(t, "", "backy", "backy-read", "backy-chunk", "backy-store", "backy-scrub", "backy-expire")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", e.Getenv("PATH")+string(filepath.ListSeparator)+bin)
			e.Setenv("TZ", "UTC")
			e.Setenv("PORT", apptest.FreePort(t))
			e.Setenv("BUS_PORT", apptest.FreePort(t))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": until, "code": code, "disk": disk},
	})
}

func bash(ts *testscript.TestScript, line string) error {
	return ts.Exec("bash", "-o", "pipefail", "-c", line)
}

func until(ts *testscript.TestScript, _ bool, args []string) {
	end := time.Now().Add(50 * time.Second)
	for bash(ts, "{ "+args[0]+"\n} > /dev/null 2>&1") != nil {
		if time.Now().After(end) {
			_ = bash(ts, args[0]+"; tail -n 40 log*")
			ts.Fatalf("it does not come to be: %s", args[0])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(bash(ts, args[1]), &exit) {
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func disk(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := make([]byte, 0, size<<20)
	for i := 0; len(text) < cap(text); i++ {
		text = fmt.Appendf(text, "%s%014d\n", args[0][:1], i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o640))
}

package cmd_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app/apptest"
	"backy/pkg/repo/repotest"
)

// The scripts in testdata/script are sessions with the commands as they are installed, and read like a manual. Beside
// what testscript knows, they have:
//
//	run LINE...             runs a line of bash in which every command of a pipe has to succeed
//	code N LINE...          runs it, and wants this exit code
//	disk FILE BLOCKS        makes an image of so many blocks of 256 KiB, no two of them alike
//	write FILE OFFSET TEXT  writes into a file, which grows if need be; the offset may end in K or M
//	flip FILE               flips one bit in the middle of a file
//	[root]                  the condition that we are root
//	$CEPH_CONF, $CEPH_ARGS, $CONSUL_HTTP_ADDR  as they are outside
//	$PROJECT, $FREE_PORT    where the project is, and a port of 127.0.0.1 that nobody listens on
func TestScripts(t *testing.T) { scripts(t, "script", "") }

// scripts runs the sessions of a folder with commands built with build tags.
func scripts(t *testing.T, folder, tags string) {
	root, bin := t.TempDir(), apptest.Build(t, tags)
	for _, dir := range []string{root, bin, filepath.Dir(root)} { // for who is not root, too
		must(t, os.Chmod(dir, 0o755))
	}
	project, err := filepath.Abs("..")
	must(t, err)
	testscript.Run(t, testscript.Params{
		Dir:         filepath.Join("testdata", folder),
		WorkdirRoot: root,
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("%s is no condition", name)
			}
			return os.Geteuid() == 0, nil
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			e.Setenv("TZ", "UTC")
			e.Setenv("PROJECT", project)
			for _, name := range []string{"CEPH_CONF", "CEPH_ARGS", "CONSUL_HTTP_ADDR"} {
				if value := os.Getenv(name); value != "" {
					e.Setenv(name, value)
				}
			}
			e.Setenv("FREE_PORT", apptest.FreePort(t))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run": func(ts *testscript.TestScript, not bool, args []string) {
				if got := line(ts, args); (got != 0) != not {
					ts.Fatalf("exit code %d", got)
				}
			},
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				if got := line(ts, args[1:]); got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			"disk":  makeDisk,
			"write": writeAt,
			"flip":  flip,
		},
	})
}

// line runs a line of bash and returns its exit code.
func line(ts *testscript.TestScript, args []string) int {
	text := args[0]
	for _, a := range args[1:] {
		text += " " + a
	}
	err := ts.Exec("bash", "-o", "pipefail", "-c", text)
	exit := (*exec.ExitError)(nil)
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

func makeDisk(ts *testscript.TestScript, _ bool, args []string) {
	blocks, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	r := rand.New(rand.NewPCG(uint64(blocks), 1))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), repotest.Noise(r, blocks*block), 0o640))
}

func writeAt(ts *testscript.TestScript, _ bool, args []string) {
	var offset int64
	var unit string
	_, err := fmt.Sscanf(args[1]+" ", "%d%s", &offset, &unit)
	if unit == "" {
		offset, err = strconv.ParseInt(args[1], 10, 64)
	}
	ts.Check(err)
	offset <<= map[string]int{"": 0, "K": 10, "M": 20}[unit]
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY|os.O_CREATE, 0o640)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteAt([]byte(args[2]), offset)
	ts.Check(err)
}

func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	b[len(b)/2] ^= 0x10
	ts.Check(os.WriteFile(path, b, 0o640))
}

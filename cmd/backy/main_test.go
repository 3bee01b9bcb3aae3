package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app/apptest"
)

// The scripts in testdata are sessions with the commands as they are installed: backy is this test binary, and the others
// are built from the source.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy": main})
}

func TestScripts(t *testing.T) {
	bin := apptest.Build(t, "", "backy-read", "backy-chunk", "backy-store", "backy-restore", "backy-scrub")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("BIN", bin)
			e.Setenv("PATH", e.Getenv("PATH")+string(filepath.ListSeparator)+bin)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"poke": poke},
	})
}

// poke FILE SIZE writes SIZE MiB of numbers, of which no two blocks are alike; poke FILE SIZE N changes the byte at N MiB.
func poke(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR|os.O_CREATE, 0o640)
	ts.Check(err)
	defer f.Close()
	var size, at int64
	_, err = fmt.Sscan(args[1], &size)
	ts.Check(err)
	if len(args) == 3 {
		_, err = fmt.Sscan(args[2], &at)
		ts.Check(err)
		_, err = f.WriteAt([]byte("changed"), at<<20)
		ts.Check(err)
		return
	}
	text := make([]byte, 0, size<<20)
	for i := 0; len(text) < cap(text); i++ {
		text = fmt.Appendf(text, "%015d\n", i)
	}
	_, err = f.Write(text)
	ts.Check(err)
}

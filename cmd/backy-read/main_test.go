package main

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app"
	"backy/pkg/repo"
)

// The scripts in testdata are sessions with the command; what it writes goes through the other stages, built from the source.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy-read": func() { app.Main(command) }})
}

func TestScripts(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "backy/cmd/backy-chunk", "backy/cmd/backy-store", "backy/cmd/backy-restore")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the commands: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", e.Getenv("PATH")+string(filepath.ListSeparator)+bin)
			e.Setenv("TZ", "UTC")
			_, err := repo.Init(filepath.Join(e.WorkDir, "srv"), repo.MinBlock, repo.World{Now: time.Now})
			return err
		},
	})
}

package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app"
	"backy/pkg/app/apptest"
	"backy/pkg/repo"
)

// The scripts in testdata are sessions with the command; what it writes goes through the other stages, built from the source.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy-read": func() { app.Main(command) }})
}

func TestScripts(t *testing.T) {
	bin := apptest.Build(t, "", "backy-chunk", "backy-store", "backy-restore")
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

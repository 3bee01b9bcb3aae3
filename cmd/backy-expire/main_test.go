package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app/apptest"
	"backy/pkg/repo"
)

// The scripts in testdata are sessions with the command, at the time that $NOW says.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy-expire": apptest.Main(command)})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE") != "", // writes what the commands say into the scripts; look at it
		Setup: func(e *testscript.Env) error {
			_, err := repo.Init(filepath.Join(e.WorkDir, "srv"), repo.DefaultBlock, repo.World{Now: time.Now})
			e.Setenv("NOW", "2026-11-21T10:00")
			e.Setenv("TZ", "UTC")
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"revision": revision, "list": list},
	})
}

// id is a revision's, made from its time so that sessions are the same each time.
func id(at string) string {
	digits := strings.NewReplacer("-", "", "T", "", ":", "", "0", "z", "1", "a").Replace(at)
	return digits + strings.Repeat("x", 22-len(digits))
}

// revision JOB TIME [TAGS] [distrusted] [protected] makes a revision of a disk of zeroes; "revision JOB TIME broken" one
// whose .rev cannot be read, and "stateless" one whose state cannot.
func revision(ts *testscript.TestScript, _ bool, args []string) {
	dir, at := ts.MkAbs(args[0]), args[1]
	rev := repo.Revision{ID: id(at), Time: apptest.Time(at), Source: "file:/x", Host: "here", Size: repo.DefaultBlock, Block: repo.DefaultBlock, Read: repo.ReadFull}
	rev.State = repo.State{Tags: []string{}, Trust: repo.Trusted}
	text, state := rev.Bytes(), []byte(nil)
	for _, word := range args[2:] {
		switch word {
		case "distrusted":
			rev.State.Trust, rev.State.Why = repo.Distrusted, repo.WhyOperator
		case "protected":
			rev.State.Protected = true
		case "broken":
			text = []byte("format: 1\n")
		case "stateless":
			state = []byte("format: 1\n")
		default:
			rev.State.Tags = strings.Split(word, ",")
		}
	}
	if state == nil {
		state = rev.State.Bytes()
	}
	ts.Check(os.MkdirAll(dir, 0o750))
	ts.Check(os.WriteFile(filepath.Join(dir, rev.ID+".state"), state, 0o640))
	ts.Check(os.WriteFile(filepath.Join(dir, rev.ID+".rev"), text, 0o640))
}

// list JOB LINE... fails unless the job has just these revisions, oldest first, each as "TIME TAGS".
func list(ts *testscript.TestScript, _ bool, args []string) {
	r, name, err := repo.Open(ts.MkAbs(args[0]), repo.World{Now: time.Now})
	ts.Check(err)
	job, err := r.Job(name)
	ts.Check(err)
	all, _, err := job.List()
	ts.Check(err)
	var got []string
	for _, v := range all {
		got = append(got, strings.TrimSpace(fmt.Sprint(v.Time.Format("2006-01-02T15:04"), " ", strings.Join(v.State.Tags, ","))))
	}
	if !slices.Equal(got, args[1:]) {
		ts.Fatalf("there are %q, want %q", got, args[1:])
	}
	entries, err := os.ReadDir(job.Dir())
	ts.Check(err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			ts.Fatalf("%s was left", e.Name())
		}
	}
}

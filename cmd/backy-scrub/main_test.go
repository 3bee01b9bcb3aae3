package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/pkg/app/apptest"
	"backy/pkg/repo"
)

// The scripts in testdata are sessions with the command; the backups are made by the stages, built from the source.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy-scrub": apptest.Main(command)})
}

func TestScripts(t *testing.T) {
	bin := apptest.Build(t, "", "backy", "backy-read", "backy-chunk", "backy-store", "backy-restore", "backy-scrub")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			e.Setenv("TZ", "UTC")
			_, err := repo.Init(filepath.Join(e.WorkDir, "srv"), repo.MinBlock, repo.World{Now: time.Now})
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"noise": noise, "flip": flip, "trust": trust},
	})
}

// noise FILE BLOCK... makes a disk of 8 blocks of 256 KiB and 1000 bytes, and fills blocks with text that is theirs alone.
func noise(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR|os.O_CREATE, 0o640)
	ts.Check(err)
	defer f.Close()
	ts.Check(f.Truncate(8*repo.MinBlock + 1000))
	for _, word := range args[1:] {
		var block int64
		_, err := fmt.Sscan(word, &block)
		ts.Check(err)
		n := int64(repo.MinBlock)
		if block == 8 {
			n = 1000
		}
		text := strings.Repeat(fmt.Sprintf("this is block %d. ", block), repo.MinBlock/10)
		_, err = f.WriteAt([]byte(text)[:n], block*repo.MinBlock)
		ts.Check(err)
	}
}

// flip DIR N flips a bit in the middle of the Nth chunk of the repository.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), ".backy/chunks/*/*.zst"))
	ts.Check(err)
	n := 0
	_, err = fmt.Sscan(args[1], &n)
	ts.Check(err)
	frame, err := os.ReadFile(files[n])
	ts.Check(err)
	frame[len(frame)-2] ^= 4 // of its checksum
	ts.Check(os.WriteFile(files[n], frame, 0o640))
}

// trust JOB PATTERN... fails unless the trust in each of the job's revisions, oldest first, with its damage, is as said.
func trust(ts *testscript.TestScript, _ bool, args []string) {
	r, name, err := repo.Open(ts.MkAbs(args[0]), repo.World{Now: time.Now})
	ts.Check(err)
	job, err := r.Job(name)
	ts.Check(err)
	list, _, err := job.List()
	ts.Check(err)
	if len(list) != len(args)-1 {
		ts.Fatalf("there are %d revisions", len(list))
	}
	for i, v := range list {
		got := strings.TrimSpace(fmt.Sprint(v.State.Trust, " ", v.State.Why))
		if len(v.State.Damage) > 0 {
			got += fmt.Sprint(" ", v.State.Damage)
		}
		if !regexp.MustCompile("^" + args[1+i] + "$").MatchString(got) {
			ts.Fatalf("revision %d is %q, want %q", i, got, args[1+i])
		}
	}
}

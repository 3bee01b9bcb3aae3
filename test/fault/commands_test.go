package fault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// bin is where the commands are, once they are built.
var bin string

var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", bin, "backy/cmd/...").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the commands: %w\n%s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) {
	var err error
	if bin, err = os.MkdirTemp("", "backy-fault"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(bin)
	os.Exit(code)
}

// command is one of backy's, from the source, with its standard error kept. It does not outlive the test.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(limited, filepath.Join(bin, name), args...)
	c.Stderr = new(bytes.Buffer)
	return c
}

// said is what a command wrote on its standard error.
func said(c *exec.Cmd) string { return strings.TrimSpace(c.Stderr.(*bytes.Buffer).String()) }

// start starts commands, joined by pipes as a shell does.
func start(t *testing.T, stages ...*exec.Cmd) {
	t.Helper()
	var ends []*os.File
	for i := range stages[1:] {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		stages[i].Stdout, stages[i+1].Stdin = w, r
		ends = append(ends, r, w)
	}
	for _, c := range stages {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range ends {
		f.Close()
	}
}

// oneLine fails the test unless a command has failed with this exit code and one line that says why, with these words.
func oneLine(t *testing.T, c *exec.Cmd, code int, words ...string) {
	t.Helper()
	text := said(c)
	if c.ProcessState.ExitCode() != code {
		t.Errorf("%s ended with %v, want exit code %d: %s", filepath.Base(c.Path), c.ProcessState, code, text)
	}
	if text == "" || strings.Contains(text, "\n") || len(text) > 400 {
		t.Errorf("%s said, and it is not one line:\n%s", filepath.Base(c.Path), text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s does not say %q: %s", filepath.Base(c.Path), word, text)
		}
	}
}

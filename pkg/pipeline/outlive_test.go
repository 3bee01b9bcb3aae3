package pipeline

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is to outlive us goes on when we are killed, and what it says is kept.
func TestOutlive(t *testing.T) {
	d := t.TempDir()
	self, err := os.StartProcess(os.Args[0], []string{os.Args[0], "be-a-scheduler", d}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	pid(t, d+"/a")
	if err := self.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := self.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d+"/go", nil, 0o640); err != nil {
		t.Fatal(err)
	}
	gone(t, d+"/a")
	for text := ""; !strings.Contains(text, "more"); text = content(t, d+"/said") { // cat may be a little later
		time.Sleep(10 * time.Millisecond)
	}
	if text := content(t, d+"/said"); text != "words\nmore\n" {
		t.Errorf("it said %q", text)
	}
	if text := content(t, d+"/end"); text != "done\n" {
		t.Errorf("it wrote %q", text)
	}
}

func TestDirectoryAndEnvironment(t *testing.T) {
	d, out := t.TempDir(), output(t)
	t.Setenv("BACKY_OURS", "kept")
	err := Run(context.Background(), sh(`echo "$BACKY_JOB $BACKY_OURS $(pwd)"`), Options{Stdout: out, Dir: d, Env: []string{"BACKY_JOB=vm1"}})
	if err != nil {
		t.Fatal(err)
	}
	d, _ = filepath.EvalSymlinks(d)
	if got := content(t, out.Name()); got != "vm1 kept "+d+"\n" {
		t.Errorf("got %q", got)
	}
}

func TestFind(t *testing.T) {
	d := t.TempDir()
	t.Setenv("PATH", d)
	t.Setenv("BACKY_SOME_THING", "")
	_, err := Find("backy-some-thing")
	if err == nil || !strings.Contains(err.Error(), "BACKY_SOME_THING can tell where it is") {
		t.Errorf("where there is none: %v", err)
	}
	for _, name := range []string{"backy-some-thing", "other"} {
		if err := os.WriteFile(d+"/"+name, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := Find("backy-some-thing"); path != d+"/backy-some-thing" || err != nil {
		t.Errorf("in PATH: %s, %v", path, err)
	}
	t.Setenv("BACKY_SOME_THING", d+"/other")
	if path, err := Find("backy-some-thing"); path != d+"/other" || err != nil {
		t.Errorf("by its variable: %s, %v", path, err)
	}
	t.Setenv("BACKY_SOME_THING", d+"/nothing")
	if _, err := Find("backy-some-thing"); err == nil || !strings.HasPrefix(err.Error(), "BACKY_SOME_THING: ") {
		t.Errorf("a wrong variable: %v", err)
	}
}

// What a stage has started and does not listen is killed with it, though the stage itself ends when it is told to.
func TestDeafGrandchild(t *testing.T) {
	d := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for !exists(d + "/child") {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	script := "(trap '' TERM; while [ ! -s " + d + "/pid ]; do sleep 0.01; done; echo ready > " + d + "/child; while :; do sleep 0.01; done) & echo $! > " + d + "/pid; wait"
	if err := Run(ctx, sh(script), Options{Grace: 100 * time.Millisecond}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	gone(t, d+"/pid")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"backy/pkg/event"
)

// The test binary is also a front door that can be killed: it runs two stages that would never end, once it has said which
// they are.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "be-a-scheduler" {
		said, err := os.Create(os.Args[2] + "/said")
		if err == nil {
			script := fmt.Sprintf("echo $$ > %[1]s/a; while [ ! -e %[1]s/go ]; do sleep 0.01; done; echo words >&2; echo more; echo done > %[1]s/end", os.Args[2])
			err = Run(context.Background(), sh(script, "cat"), Options{Outlive: true, Stderr: said, Stdout: said, Events: func(event.Event) {}})
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "be-a-front-door" {
		forever := "echo $$ > " + os.Args[2] + "/%s; read never"
		in, _, err := os.Pipe()
		if err == nil {
			err = Run(context.Background(), sh(fmt.Sprintf(forever, "a"), fmt.Sprintf("echo $$ > %s/b; exec sleep 1000", os.Args[2])), Options{Stdin: in})
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// sh makes stages of shell scripts, named a, b, c …
func sh(scripts ...string) []Stage {
	var stages []Stage
	for i, s := range scripts {
		stages = append(stages, Stage{Name: string(rune('a' + i)), Path: "/bin/sh", Args: []string{"-c", s}})
	}
	return stages
}

// output is a file for the last stage's output.
func output(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestOutputIsTheNextInput(t *testing.T) {
	in := output(t)
	if _, err := in.Write(bytes.Repeat([]byte("0123456789abcde\n"), 1<<18)); err != nil { // more than pipes hold
		t.Fatal(err)
	}
	for scripts, want := range map[string]string{
		"wc -c": "4194304", "cat|wc -c": "4194304", "cat|tr a-f A-F|cat|sort -u": "0123456789ABCDE", "echo one|cat": "one",
	} {
		if _, err := in.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		out := output(t)
		err := Run(t.Context(), sh(strings.Split(scripts, "|")...), Options{Stdin: in, Stdout: out})
		if got := strings.TrimSpace(content(t, out.Name())); err != nil || got != want {
			t.Errorf("%s: %q, %v", scripts, got, err)
		}
	}
	if err := Run(t.Context(), sh("cat", "cat"), Options{}); err != nil {
		t.Errorf("without input and output: %v", err)
	}
}

func TestPipesAreBig(t *testing.T) {
	// The first stage can write a whole MiB though the second does not read yet.
	d := t.TempDir()
	err := Run(t.Context(), sh("head -c 1048576 /dev/zero; touch "+d+"/written", "while ! test -e "+d+"/written; do sleep 0.01; done; cat"), Options{})
	if err != nil {
		t.Error(err)
	}
}

func TestTheFirstThatFailedByItself(t *testing.T) {
	// complain is a stage of ours: it fails when its input was cut off, which "end" tells.
	complain := `last=$(tail -n 1); test "$last" = end || exit 1; echo end`
	for _, test := range []struct {
		name   string
		stages []string
		want   string // "" is success
		code   int
	}{
		{"all is well", []string{"echo end", complain, complain}, "", 0},
		{"the first one fails", []string{"exit 4", complain, complain}, "a failed with exit code 4", 4},
		{"the middle one fails", []string{"echo end", "exit 75", complain}, "b failed with exit code 75", 75},
		{"the last one fails, the others write to nobody", []string{"yes", "cat", "exit 2"}, "c failed with exit code 2", 2},
		{"the last one fails, the others do nothing", []string{"sleep 1000", "sleep 1000", "exit 2"}, "c failed with exit code 2", 2},
		{"one is killed", []string{"echo end", "kill -9 $$", complain}, "b was ended by signal 9 (killed)", 1},
		{"one is killed while others wait", []string{"sleep 1000", "kill -9 $$", "sleep 1000"}, "b was ended by signal 9 (killed)", 1},
		{"one ends too early, but well", []string{"exec yes", "true"}, "a was ended by signal 13 (broken pipe)", 1},
		{"one that does not care about its input", []string{"exit 4", "cat; true"}, "a failed with exit code 4", 4},
		{"two fail", []string{"exit 4", "cat; exit 5"}, "a failed with exit code 4", 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := Run(t.Context(), sh(test.stages...), Options{})
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var f *Failure
			if !errors.As(err, &f) || f.Error() != test.want || f.ExitCode() != test.code {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestStart(t *testing.T) {
	d := t.TempDir()
	stages := append(sh("echo $$ > "+d+"/pid; exec sleep 1000"), Stage{Name: "backy-chunk", Path: d + "/none"})
	err := Run(t.Context(), stages, Options{})
	if err == nil || !strings.HasPrefix(err.Error(), "start backy-chunk: ") || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// Whether the first stage came so far as to say its number or not, it has ended.
	if text, err := os.ReadFile(d + "/pid"); err == nil && len(text) > 0 {
		gone(t, d+"/pid")
	}
}

// pid waits for a file that holds the number of a process.
func pid(t *testing.T, file string) int {
	t.Helper()
	for range 1000 {
		text, _ := os.ReadFile(file)
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return n
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nobody wrote %s", file)
	return 0
}

// gone waits until the process whose number a file holds has ended, be it as a zombie that someone else has to bury.
func gone(t *testing.T, file string) {
	t.Helper()
	n := pid(t, file)
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s: process %d still lives", filepath.Base(file), n)
}

func TestCancel(t *testing.T) {
	why := errors.New("Ctrl-C")
	for name, script := range map[string]string{
		"who ends":             "echo $$ > %s; exec sleep 1000",
		"who cleans up first":  "trap 'exit 130' TERM; echo $$ > %s; while :; do sleep 0.01; done",
		"who does not listen":  "trap '' TERM; echo $$ > %s; while :; do sleep 0.01; done",
		"who started another":  "sleep 1000 & echo $! > %s; wait",
		"who fails when asked": "trap 'exit 1' TERM; echo $$ > %s; while :; do sleep 0.01; done",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pid")
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				pid(t, file)
				cancel(why)
			}()
			if err := Run(ctx, sh(fmt.Sprintf(script, file), "cat"), Options{Grace: 200 * time.Millisecond}); err != why {
				t.Errorf("got %v", err)
			}
			gone(t, file)
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Run(ctx, sh("true"), Options{}); err != why {
		t.Errorf("cancelled before: %v", err)
	}
}

func TestStagesEndWithUs(t *testing.T) {
	d := t.TempDir()
	front, err := os.StartProcess(os.Args[0], []string{os.Args[0], "be-a-front-door", d}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	pid(t, d+"/a")
	pid(t, d+"/b")
	if err := front.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := front.Wait(); err != nil {
		t.Fatal(err)
	}
	gone(t, d+"/a")
	gone(t, d+"/b")
}

func TestCtrlCReachesOnlyUs(t *testing.T) {
	out := output(t)
	if err := Run(t.Context(), sh("cut -d ' ' -f 5 /proc/$$/stat; cat", "cat; cut -d ' ' -f 5 /proc/$$/stat"), Options{Stdout: out}); err != nil {
		t.Fatal(err)
	}
	groups := strings.Fields(content(t, out.Name()))
	if len(groups) != 2 || groups[0] == groups[1] || groups[0] == strconv.Itoa(syscall.Getpgrp()) || groups[1] == strconv.Itoa(syscall.Getpgrp()) {
		t.Errorf("process groups %v, ours is %d", groups, syscall.Getpgrp())
	}
}

func TestEvents(t *testing.T) {
	say := `echo '{"kind":"progress","stage":"%[1]s","done":1}' >&3; echo 'no event' >&3; printf '{"kind":"committed","stage":"%[1]s"}' >&3`
	var got []string
	err := Run(t.Context(), sh(fmt.Sprintf(say, "read"), "cat; "+fmt.Sprintf(say, "store")), Options{Events: func(e event.Event) { got = append(got, e.Stage+" "+string(e.Kind)) }})
	want := map[string]int{"read progress": 1, "read committed": 1, "store progress": 1, "store committed": 1}
	for _, g := range got {
		want[g]--
	}
	for what, n := range want {
		if n != 0 {
			t.Errorf("%s: %d too few", what, n)
		}
	}
	if err != nil {
		t.Error(err)
	}

	// A flood of something else blocks nobody, and a grandchild that keeps the pipe open does not either.
	err = Run(t.Context(), sh("head -c 1000000 /dev/zero >&3; sleep 3 > /dev/null 2>&1 &"), Options{Events: func(e event.Event) { t.Errorf("%+v", e) }})
	if err != nil {
		t.Error(err)
	}
}

func TestWordsComeInWholeLines(t *testing.T) {
	var said bytes.Buffer
	talk := `i=0; while [ $i -lt 100 ]; do printf "%[1]s" >&2; printf "%[1]s\n" >&2; i=$((i+1)); done; printf "%[1]s%[1]s" >&2; cat`
	if err := Run(t.Context(), sh(fmt.Sprintf(talk, "a"), fmt.Sprintf(talk, "b")), Options{Stderr: &said}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(said.String(), "aa\n") + strings.Count(said.String(), "bb\n"); n != 202 || said.Len() != 3*n {
		t.Errorf("%d whole lines in\n%s", n, said.String())
	}
}

func TestWhoWasToldToEndIsNotHeard(t *testing.T) {
	var said bytes.Buffer
	d := t.TempDir()
	err := Run(t.Context(), sh(
		"trap 'echo ended by a signal >&2; exit 130' TERM; touch "+d+"/ready; while :; do sleep 0.01; done",
		"while ! test -e "+d+"/ready; do sleep 0.01; done; echo the disk is full >&2; exit 1"), Options{Stderr: &said})
	if said.String() != "the disk is full\n" {
		t.Errorf("%v: %q", err, said.String())
	}
}

func TestWhoFailedByItselfIsHeardThoughItIsLate(t *testing.T) {
	// The first stage ends its output without an end, and the second one fails of that before the first has said why.
	late := `trap 'echo the reason >&2; exit 4' TERM; exec >/dev/null; while :; do sleep 0.01; done`
	var said bytes.Buffer
	err := Run(t.Context(), sh(late, "cat; echo a consequence >&2; exit 1"), Options{Stderr: &said})
	if err == nil || err.Error() != "a failed with exit code 4" || !strings.HasSuffix(said.String(), "the reason\n") {
		t.Errorf("%v; said %q", err, said.String())
	}
}

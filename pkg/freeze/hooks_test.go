package freeze_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/freeze"
)

// guest stands for a machine with a file system: its hooks and the snapshot note in one file what they do, in turn.
type guest struct {
	t     *testing.T
	diary string
	said  bytes.Buffer // log lines
	hooks freeze.Hooks
}

func newGuest(t *testing.T) *guest {
	g := &guest{t: t, diary: filepath.Join(t.TempDir(), "diary")}
	tick := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	g.hooks = freeze.Hooks{
		Freeze: "echo freeze $BACKY_JOB $BACKY_SNAPSHOT >> $DIARY",
		Thaw:   "echo thaw $BACKY_JOB $BACKY_SNAPSHOT >> $DIARY",
		Env:    []string{"DIARY=" + g.diary, "BACKY_JOB=vm1"},
		Now:    func() time.Time { tick = tick.Add(700 * time.Millisecond); return tick },
		Log:    slog.New(slog.NewTextHandler(&g.said, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	return g
}

func (g *guest) note(text string) {
	f, err := os.OpenFile(g.diary, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err == nil {
		_, err = f.WriteString(text + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// around makes a snapshot, which fails as make says.
func (g *guest) around(ctx context.Context, make error) error {
	return g.hooks.Around(ctx, freeze.Snapshot{Name: "backy-x", Make: func(context.Context) error { g.note("snapshot"); return make }})
}

// want says what was done, in order, and what is to be found in the log.
func (g *guest) want(diary string, said ...string) {
	g.t.Helper()
	got, _ := os.ReadFile(g.diary)
	if text := strings.Join(strings.Split(strings.TrimSpace(string(got)), "\n"), "; "); text != diary {
		g.t.Errorf("done: %q, want %q", text, diary)
	}
	for _, s := range said {
		if !strings.Contains(g.said.String(), s) {
			g.t.Errorf("not said: %.200s\n%.2000s", s, g.said.String())
		}
	}
	if warned := strings.Contains(g.said.String(), "level=WARN"); warned != strings.Contains(strings.Join(said, ""), "level=WARN") {
		g.t.Errorf("warned: %t\n%s", warned, g.said.String())
	}
}

func TestHooks(t *testing.T) {
	g := newGuest(t)
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	g.want("freeze vm1 backy-x; snapshot; thaw vm1 backy-x", `level=INFO msg="frozen and thawed again for the snapshot backy-x" took=700ms`)
}

func TestOneHook(t *testing.T) {
	g := newGuest(t)
	g.hooks.Thaw = ""
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	g.want("freeze vm1 backy-x; snapshot")
}

func TestNest(t *testing.T) {
	outer, inner := newGuest(t), newGuest(t)
	inner.hooks.Env[0] = "DIARY=" + outer.diary
	inner.hooks.Env[1] = "BACKY_JOB=inside"
	err := freeze.Nest(&outer.hooks, &inner.hooks).Around(t.Context(), freeze.Snapshot{Name: "backy-x", Make: func(context.Context) error { outer.note("snapshot"); return nil }})
	if err != nil {
		t.Error(err)
	}
	outer.want("freeze vm1 backy-x; freeze inside backy-x; snapshot; thaw inside backy-x; thaw vm1 backy-x")
}

// What a hook says is for people.
func TestHooksSpeak(t *testing.T) {
	g := newGuest(t)
	g.hooks.Freeze = `echo one; echo two >&2; printf 'no end'; printf '\033[2J\n' >&2`
	g.hooks.Thaw = "head -c 5000 /dev/zero | tr '\\0' x"
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	g.want("snapshot", `msg="freeze: one"`, `msg="freeze: two"`, `freeze: no end`, "thaw: "+strings.Repeat("x", 4096)+`"`, "thaw: "+strings.Repeat("x", 904)+`"`)
}

// Of a hook that does not stop to speak, the beginning is enough.
func TestHookSpeaksOnAndOn(t *testing.T) {
	g := newGuest(t)
	g.hooks.Freeze = `yes | head -n 100000`
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	g.want("snapshot; thaw vm1 backy-x", `msg="freeze: (and more)"`)
	if n := strings.Count(g.said.String(), `msg="freeze: y"`); n != 1000 {
		t.Errorf("%d lines", n)
	}
}

// A snapshot that is not of a frozen disk is better than none; but it is said. Half of it may have been frozen.
func TestFreezeFails(t *testing.T) {
	g := newGuest(t)
	g.hooks.Freeze = "echo half >> $DIARY; exit 3"
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	g.want("half; snapshot; thaw vm1 backy-x", `level=WARN msg="nothing is frozen, or not all; the snapshot is made all the same, of a disk in use"`, `exit status 3`)
}

// A freeze that takes too long is killed, with all that it has started, and then thawed.
func TestFreezeHangs(t *testing.T) {
	g := newGuest(t)
	g.hooks.Limit = 300 * time.Millisecond
	g.hooks.Freeze = "sleep 1000 & echo $! >> $DIARY; sleep 1000"
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	text, _ := os.ReadFile(g.diary)
	child, rest, _ := strings.Cut(string(text), "\n")
	if rest != "snapshot\nthaw vm1 backy-x\n" {
		t.Errorf("%q", text)
	}
	if err := exec.Command("sh", "-c", `for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$0" 2> /dev/null || exit 0; grep -q 'State:.Z' /proc/$0/status && exit 0; sleep 0.1; done; exit 1`, child).Run(); err != nil {
		t.Error("what the freeze has started goes on")
	}
	if !strings.Contains(g.said.String(), "it took longer than 300ms, and was killed") {
		t.Error(g.said.String())
	}
}

// What a freeze leaves behind, with its standard error, holds up nobody.
func TestFreezeLeavesSomethingBehind(t *testing.T) {
	g := newGuest(t)
	g.hooks.Freeze = "sleep 1000 & echo $! > $DIARY.pid"
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	g.want("snapshot; thaw vm1 backy-x")
	if err := exec.Command("sh", "-c", `kill $(cat "$0")`, g.diary+".pid").Run(); err != nil {
		t.Error("and goes on: ", err)
	}
}

func TestSnapshotFails(t *testing.T) {
	g := newGuest(t)
	wrong := errors.New("no space")
	if err := g.around(t.Context(), wrong); !errors.Is(err, wrong) {
		t.Error(err)
	}
	g.want("freeze vm1 backy-x; snapshot; thaw vm1 backy-x")
}

// A machine that nobody can thaw needs somebody: that is no warning.
func TestThawFails(t *testing.T) {
	g := newGuest(t)
	g.hooks.Thaw = "echo try >> $DIARY; exit 1"
	err := g.around(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "WHAT WAS FROZEN MAY STILL BE FROZEN, for 700ms now: thaw it by hand") || !strings.Contains(err.Error(), "exit status 1") {
		t.Error(err)
	}
	g.want("freeze vm1 backy-x; snapshot; try; try", `level=WARN msg="the thaw failed; trying once more"`)

	g = newGuest(t)
	g.hooks.Thaw = "echo try >> $DIARY; test $(grep -c try $DIARY) = 2"
	if err := g.around(t.Context(), nil); err != nil {
		t.Error(err)
	}
	g.want("freeze vm1 backy-x; snapshot; try; try", "level=WARN")
}

// Ctrl-C while it is frozen, or freezing: no snapshot is begun any more, and it is thawed.
func TestCancelled(t *testing.T) {
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	g := newGuest(t)
	err := g.hooks.Around(ctx, freeze.Snapshot{Name: "backy-x", Make: func(ctx context.Context) error {
		g.note("snapshot")
		cancel(stop)
		return context.Cause(ctx)
	}})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
	g.want("freeze vm1 backy-x; snapshot; thaw vm1 backy-x")

	ctx, cancel = context.WithCancelCause(t.Context())
	g = newGuest(t)
	g.hooks.Freeze = "echo freezing >> $DIARY; sleep 1000"
	done := make(chan error)
	go func() { done <- g.around(ctx, nil) }()
	await(t, g.diary, "freezing")
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Error(err)
	}
	g.want("freezing; thaw vm1 backy-x")
}

// The test calls itself as a process that freezes and is killed.
func TestMain(m *testing.M) {
	begun := os.Getenv("FREEZE_AND_WAIT")
	if begun == "" {
		os.Exit(m.Run())
	}
	h := freeze.Hooks{Freeze: os.Getenv("FREEZE"), Thaw: os.Getenv("THAW"), Now: time.Now, Log: slog.Default()}
	_ = h.Around(context.Background(), freeze.Snapshot{Name: "backy-x", Make: func(context.Context) error {
		err := os.WriteFile(begun, []byte("begun"), 0o640)
		time.Sleep(time.Minute) // and nobody waits for that
		return err
	}})
}

// Whoever is killed while something is frozen leaves it thawed: a process that only waits for that sees to it. What ends a
// service or a terminal's processes does not end it. A freeze under way comes to its end first.
func TestKilled(t *testing.T) {
	for _, test := range []struct{ name, freeze string }{
		{"while it is frozen", "echo freeze >> $DIARY"},
		{"and something was left behind", "sleep 1000 & echo $! > $DIARY.pid; echo freeze >> $DIARY"},
		{"while it freezes", "echo begun > $DIARY.begun; sleep 0.3; echo freeze >> $DIARY"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "FREEZE_AND_WAIT="+g.diary+".begun", "DIARY="+g.diary, "FREEZE="+test.freeze, "THAW=echo thaw $BACKY_SNAPSHOT >> $DIARY")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			t.Cleanup(func() {
				if left, err := os.ReadFile(g.diary + ".pid"); err == nil {
					_ = exec.Command("kill", strings.TrimSpace(string(left))).Run()
				}
			})
			await(t, g.diary+".begun", "begun")
			for _, pid := range guards(t, cmd.Process.Pid) {
				for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
					if err := syscall.Kill(pid, s); err != nil {
						t.Error(err)
					}
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			await(t, g.diary, "thaw")
			g.want("freeze; thaw backy-x")
		})
	}
}

// guards are the children of a process that have a session of their own; there has to be one.
func guards(t *testing.T, parent int) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			if session, err := unix.Getsid(pid); err == nil && session == pid {
				pids = append(pids, pid)
			}
		}
	}
	if len(pids) != 1 {
		t.Errorf("%d processes wait to thaw, want 1", len(pids))
	}
	return pids
}

// await waits until a file has a word in it.
func await(t *testing.T, path, word string) {
	t.Helper()
	for range 3000 {
		if text, _ := os.ReadFile(path); strings.Contains(string(text), word) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s never says %s", path, word)
}

package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// listen is a service manager's end: a socket, and a function that waits for the next datagram.
func listen(t *testing.T, name string) func() string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
	return func() string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func manager(t *testing.T) *Manager {
	t.Helper()
	m, err := OpenManager()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func TestManager(t *testing.T) {
	for kind, name := range map[string]string{"path": filepath.Join(t.TempDir(), "notify"), "abstract": fmt.Sprintf("@backy-test-%d", os.Getpid())} {
		t.Run(kind, func(t *testing.T) {
			next := listen(t, name)
			m := manager(t)
			for _, step := range []struct {
				tell func() error
				want string
			}{
				{func() error { return m.Ready("9 jobs") }, "READY=1\nSTATUS=9 jobs\n"},
				{func() error { return m.Ready("") }, "READY=1\n"},
				{func() error { return m.Status("2 jobs running\nWATCHDOG=1") }, "STATUS=2 jobs running WATCHDOG=1\n"},
				{func() error { return m.Stopping("told to") }, "STOPPING=1\nSTATUS=told to\n"},
			} {
				if err := step.tell(); err != nil {
					t.Fatal(err)
				}
				if got := next(); got != step.want {
					t.Errorf("%q, want %q", got, step.want)
				}
			}
			if err := m.Reloading(); err != nil {
				t.Fatal(err)
			}
			if got := next(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\n$`).MatchString(got) {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestNoManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	m, err := OpenManager()
	if m != nil || err != nil {
		t.Fatal(m, err)
	}
	for what, err := range map[string]error{"ready": m.Ready("x"), "reloading": m.Reloading(), "stopping": m.Stopping(""), "status": m.Status("x"),
		"watch": m.Watch(t.Context(), nil), "close": m.Close()} {
		if err != nil {
			t.Error(what, err)
		}
	}
}

// A child of the service must not speak for it: the environment is clean after OpenManager, also where it is refused.
func TestManagerRefused(t *testing.T) {
	for _, test := range []struct{ socket, usec, want string }{
		{"notify", "", `NOTIFY_SOCKET: "notify" is neither a path nor an abstract socket`},
		{"vsock:2:1234", "", "neither a path"},
		{filepath.Join(t.TempDir(), "none"), "", "no such file or directory"},
		{"@x", "soon", `WATCHDOG_USEC: "soon" is no number of microseconds`},
		{"@x", "-1", "no number"},
		{"@x", "9223372036854775807", "no number"},
	} {
		t.Setenv("NOTIFY_SOCKET", test.socket)
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", "")
		if m, err := OpenManager(); err == nil || m != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if v, ok := os.LookupEnv(name); ok {
				t.Errorf("%s=%s is left", name, v)
			}
		}
	}
}

// The manager goes away: that is an error, and the service decides what it is worth. It comes back with another socket.
func TestManagerGone(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", name)
	m := manager(t)
	conn.Close()
	if err := m.Ready(""); err == nil || !strings.Contains(err.Error(), "tell the service manager") {
		t.Error(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	next := listen(t, name) // it is back
	if err := m.Ready(""); err != nil {
		t.Error(err)
	}
	if got := next(); got != "READY=1\n" {
		t.Errorf("%q", got)
	}
}

func TestWatchdog(t *testing.T) {
	for _, test := range []struct {
		pid  string
		want time.Duration
	}{{"", 30 * time.Second}, {strconv.Itoa(os.Getpid()), 30 * time.Second}, {"1", 0}} { // that of another process is not for us
		t.Run("pid "+test.pid, func(t *testing.T) {
			listen(t, fmt.Sprintf("@backy-test-%d", os.Getpid()))
			t.Setenv("WATCHDOG_USEC", "30000000")
			t.Setenv("WATCHDOG_PID", test.pid)
			if m := manager(t); m.watchdog != test.want {
				t.Errorf("%s, want %s", m.watchdog, test.want)
			}
		})
	}
}

// It is told twice an interval, and not while the service hangs.
func TestWatch(t *testing.T) {
	next := listen(t, filepath.Join(t.TempDir(), "notify"))
	m := manager(t)
	m.watchdog = 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second) // ticks at 0, 10, 20, 30, 40
		defer cancel()
		asked := 0
		if err := m.Watch(ctx, func() bool { asked++; return asked != 3 }); err != nil {
			t.Error(err)
		}
		if asked != 5 {
			t.Errorf("asked %d times, want 5", asked)
		}
	})
	for range 4 {
		if got := next(); got != "WATCHDOG=1\n" {
			t.Errorf("%q", got)
		}
	}
	if err := m.Status("end"); err != nil {
		t.Error(err)
	}
	if got := next(); got != "STATUS=end\n" {
		t.Errorf("more than was due: %q", got)
	}
}

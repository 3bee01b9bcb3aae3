// Package apptest has what the tests of the commands share.
package apptest

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"backy/pkg/app"
)

// Build builds commands from the source, such as backy-read, or all of them if none is named, and returns the directory
// that they are in. tags are those of the build.
func Build(t testing.TB, tags string, names ...string) string {
	t.Helper()
	bin := t.TempDir()
	args := []string{"build", "-tags", tags, "-o", bin + "/"}
	for _, name := range names {
		args = append(args, "backy/cmd/"+name)
	}
	if len(names) == 0 {
		args = append(args, "backy/cmd/...")
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build the commands: %v\n%s", err, out)
	}
	return bin
}

// FreePort is a port that nobody listens at, at no address of this host. It is one that the kernel gives to no connection by
// itself, so nobody gets it by chance before the test does.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(20000 + rand.IntN(10000))
		if l, err := net.Listen("tcp", "0.0.0.0:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Main is the main function of a command for testscript.Main, at the time that $NOW says (as Time reads it), or else at the
// real one.
func Main(c app.Command) func() {
	return func() {
		now := time.Now
		if text := os.Getenv("NOW"); text != "" {
			now = func() time.Time { return Time(text) }
		}
		os.Exit(app.Run(context.Background(), c, app.Process{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: now}))
	}
}

// Time is a time as scripts write it, as in 2026-11-21T10:00, in UTC. It panics where that is none.
func Time(text string) time.Time {
	t, err := time.Parse("2006-01-02T15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

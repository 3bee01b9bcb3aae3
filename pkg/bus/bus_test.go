package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/pkg/event"
)

// A process that has a bus until it is killed; see TestAKilledScheduler.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BUS_TEST_CHILD"); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

var moment = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// words is a log that a test can read.
type words struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *words) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func options(dir string) Options {
	return Options{Dir: dir, MaxBytes: 16 << 20, Now: func() time.Time { return moment }}
}

// openAt opens a bus with a server of its own, which ends with the test.
func openAt(t *testing.T, dir string) *Bus {
	t.Helper()
	b, _ := openLogged(t, dir)
	return b
}

// openLogged opens a bus that is closed with the test, and returns what it says.
func openLogged(t *testing.T, dir string) (*Bus, *words) {
	t.Helper()
	log := new(words)
	o := options(dir)
	o.Log = log.logger()
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b, log
}

// base makes a base directory with a bus.
func base(t *testing.T) (string, *Bus) {
	t.Helper()
	dir := t.TempDir()
	return dir, openAt(t, filepath.Join(dir, ".backy", "nats"))
}

func publish(t *testing.T, b *Bus, list ...event.Event) {
	t.Helper()
	for _, e := range list {
		if err := b.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// all are the events that are kept, each as "kind job revision".
func all(t *testing.T, b *Bus, f EventFilter) []string {
	t.Helper()
	var list []string
	for e, err := range b.Events(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.Job, e.Revision)))
	}
	return list
}

func want(t *testing.T, got []string, list ...string) {
	t.Helper()
	if strings.Join(got, "; ") != strings.Join(list, "; ") {
		t.Errorf("got %q, want %q", got, list)
	}
}

func committed(job, id string) event.Event {
	return event.Event{Kind: event.Committed, Job: job, Revision: id, Time: moment}
}

func TestAnOpenBusSaysWhereItIs(t *testing.T) {
	dir, b := base(t)
	url, token, err := Local(dir)
	if err != nil || url != b.URL() {
		t.Fatalf("%s, %v; want %s", url, err, b.URL())
	}
	if !strings.HasPrefix(url, "nats://127.0.0.1:") {
		t.Errorf("%s is not the loopback address", url)
	}
	info, err := os.Stat(filepath.Join(dir, ".backy/nats/token"))
	if err != nil || info.Mode() != 0o600 || len(token) < 26 {
		t.Errorf("token %q has mode %v: %v", token, info.Mode(), err)
	}
	b.Close()
	if _, _, err := Local(dir); err == nil || !strings.Contains(err.Error(), "no scheduler") {
		t.Errorf("after its end: %v", err)
	}
	b = openAt(t, filepath.Join(dir, ".backy", "nats"))
	if _, again, err := Local(dir); again != token {
		t.Errorf("the token is not kept: %v", err)
	}
}

// Nobody reaches it from outside: no other address of this host answers.
func TestListenerIsOnLoopbackOnly(t *testing.T) {
	_, b := base(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(b.URL(), "nats://"), ":")
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.Equal(net.IPv4(127, 0, 0, 1)) || ip.IP.IsLinkLocalUnicast() {
			continue
		}
		tried++
		if c, err := net.Dial("tcp", net.JoinHostPort(ip.IP.String(), port)); err == nil {
			c.Close()
			t.Errorf("%s:%s answers", ip.IP, port)
		}
	}
	if c, err := net.Dial("tcp", "127.0.0.2:"+port); err == nil {
		c.Close()
		t.Error("127.0.0.2 answers: it listens on more than one address")
	}
	t.Logf("%d other addresses do not answer", tried)
}

func TestWrongTokenIsRefused(t *testing.T) {
	_, b := base(t)
	for _, token := range []string{"", "wrong"} {
		c, err := Connect(t.Context(), b.URL(), token, nil)
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "refuses the token") {
			t.Errorf("token %q: %v", token, err)
		}
	}
}

func TestPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := options(t.TempDir())
	o.Port = l.Addr().(*net.TCPAddr).Port
	_, err = Open(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d of 127.0.0.1 is taken", o.Port)) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, URLFile)); err == nil {
		t.Error("a server that did not start says where it is")
	}
	l.Close()
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("once the port is free: %v", err)
	}
	b.Close()
}

func TestAStateDirectoryHasOneServer(t *testing.T) {
	dir, _ := base(t)
	_, err := Open(t.Context(), options(filepath.Join(dir, ".backy", "nats")))
	if used := (*InUseError)(nil); !errors.As(err, &used) || used.Holder != fmt.Sprintf("pid %d", os.Getpid()) {
		t.Errorf("%v", err)
	}
}

func TestStateDirectoryCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Open(t.Context(), options(file)); err == nil {
		b.Close()
		t.Error("a file was taken for the state directory")
	}
	if os.Getuid() == 0 {
		return // who may write anywhere
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), options(dir)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
}

func TestOthersCouldReadTheToken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, TokenFile)
	if err := os.WriteFile(path, []byte("open-secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b, log := openLogged(t, dir)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 || !strings.Contains(log.String(), "others could read") {
		t.Errorf("mode %v, %v; said %s", info.Mode(), err, log.String())
	}
	c, err := Connect(t.Context(), b.URL(), "open-secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// A server that someone else runs, here that of another bus.
func TestExistingServer(t *testing.T) {
	dir, server := base(t)
	url, token, _ := Local(dir)
	b, err := Open(t.Context(), Options{URL: url, Token: token, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	publish(t, b, committed("vm1", "R1"))
	want(t, all(t, server, EventFilter{}), "committed vm1 R1")
	if err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), Options{URL: "nats://127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "no NATS server answers") {
		t.Errorf("nobody there: %v", err)
	}
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Publish(ctx, committed("vm1", "R2")); err == nil {
		t.Error("it was published to nobody")
	}
}

func TestLimitsCanBeChanged(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, dir)
	publish(t, b, committed("vm1", "R1"))
	b.Close()
	for _, bytes := range []int64{1 << 20, 64 << 20} {
		o := options(dir)
		o.MaxBytes, o.MaxAge = bytes, time.Hour
		b, err := Open(t.Context(), o)
		if err != nil {
			t.Fatalf("%d bytes: %v", bytes, err)
		}
		want(t, all(t, b, EventFilter{}), "committed vm1 R1")
		b.Close()
	}
}

// The oldest events go where all together would take too much.
func TestEventsAreBounded(t *testing.T) {
	o := options(t.TempDir())
	o.MaxBytes = 200 << 10
	b, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range 1000 {
		publish(t, b, event.Event{Kind: event.Warning, Job: "vm1", Revision: fmt.Sprint(i), Message: strings.Repeat("x", 1000)})
	}
	got := all(t, b, EventFilter{})
	if len(got) < 50 || len(got) > 200 || got[len(got)-1] != "warning vm1 999" {
		t.Errorf("%d are kept, the last one %s", len(got), got[len(got)-1])
	}
}

func TestCloseEndsAll(t *testing.T) {
	before := runtime.NumGoroutine()
	b := openAt(t, t.TempDir())
	ended := make(chan error, 3)
	go func() {
		ended <- b.Consume(t.Context(), Consumer{Name: "c"}, func(context.Context, Delivery) error { return nil })
	}()
	go func() { _, err := b.Pull(t.Context(), "default", "fast"); ended <- err }()
	go func() {
		var last error
		for _, err := range b.Events(t.Context(), EventFilter{Follow: true}) {
			last = err
		}
		ended <- last
	}()
	publish(t, b, committed("vm1", "R1"))
	b.Close()
	b.Close()
	for range 3 {
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	}
	if err := b.Publish(t.Context(), committed("vm1", "R2")); !errors.Is(err, ErrClosed) {
		t.Errorf("publish: %v", err)
	}
	if _, err := b.Push(t.Context(), Work{Job: "vm1", Pool: "default", Lane: "slow"}); !errors.Is(err, ErrClosed) {
		t.Errorf("push: %v", err)
	}
	for range 500 { // the last ones of the server end after it says that it has
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("%d goroutines before, %d now:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
}

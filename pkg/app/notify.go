package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Manager is the service manager that started this process and wants to know how it gets on: systemd, for a unit of
// Type=notify. What is told goes as datagrams of NAME=VALUE lines to the socket that the environment names; see
// sd_notify(3) and sd_watchdog_enabled(3). A nil Manager is one that does not want to know: its methods do nothing.
type Manager struct {
	addr     *net.UnixAddr
	watchdog time.Duration // how long it may hear nothing; 0 without a watchdog

	mu   sync.Mutex
	conn *net.UnixConn
}

// notifyPatience is how long a manager that does not read may hold up who tells it something.
const notifyPatience = 5 * time.Second

// OpenManager finds the manager; nil and no error where there is none that listens. What the environment says of it is
// taken away, so that no child speaks for this process.
func OpenManager() (*Manager, error) {
	path, usec, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if path == "" {
		return nil, nil
	}
	if path[0] != '/' && path[0] != '@' { // @ is an abstract socket; there are others, for virtual machines
		return nil, fmt.Errorf("NOTIFY_SOCKET: %q is neither a path nor an abstract socket", path)
	}
	m := &Manager{addr: &net.UnixAddr{Name: path, Net: "unixgram"}}
	if usec != "" && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n, err := strconv.ParseInt(usec, 10, 64)
		if err != nil || n <= 0 || n > int64(1<<63-1)/int64(time.Microsecond) {
			return nil, fmt.Errorf("WATCHDOG_USEC: %q is no number of microseconds", usec)
		}
		m.watchdog = time.Duration(n) * time.Microsecond
	}
	var err error
	if m.conn, err = net.DialUnix("unixgram", nil, m.addr); err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return m, nil
}

// Ready says that the service is up, or that it is again after Reloading.
func (m *Manager) Ready(status string) error { return m.tell("READY=1", statusLine(status)) }

// Reloading says that the configuration is read again. Ready has to follow, also where that failed.
func (m *Manager) Reloading() error {
	if m == nil {
		return nil
	}
	var now unix.Timespec // of the clock by which the manager tells one reload from another
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("clock_gettime: %w", err)
	}
	return m.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the service is about to end.
func (m *Manager) Stopping(status string) error { return m.tell("STOPPING=1", statusLine(status)) }

// Status is one line for people, as `systemctl status` shows it.
func (m *Manager) Status(status string) error { return m.tell(statusLine(status)) }

// Watch tells the manager twice in each of its watchdog's intervals that the service is alive, if alive says so; alive has
// to return at once, or not at all where the service hangs. Where alive says no, nothing is told, and in the end the
// manager ends the service. Watch returns when ctx ends, or at once where there is no watchdog; the error is the last of a
// manager that could not be told, which Watch goes on trying.
func (m *Manager) Watch(ctx context.Context, alive func() bool) error {
	if m == nil || m.watchdog == 0 {
		return nil
	}
	tick := time.NewTicker(m.watchdog / 2)
	defer tick.Stop()
	for err := error(nil); ; {
		if alive() {
			if wrong := m.tell("WATCHDOG=1"); wrong != nil {
				err = wrong
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Close ends the connection. Nothing is told by it.
func (m *Manager) Close() error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn.Close()
}

func statusLine(text string) string {
	return "STATUS=" + strings.Join(strings.Fields(text), " ") // a newline would begin another word
}

// tell sends lines as one datagram. An empty status is left out.
func (m *Manager) tell(lines ...string) error {
	if m == nil {
		return nil
	}
	var text strings.Builder
	for _, line := range lines {
		if line != "STATUS=" {
			text.WriteString(line + "\n")
		}
	}
	if text.Len() == 0 {
		return errors.New("there is nothing to tell the service manager")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.send(text.String())
	if err != nil { // the manager may have begun anew, with another socket
		var conn *net.UnixConn
		if conn, err = net.DialUnix("unixgram", nil, m.addr); err == nil {
			_ = m.conn.Close()
			m.conn = conn
			err = m.send(text.String())
		}
	}
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

func (m *Manager) send(text string) error {
	if err := m.conn.SetWriteDeadline(time.Now().Add(notifyPatience)); err != nil {
		return err
	}
	_, err := m.conn.Write([]byte(text))
	return err
}

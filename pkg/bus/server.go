package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"

	"backy/pkg/durable"
)

// Files in the state directory of the embedded server. JetStream has a directory of its own beside them.
const (
	TokenFile = "token" // what clients have to say, one line, mode 0600
	URLFile   = "url"   // where the server listens, one line; not there while none runs, unless it was killed
	lockFile  = "lock"  // locked while a process has the directory
)

const host = "127.0.0.1"

// Local finds the embedded server of a base directory: where it listens, and its token.
func Local(base string) (url, token string, err error) {
	dir := filepath.Join(base, ".backy", "nats")
	address, err := os.ReadFile(filepath.Join(dir, URLFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("no scheduler with a NATS server of its own runs on %s: there is no %s", base, filepath.Join(dir, URLFile))
	}
	if err != nil {
		return "", "", err
	}
	secret, err := os.ReadFile(filepath.Join(dir, TokenFile))
	if err != nil {
		return "", "", err
	}
	return strings.TrimSpace(string(address)), strings.TrimSpace(string(secret)), nil
}

// InUseError says that another process has the state directory.
type InUseError struct {
	Dir    string
	Holder string // as in "pid 4711"; may be empty
}

func (e *InUseError) Error() string {
	who := "another scheduler"
	if e.Holder != "" {
		who += " (" + e.Holder + ")"
	}
	return e.Dir + " is in use by " + who
}

// embedded is a server of our own.
type embedded struct {
	*server.Server
	dir   string
	token string
	url   string
	lock  *os.File
	log   *serverLog
}

// start starts a server, and returns when it listens and JetStream works.
func start(o Options) (*embedded, error) {
	if err := (durable.Ops{}).MkdirAll(o.Dir, 0o750); err != nil {
		return nil, err
	}
	locked, err := lock(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &embedded{dir: o.Dir, lock: locked, log: &serverLog{log: o.Log}}
	s.log.up, s.log.down = context.WithCancelCause(context.Background())
	if err := s.start(o); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *embedded) start(o Options) (err error) {
	if s.token, err = token(o.Dir, o.Log); err != nil {
		return err
	}
	if err := probe(o.Port); err != nil {
		return err
	}
	port := o.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s.Server, err = server.NewServer(&server.Options{
		ServerName: "backy", Host: host, Port: port, Authorization: s.token,
		NoSigs: true, DisableJetStreamBanner: true,
		MaxConn: 256, MaxPayload: 1 << 20, MaxPending: 16 << 20,
		JetStream: true, StoreDir: o.Dir, JetStreamMaxStore: o.MaxBytes + 2*maxDueBytes, JetStreamMaxMemory: 32 << 20,
	})
	if err != nil {
		return err
	}
	s.SetLoggerV2(s.log, false, false, false)
	s.Start()
	if !s.ReadyForConnections(30*time.Second) || !s.JetStreamEnabled() {
		return s.failure()
	}
	if said := s.log.lastError(); said != "" {
		o.Log.Warn("the NATS server did not end cleanly, or its state was damaged; what can be read of it is kept, and the rest made anew", "directory", s.dir)
	}
	s.url = "nats://" + s.Addr().String()
	return s.tell()
}

// failure is why the server did not start.
func (s *embedded) failure() error {
	said := s.log.lastError()
	if strings.Contains(said, "address already in use") {
		return errors.New(said)
	}
	return fmt.Errorf("%s: %s. Its state is in %s; if that is damaged, move it away: all that is needed is in the repository", "it does not come up", said, s.dir)
}

// URL is where it listens.
func (s *embedded) URL() string { return s.url }

// tell writes the file that says where the server listens.
func (s *embedded) tell() error {
	path := filepath.Join(s.dir, URLFile)
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := (durable.Ops{}).WriteFile(temp, []byte(s.url+"\n"), 0o640); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// consumerDir is where the server keeps what it remembers of a durable consumer.
func (s *embedded) consumerDir(stream, name string) string {
	return filepath.Join(s.dir, server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", stream, "obs", name)
}

// check finds out that the state directory went away below the server.
func (s *embedded) check() error {
	if s == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.dir, server.JetStreamStoreDir)); err != nil {
		return fmt.Errorf("the state of the NATS server is lost: %w", err)
	}
	return nil
}

// stop ends the server and gives the directory back. On nil it does nothing.
func (s *embedded) stop() {
	if s == nil {
		return
	}
	if s.Server != nil {
		if s.url != "" {
			_ = os.Remove(filepath.Join(s.dir, URLFile)) // it tells only where to look
		}
		s.Shutdown()
		s.WaitForShutdown()
	}
	s.log.down(ErrClosed)
	_ = s.lock.Truncate(0)
	_ = unix.FcntlFlock(s.lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	s.lock.Close()
}

// lock takes the directory for this process. JetStream itself does not notice a second server, and both would write.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 100))
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, &InUseError{dir, strings.TrimSpace(string(holder))}
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte("pid "+strconv.Itoa(os.Getpid())+"\n"), 0) // for people; a full disk locks nobody out
	return f, nil
}

// token reads the token, or makes one. It is kept, so that clients need not be told anew after each start.
func token(dir string, log *slog.Logger) (string, error) {
	path := filepath.Join(dir, TokenFile)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if secret := strings.TrimSpace(string(text)); secret != "" {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			log.Warn("others could read the token of the NATS server; its mode is 0600 again. Remove the file to have a new one made at the next start", "file", path)
			return secret, os.Chmod(path, 0o600)
		}
		return secret, nil
	}
	secret, temp := rand.Text(), path+".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := (durable.Ops{}).WriteFile(temp, []byte(secret+"\n"), 0o600); err != nil {
		return "", err
	}
	return secret, os.Rename(temp, path)
}

// probe finds out early, and in clear words, that a port is taken.
func probe(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %d of %s is taken by another program: choose another one with port under nats in backy.conf; 0 takes any that is free", port, host)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("port %d of %s is for root alone: choose one from 1024 on with port under nats in backy.conf", port, host)
	}
	return fmt.Errorf("listen on port %d: %w", port, err)
}

// serverLog passes what the server says on, and remembers what went wrong last.
type serverLog struct {
	log  *slog.Logger
	up   context.Context // ends, with the reason, when the disk is full or cannot be written to
	down context.CancelCauseFunc
	mu   sync.Mutex
	last string
}

func (l *serverLog) note(format string, v []any) string {
	text := fmt.Sprintf(format, v...)
	l.mu.Lock()
	l.last = text
	l.mu.Unlock()
	switch {
	case contains(text, "no space left on device", "resources, will be DISABLED"):
		l.down(ErrFull)
	case contains(text, "ritical write error", "failed to store a msg on stream", "disabling JetStream"):
		l.down(ErrWrite)
	}
	return text
}

func contains(text string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(text, s) })
}

func (l *serverLog) lastError() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Noticef and the others are the server's view of a log.
func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("NATS: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any)  { l.log.Warn("NATS: " + l.note(format, v)) }
func (l *serverLog) Errorf(format string, v ...any) { l.log.Error("NATS: " + l.note(format, v)) }
func (l *serverLog) Fatalf(format string, v ...any) { l.log.Error("NATS: " + l.note(format, v)) }
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}

package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"backy/pkg/config"
)

// Apply has the server listen where the configuration says, with its tokens and its certificate, and is called again
// after each reload. The tokens hold at once, and a token that is gone lets nobody in, whatever else goes wrong. Where an
// address cannot be had, or the certificate cannot be read, the error says so, and the server goes on with the ones that
// it had. An IPv6 address on a host that has no IPv6 is a warning, if another address can be had.
func (s *Server) Apply(c config.API) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errEnded
	}
	if s.guard.accept(c.Tokens); len(c.Tokens) == 0 {
		s.log.Warn("api: there are no tokens below api.tokens, so nobody can ask the daemon anything")
	}
	cert, err := certificate(c)
	if err == nil {
		s.cert.Store(cert)
	}
	return errors.Join(err, s.rebind(c))
}

var errEnded = errors.New("api: the server has ended")

// certificate is that of the configuration; nil where it has none.
func certificate(c config.API) (*tls.Certificate, error) {
	if c.Certificate == "" && c.Key == "" {
		return nil, nil
	}
	if c.Certificate == "" || c.Key == "" {
		return nil, errors.New("api: certificate and key need each other")
	}
	cert, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("api: certificate %s with key %s: %w", c.Certificate, c.Key, err)
	}
	return &cert, nil
}

// rebind opens the addresses that are new, and, once it has them all, closes those that are not wanted any more.
func (s *Server) rebind(c config.API) error {
	fresh, wanted := map[string]*listener{}, []string{}
	var missing []error // addresses of IPv6 on a host without it
	for _, addr := range c.Addrs {
		at := net.JoinHostPort(addr, strconv.Itoa(c.Port))
		if slices.Contains(wanted, at) {
			continue
		}
		wanted = append(wanted, at)
		if s.listeners[at] != nil {
			continue
		}
		l, err := s.open(at, c)
		switch {
		case err == nil:
			fresh[at] = l
		case noIPv6(addr, err):
			missing = append(missing, err)
		default:
			for _, l := range fresh {
				_ = l.Close()
			}
			return taken(at, err)
		}
	}
	if len(missing) == len(wanted) {
		return fmt.Errorf("api: there is no address to listen at: %w", errors.Join(missing...))
	}
	for _, err := range missing {
		s.log.Warn("api: this host has no IPv6, so the daemon does not listen there", "error", err)
	}
	for at, l := range s.listeners {
		if !slices.Contains(wanted, at) {
			_ = l.Close()
			delete(s.listeners, at)
		}
	}
	for at, l := range fresh {
		s.serve(at, l)
	}
	return nil
}

// open listens. Where one of our own listeners is in the way that is not wanted any more (127.0.0.1 is in the way of
// 0.0.0.0), that is closed first, and opened again if it was not that.
func (s *Server) open(at string, c config.API) (*listener, error) {
	inner, err := net.Listen("tcp", at)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return s.listener(inner), err
	}
	var moved []string
	for old, l := range s.listeners {
		host, port, _ := net.SplitHostPort(old)
		if port == strconv.Itoa(c.Port) && !slices.Contains(c.Addrs, host) {
			_ = l.Close()
			delete(s.listeners, old)
			moved = append(moved, old)
		}
	}
	if len(moved) == 0 {
		return nil, err
	}
	if inner, err = net.Listen("tcp", at); err == nil {
		return s.listener(inner), nil
	}
	for _, old := range moved {
		back, again := net.Listen("tcp", old)
		if again != nil {
			s.log.Error("api: the daemon does not listen there any more", "address", old, "error", again)
			continue
		}
		s.serve(old, s.listener(back))
	}
	return nil, err
}

// noIPv6 says whether err is that this host has no IPv6: it lacks even an address that each host with IPv6 has.
func noIPv6(addr string, err error) bool {
	ip := net.ParseIP(addr)
	everyone := ip.IsLoopback() || ip.IsUnspecified()
	return ip != nil && ip.To4() == nil && (everyone && errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT))
}

// taken is what is said where an address cannot be had.
func taken(at string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(at)
		return fmt.Errorf("api: %s is taken by another program, perhaps another backy-sched; `ss -ltnp sport = :%s` tells which; end it, or give another api.port", at, port)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("api: %s: ports below 1024 are root's; give another api.port", at)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("api: %s is no address of this host; `ip address` lists those that are; see api.addrs", at)
	}
	return fmt.Errorf("api: listen at %s: %w; see api.addrs and api.port", at, err)
}

// serve has l answered to until it is closed.
func (s *Server) serve(at string, l *listener) {
	s.listeners[at] = l
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && s.cert.Load() == nil {
		s.log.Warn("api: without api.certificate and api.key, tokens go over the network for all to read", "address", l.Addr())
	}
	s.log.Debug("api: listening", "address", l.Addr())
	s.serving.Go(func() {
		err := s.http.Serve(l)
		if !l.isClosed() {
			s.log.Error("api: the daemon does not listen there any more", "address", l.Addr(), "error", err)
		}
	})
}

// Addrs are the addresses that the server listens at.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []net.Addr
	for _, l := range s.listeners {
		list = append(list, l.Addr())
	}
	return list
}

// Close ends the server: nobody new is let in, and those who are there have until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for at, l := range s.listeners {
		_ = l.Close()
		delete(s.listeners, at)
	}
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.serving.Wait()
	return err
}

// listener hands out connections, no more of them at once than the server has slots, and with TLS where the server has a
// certificate.
type listener struct {
	net.Listener
	slots chan struct{}
	tls   func() *tls.Config
	once  sync.Once
	done  chan struct{}
}

// listener is l as the server wants it.
func (s *Server) listener(l net.Listener) *listener {
	if l == nil {
		return nil
	}
	return &listener{Listener: l, slots: s.slots, done: make(chan struct{}), tls: func() *tls.Config {
		cert := s.cert.Load()
		if cert == nil {
			return nil
		}
		return &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}}
	}}
}

// Accept waits for a free slot, then for a connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	free := sync.OnceFunc(func() { <-l.slots })
	c, err := l.Listener.Accept()
	if err != nil {
		free()
		return nil, err
	}
	c = &conn{c, free}
	if config := l.tls(); config != nil {
		c = tls.Server(c, config)
	}
	return c, nil
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

func (l *listener) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// conn gives its slot back when it is closed.
type conn struct {
	net.Conn
	free func()
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.free()
	return err
}

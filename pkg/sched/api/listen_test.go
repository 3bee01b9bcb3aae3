package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"backy/pkg/app/apptest"
	"backy/pkg/config"
)

// port is one that is free on all addresses.
func port(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(apptest.FreePort(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func addrs(s *Server) (list []string) {
	for _, a := range s.Addrs() {
		list = append(list, a.String())
	}
	slices.Sort(list)
	return list
}

// The addresses follow the configuration, and where they cannot, they stay.
func TestRebind(t *testing.T) {
	var log bytes.Buffer
	s := New(Options{Control: newFake(), Log: slog.New(slog.NewTextHandler(&log, nil)), Now: time.Now})
	s.Ready()
	tokens := map[string]string{"right": "me"}
	a, b := port(t), port(t)
	apply := func(port int, hosts ...string) error {
		t.Helper()
		return s.Apply(config.API{Addrs: hosts, Port: port, Tokens: tokens})
	}
	at := func(port int, hosts ...string) {
		t.Helper()
		var want []string
		for _, h := range hosts {
			want = append(want, (&net.TCPAddr{IP: net.ParseIP(h), Port: port}).String())
		}
		if got := addrs(s); !slices.Equal(got, want) {
			t.Fatalf("listening at %v, want %v", got, want)
		}
		for _, w := range want {
			if r, _ := ask(t, "GET", "http://"+w+"/v1/jobs", "Bearer right"); r.StatusCode != 200 {
				t.Errorf("%s: %s", w, r.Status)
			}
		}
	}
	for _, step := range []error{
		apply(a, "127.0.0.1", "127.0.0.2"),
		apply(a, "127.0.0.1", "127.0.0.2"),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	at(a, "127.0.0.1", "127.0.0.2")
	if err := apply(b, "127.0.0.1", "127.0.0.1"); err != nil { // another port; an address given twice
		t.Fatal(err)
	}
	at(b, "127.0.0.1")
	if _, err := net.Dial("tcp", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: a}).String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the old port: %v", err)
	}
	if err := apply(b, "0.0.0.0"); err != nil { // one's own listener is in the way
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "tokens go over the network for all to read") {
		t.Errorf("log: %s", log.String())
	}
	if err := apply(b, "127.0.0.1"); err != nil { // and back
		t.Fatal(err)
	}
	at(b, "127.0.0.1")

	// A port that another program has, on the address that comes last: all stays.
	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := taken.Addr().(*net.TCPAddr).Port
	err = apply(p, "127.0.0.1", "127.0.0.2")
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), taken.Addr().String()+" is taken by another program") {
		t.Errorf("a port that is taken: %v", err)
	}
	at(b, "127.0.0.1")

	// The own listener is in the way, and another program's, too: the own one is there again.
	other, err := net.Listen("tcp", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: b}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err = apply(b, "0.0.0.0"); err == nil {
		t.Error("a port of another program was had")
	}
	at(b, "127.0.0.1")

	for host, want := range map[string]string{"192.0.2.1": "is no address of this host", "2001:db8::1": "listen at|is no address"} {
		err = apply(b, host)
		if err == nil || !containsOne(err.Error(), strings.Split(want, "|")) {
			t.Errorf("%s: %v", host, err)
		}
		at(b, "127.0.0.1")
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := apply(b, "127.0.0.1"); err == nil {
		t.Error("a server that has ended listens")
	}
}

func containsOne(text string, any []string) bool {
	return slices.ContainsFunc(any, func(s string) bool { return strings.Contains(text, s) })
}

// An address of IPv6 where there is none is a warning, and an error only where nothing else is left.
func TestNoIPv6(t *testing.T) {
	for _, test := range []struct {
		addr string
		err  error
		want bool
	}{
		{"::1", syscall.EADDRNOTAVAIL, true},
		{"::1", syscall.EAFNOSUPPORT, true},
		{"::", syscall.EAFNOSUPPORT, true},
		{"2001:db8::1", syscall.EAFNOSUPPORT, true},
		{"2001:db8::1", syscall.EADDRNOTAVAIL, false}, // not ours: a mistake
		{"::1", syscall.EADDRINUSE, false},
		{"127.0.0.1", syscall.EADDRNOTAVAIL, false},
		{"localhost", syscall.EADDRNOTAVAIL, false},
	} {
		if got := noIPv6(test.addr, &net.OpError{Err: os.NewSyscallError("bind", test.err)}); got != test.want {
			t.Errorf("%s, %v: %v", test.addr, test.err, got)
		}
	}
}

// certificates writes a certificate for 127.0.0.1 and its key to files, and returns the former.
func certificates(t *testing.T, dir string, serial int64) (cert, key string, text []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "backy"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, content := range map[string][]byte{cert: text, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, text
}

// With a certificate the server speaks TLS, takes a new one at the next Apply, and keeps the old if the new is none.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, text := certificates(t, dir, 1)
	s, url := server(t, newFake(), func(c *config.API) { c.Certificate, c.Key = cert, key })
	url = "https" + strings.TrimPrefix(url, "http")
	serial := func() int64 {
		c, err := tls.Dial("tcp", s.Addrs()[0].String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	client, err := NewClient(ClientOptions{URL: url, Token: "right", CA: text})
	if err != nil {
		t.Fatal(err)
	}
	if list, err := client.Status(context.Background(), "new"); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	stranger, _ := NewClient(ClientOptions{URL: url, Token: "right"})
	if _, err := stranger.Status(context.Background(), ""); err == nil || !strings.Contains(err.Error(), "--ca names the certificate to trust") {
		t.Errorf("without the certificate: %v", err)
	}
	plain, _ := NewClient(ClientOptions{URL: "http" + strings.TrimPrefix(url, "https"), Token: "right"})
	if _, err := plain.Status(context.Background(), ""); err == nil || !strings.Contains(err.Error(), "Client sent an HTTP request to an HTTPS server") {
		t.Errorf("without TLS: %v", err)
	}
	again := config.API{Addrs: []string{"127.0.0.1"}, Certificate: cert, Key: key, Tokens: map[string]string{"right": "me"}}
	certificates(t, dir, 2)
	if err := s.Apply(again); err != nil || serial() != 2 {
		t.Errorf("a new certificate: %v, serial %d", err, serial())
	}
	if err := os.WriteFile(cert, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(again); err == nil || !strings.Contains(err.Error(), cert) || serial() != 2 {
		t.Errorf("a certificate that is none: %v, serial %d", err, serial())
	}
	half := again
	half.Key = ""
	if err := s.Apply(half); err == nil || serial() != 2 {
		t.Errorf("no key: %v", err)
	}
	again.Certificate, again.Key = "", ""
	if err := s.Apply(again); err != nil {
		t.Error(err)
	}
	if a, err := http.Get("http" + strings.TrimPrefix(url, "https") + healthPath); err != nil || a.StatusCode != 200 {
		t.Errorf("without TLS again: %v", err)
	}
}

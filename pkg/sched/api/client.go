package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"backy/pkg/sched"
)

// ClientOptions say which daemon to ask.
type ClientOptions struct {
	URL   string // http://HOST:PORT or https://HOST:PORT
	Token string
	Task  string // for the daemon's log; may be empty
	CA    []byte // certificates in PEM that are trusted beside the system's; may be empty
}

// Client asks a daemon, through its API.
type Client struct {
	url, token, task string
	http             *http.Client
}

const (
	connectTimeout = 10 * time.Second
	totalTimeout   = 30 * time.Second
	maxAnswer      = 256 << 20
)

// NewClient makes a client. It does not connect yet.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no URL of a daemon: want http://HOST:PORT or https://HOST:PORT, as in http://127.0.0.1:6023", o.URL)
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) || o.Token == "" {
		return nil, errors.New("the token is empty, or has characters that a token cannot have: want letters, digits and marks, without spaces")
	}
	trust := &tls.Config{}
	if len(o.CA) > 0 {
		if trust.RootCAs, err = x509.SystemCertPool(); err != nil {
			trust.RootCAs = x509.NewCertPool()
		}
		if !trust.RootCAs.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("there is no certificate in PEM form in it")
		}
	}
	c := &Client{url: strings.TrimRight(o.URL, "/"), token: o.Token, task: o.Task}
	c.http = &http.Client{
		Timeout:       totalTimeout,
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: connectTimeout}).DialContext, TLSClientConfig: trust},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this host
	}
	return c, nil
}

// URL is where the daemon is asked.
func (c *Client) URL() string { return c.url }

// Refusal is a daemon's answer that it did not do what was asked.
type Refusal struct {
	Code int // of HTTP
	Problem
}

func (r *Refusal) Error() string { return r.Problem.Error }

// Unreachable is that no daemon answered.
type Unreachable struct {
	URL string
	Err error
}

func (u *Unreachable) Error() string {
	why := u.Err
	if inner := (*url.Error)(nil); errors.As(why, &inner) {
		why = inner.Err // without the method and the URL, which we name
		if inner.Timeout() {
			why = fmt.Errorf("no answer in %v", totalTimeout)
		}
	}
	text := fmt.Sprintf("the daemon at %s cannot be asked: %v", u.URL, why)
	if unknown := (*tls.CertificateVerificationError)(nil); errors.As(why, &unknown) {
		return text + "; --ca names the certificate to trust"
	}
	return text + "; see that `backy scheduler` runs there, and that the URL is right"
}

func (u *Unreachable) Unwrap() error { return u.Err }

// Status asks for the jobs whose names match filter, a regular expression (RE2); "" for all.
func (c *Client) Status(ctx context.Context, filter string) ([]sched.JobStatus, error) {
	var list []sched.JobStatus
	path := "/v1/status"
	if filter != "" {
		path += "?filter=" + url.QueryEscape(filter)
	}
	return list, c.ask(ctx, "GET", path, &list)
}

// Run has a job run as soon as a worker is free.
func (c *Client) Run(ctx context.Context, job string) error {
	return c.ask(ctx, "POST", "/v1/jobs/"+url.PathEscape(job)+"/run", nil)
}

// RunAll does that with all jobs.
func (c *Client) RunAll(ctx context.Context) error { return c.ask(ctx, "POST", "/v1/runall", nil) }

// Reload has the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) error { return c.ask(ctx, "POST", "/v1/reload", nil) }

// ask sends a request and reads the answer into to, unless that is nil.
func (c *Client) ask(ctx context.Context, method, path string, to any) error {
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if c.task != "" {
		r.Header.Set("taskid", c.task)
	}
	response, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &Unreachable{c.url, err}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return &Unreachable{c.url, err}
	}
	switch {
	case response.StatusCode < 300 && to == nil:
		return nil
	case response.StatusCode < 300:
		if err := json.Unmarshal(text, to); err != nil {
			return c.foreign(response, text)
		}
		return nil
	}
	refusal := &Refusal{Code: response.StatusCode}
	if err := json.Unmarshal(text, &refusal.Problem); err != nil || refusal.Problem.Error == "" {
		return c.foreign(response, text)
	}
	return refusal
}

// foreign is what is said of an answer that is none of ours.
func (c *Client) foreign(r *http.Response, text []byte) error {
	first, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return &Unreachable{c.url, fmt.Errorf("what answers there is no daemon of backy: %s %q", r.Status, cut(oneLine(string(first)), 80))}
}

package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"backy/pkg/config"
	"backy/pkg/sched"
	"backy/pkg/schedule"
)

// fake is a daemon that fails when it is told to. What a real one answers, cmd/backy-sched shows.
type fake struct {
	conf   config.Daemon
	status []sched.JobStatus

	mu   sync.Mutex
	err  error // of Run and Reload
	told []string
}

func (f *fake) tell(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, what)
	return f.err
}

// fail has the fake fail with err from now on, and returns what it was told since the last time.
func (f *fake) fail(err error) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	told := f.told
	f.err, f.told = err, nil
	return told
}

func (f *fake) Status(filter *regexp.Regexp) (list []sched.JobStatus) {
	for _, j := range f.status {
		if filter == nil || filter.MatchString(j.Job) {
			list = append(list, j)
		}
	}
	return list
}
func (f *fake) Run(job string) error   { return f.tell("run " + job) }
func (f *fake) RunAll()                { _ = f.tell("runall") }
func (f *fake) Reload() error          { return f.tell("reload") }
func (f *fake) Config() *config.Daemon { return &f.conf }
func (f *fake) Queue() []sched.QueueLength {
	return []sched.QueueLength{{Pool: "default", Lane: "fast", Waiting: 3, Running: 1}}
}
func (f *fake) Figures() []sched.Figures {
	return []sched.Figures{{Job: "web/db", Revision: true, Duration: time.Minute, Read: 30, Changed: 20, Stored: 10, Failures: 2}, {Job: "new"}}
}
func (f *fake) Verified() time.Time { return epoch }

var epoch = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func newFake() *fake {
	last := epoch
	return &fake{
		conf: config.Daemon{Jobs: []config.ScheduledJob{{Name: "web/db", ScheduleName: "default", Pool: "default",
			Schedule: schedule.Schedule{"weekly": {Interval: schedule.Week, Keep: 4}, "daily": {Interval: schedule.Day, Keep: 9}},
			Source:   config.Source{Type: "file"}}}},
		status: []sched.JobStatus{
			{Job: "gone", SLA: sched.SLAKept, Status: sched.StatusDead, LastTime: &last, LocalRevs: 2},
			{Job: "new", SLA: sched.SLAKept, Status: sched.StatusWaiting, NextTime: &last, NextTags: []string{"daily"}, Limit: 129600},
			{Job: "web/db", SLA: sched.SLABroken, SLAOverdue: 200000, Status: sched.StatusFailed, LastTime: &last, NextTime: &last,
				LastTags: []string{"daily"}, LastDuration: 60, ManualTags: []string{"manual:x"}, ProblemReports: []string{"r1"},
				LocalRevs: 5, Failures: 3, Distrusted: 1, Age: 200000, Limit: 129600, Message: "disk: no such file"},
		},
	}
}

// server is a running one of f, with the tokens right and other; it answers at url.
func server(t *testing.T, f *fake, change ...func(*config.API)) (s *Server, url string) {
	t.Helper()
	s = New(Options{Control: f, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	c := config.API{Addrs: []string{"127.0.0.1"}, Tokens: map[string]string{"right": "me", "other": "them"}}
	for _, f := range change {
		f(&c)
	}
	s.Ready()
	if err := s.Apply(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s, "http://" + s.Addrs()[0].String()
}

// ask sends a request with the header Authorization, and returns the answer with its body.
func ask(t *testing.T, method, url, authorization string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(body)
}

func TestToken(t *testing.T) {
	f := newFake()
	s, url := server(t, f)
	for _, test := range []struct {
		path, authorization string
		code                int
	}{
		{"/v1/status", "Bearer right", 200},
		{"/v1/status", "bearer other", 200},
		{"/v1/status", "", 401},
		{"/v1/status", "Bearer", 401},
		{"/v1/status", "Bearer ", 401},
		{"/v1/status", "right", 401},
		{"/v1/status", "Basic right", 401},
		{"/v1/status", "Bearer righ", 401},
		{"/v1/status", "Bearer right right", 401},
		{"/v1/status", "Bearer me", 401},
		{"/metrics", "", 401},
		{"/nowhere", "", 401}, // not even what there is
		{"/healthz/../v1/status", "", 401},
		{"/healthz", "", 200},
		{"/healthz", "Bearer wrong", 200},
	} {
		a, body := ask(t, "GET", url+test.path, test.authorization)
		if a.StatusCode != test.code {
			t.Errorf("%s with %q: %s %s", test.path, test.authorization, a.Status, body)
		}
		if a.StatusCode == 401 && (a.Header.Get("WWW-Authenticate") != "Bearer" || !strings.HasPrefix(body, `{"error":"a token is needed`) || strings.Count(body, "\n") != 1) {
			t.Errorf("%s with %q: %v %q", test.path, test.authorization, a.Header, body)
		}
	}

	// A token that the configuration does not have any more is worth nothing, also where the rest cannot be applied.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = s.Apply(config.API{Addrs: []string{"127.0.0.1"}, Port: taken.Addr().(*net.TCPAddr).Port, Tokens: map[string]string{"third": "x", "": "nobody"}})
	if err == nil || !strings.Contains(err.Error(), "is taken by another program") {
		t.Errorf("a port that is taken: %v", err)
	}
	for authorization, code := range map[string]int{"Bearer right": 401, "Bearer third": 200, "Bearer ": 401, "": 401} {
		if a, _ := ask(t, "GET", url+"/v1/status", authorization); a.StatusCode != code {
			t.Errorf("after a change, %q: %s", authorization, a.Status)
		}
	}
}

// A daemon that does not know its jobs yet tells of none.
func TestStarting(t *testing.T) {
	s, url := server(t, newFake())
	s.ready.Store(false)
	for path, code := range map[string]int{"/v1/status": 503, "/metrics": 503, "/healthz": 200} {
		a, body := ask(t, "GET", url+path, "Bearer right")
		if a.StatusCode != code || code == 503 && (a.Header.Get("Retry-After") == "" || !strings.Contains(body, `{"error":"the daemon was just started`)) {
			t.Errorf("%s: %s %s", path, a.Status, body)
		}
	}
	if a, _ := ask(t, "GET", url+"/v1/status", "Bearer wrong"); a.StatusCode != 401 {
		t.Errorf("with a wrong token: %s", a.Status)
	}
	s.Ready()
	if a, _ := ask(t, "GET", url+"/v1/status", "Bearer right"); a.StatusCode != 200 {
		t.Errorf("later: %s", a.Status)
	}
}

// What cannot be done is told as one line of JSON.
func TestErrors(t *testing.T) {
	f := newFake()
	_, url := server(t, f)
	for _, test := range []struct {
		method, path string
		err          error
		code         int
		body         string // a regular expression
	}{
		{"GET", "/v1/status?filter=(", nil, 400, "^{\"error\":\"filter: error parsing regexp: missing closing \\): `\\(`\"}\n$"},
		{"GET", "/v1/status?filter=x{9999}", nil, 400, `invalid repeat count`},
		{"POST", "/v1/jobs/nobody/run", fmt.Errorf("%w: nobody", sched.ErrNoJob), 404, `^{"error":"no such job: nobody"}`},
		{"POST", "/v1/jobs/web%2Fdb/run", errors.New("two\nlines"), 500, `^{"error":"two lines"}`},
		{"POST", "/v1/jobs/web/db/run", nil, 404, `there is no /v1/jobs/web/db/run`},
		{"POST", "/v1/reload", config.Mistakes{errors.New("backy.conf:1:2: bad"), errors.New("backy.conf:3:4: worse")}, 422,
			`^{"error":"the configuration has 2 mistakes; the one before holds","mistakes":\["backy.conf:1:2: bad","backy.conf:3:4: worse"\]}`},
		{"POST", "/v1/reload", fmt.Errorf("reload: %w", config.Mistakes{errors.New("backy.conf:1:2: bad")}), 422, `^{"error":"the configuration before holds: backy.conf:1:2: bad"`},
		{"POST", "/v1/reload", errors.New("127.0.0.1:80 is taken"), 409, `^{"error":"127.0.0.1:80 is taken"}`},
		{"GET", "/v1/reload", nil, 405, `/v1/reload is not for GET; use POST`},
		{"DELETE", "/v1/status", nil, 405, `use GET`},
		{"GET", "/v2/status", nil, 404, `there is no /v2/status`},
		{"GET", "/", nil, 404, `there is no /;`},
	} {
		f.fail(test.err)
		a, body := ask(t, test.method, url+test.path, "Bearer right")
		if a.StatusCode != test.code || !regexp.MustCompile(test.body).MatchString(body) || strings.Count(body, "\n") != 1 {
			t.Errorf("%s %s: %s %s", test.method, test.path, a.Status, body)
		}
	}
}

// The daemon is told what was asked, with the name of a job as it is.
func TestOrders(t *testing.T) {
	f := newFake()
	_, url := server(t, f)
	for path, code := range map[string]int{"/v1/jobs/web%2Fdb/run": 202, "/v1/jobs/new/run": 202, "/v1/runall": 202, "/v1/reload": 204} {
		a, body := ask(t, "POST", url+path, "Bearer right")
		want := map[string]string{"/v1/jobs/web%2Fdb/run": "run web/db", "/v1/jobs/new/run": "run new", "/v1/runall": "runall", "/v1/reload": "reload"}[path]
		if told := f.fail(nil); a.StatusCode != code || body != "" || !slices.Equal(told, []string{want}) {
			t.Errorf("%s: %s %q; told %q", path, a.Status, body, told)
		}
	}
	if _, body := ask(t, "GET", url+"/v1/status?filter=^w.*b$", "Bearer right"); strings.Count(body, `"job":`) != 1 || !strings.Contains(body, `"job":"web/db"`) {
		t.Errorf("filter: %s", body)
	}
	if _, body := ask(t, "GET", url+"/v1/backups", "Bearer right"); body != "[\"gone\"]\n" {
		t.Errorf("backups: %s", body)
	}
}

// A thousand at once with a wrong token are turned away, all of them; who has a right one is answered in their midst; and
// the log has one line about them.
func TestThousandWrongTokens(t *testing.T) {
	var log bytes.Buffer
	f := newFake()
	s := New(Options{Control: f, Log: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return epoch }})
	s.Ready()
	if err := s.Apply(config.API{Addrs: []string{"127.0.0.1"}, Tokens: map[string]string{"right": "me"}}); err != nil {
		t.Fatal(err)
	}
	url := "http://" + s.Addrs()[0].String() + "/v1/runall"
	const requests = 1000
	codes := make(chan int, requests)
	var start, ended sync.WaitGroup
	start.Add(1)
	for i := range requests {
		token := "wrong"
		if i%100 == 50 {
			token = "right"
		}
		ended.Go(func() {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			r, err := http.NewRequest("POST", url, nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
			start.Wait()
			a, err := c.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = a.Body.Close()
			codes <- a.StatusCode
		})
	}
	start.Done()
	ended.Wait()
	close(codes)
	count := map[int]int{}
	for c := range codes {
		count[c]++
	}
	if told := f.fail(nil); count[401] != 990 || count[202] != 10 || len(told) != 10 {
		t.Errorf("answers %v; told %q", count, told)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines in the log: %.500s", n, log.String())
	}
}

// Who is turned away again and again is told of once a minute, with a count.
func TestRefusedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := &guard{log: slog.New(slog.NewTextHandler(&log, nil)), now: time.Now}
		r, _ := http.NewRequest("GET", "/", nil)
		for range 150 { // one a second: at 0, 60 and 120 s
			g.refuse(r)
			time.Sleep(time.Second)
		}
		if n := strings.Count(log.String(), "\n"); n != 3 || strings.Count(log.String(), "refused=60\n") != 2 {
			t.Errorf("%d lines: %s", n, log.String())
		}
	})
}

// Who sends too much, or nothing, does not stay.
func TestLimits(t *testing.T) {
	f := newFake()
	s, _ := server(t, f)
	large, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if _, err := fmt.Fprintf(large, "GET / HTTP/1.1\r\nHost: x\r\nX: %s", strings.Repeat("a", maxHeader+8<<10)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(large).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("a large header: %q %v", line, err)
	}
	h := s.http
	if h.ReadHeaderTimeout != headerTimeout || h.ReadTimeout != readTimeout || h.WriteTimeout != writeTimeout || h.IdleTimeout != idleTimeout {
		t.Errorf("timeouts %v %v %v %v", h.ReadHeaderTimeout, h.ReadTimeout, h.WriteTimeout, h.IdleTimeout)
	}

}

// No more connections are open at once than there may be. The next one waits, and is answered when another is closed.
func TestConnections(t *testing.T) {
	s := New(Options{Control: newFake(), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	accepted := make(chan struct{}, 2*maxConnections)
	s.http.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted <- struct{}{}
		}
	}
	if err := s.Apply(config.API{Addrs: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	at := s.Addrs()[0].String()
	var idle []net.Conn
	for range maxConnections + 50 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	for range maxConnections {
		<-accepted
	}
	answered := make(chan string, 1)
	go func() {
		a, err := http.Get("http://" + at + healthPath)
		if err != nil {
			answered <- err.Error()
			return
		}
		_ = a.Body.Close()
		answered <- a.Status
	}()
	if n := len(accepted); n > 0 {
		t.Errorf("%d connections more than there may be", n)
	}
	for _, c := range idle {
		_ = c.Close()
	}
	if got := <-answered; got != "200 OK" {
		t.Errorf("after the others left: %s", got)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

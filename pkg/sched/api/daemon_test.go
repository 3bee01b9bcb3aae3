package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"backy/pkg/config"
	"backy/pkg/repo"
	"backy/pkg/sched"
)

const daemonConfig = `
global: {base-dir: base}
api: {port: 0, addrs: 127.0.0.1, tokens: {right: me}}
nats: {port: 0}
schedules: {default: {yearly: {interval: 52w, keep: 2}}}
jobs:
  web/db: {schedule: default, pipeline: "exit 1", source: {type: file, filename: db.img}}
  new: {schedule: default, source: {type: file, filename: new.img}}
`

// daemon is a real one, with a job that has a revision, one that has none, and a directory that is no job.
func daemon(t *testing.T) (d *sched.Daemon, url, conf string) {
	t.Helper()
	dir := t.TempDir()
	conf = filepath.Join(dir, "backy.conf")
	write(t, conf, daemonConfig)
	if _, err := repo.Init(filepath.Join(dir, "base"), repo.DefaultBlock, repo.World{Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	for _, job := range []string{"web/db", "gone"} {
		r := repo.Revision{ID: repo.NewID(), Time: time.Now().Add(-time.Hour).UTC(), Source: "file:/x", Host: "here", Size: repo.DefaultBlock, Block: repo.DefaultBlock,
			Read: repo.ReadFull, ReadBytes: 3, Changed: 2, Stored: 1, Duration: 1500 * time.Millisecond}
		r.State = repo.State{Tags: []string{"yearly", "manual:x"}, Trust: repo.Trusted}
		at := filepath.Join(dir, "base", job, r.ID)
		write(t, at+".state", string(r.State.Bytes()))
		write(t, at+".rev", string(r.Bytes()))
	}
	c, err := config.ReadDaemon(conf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	var s *Server
	log := slog.New(slog.DiscardHandler)
	d, err = sched.Open(ctx, sched.Options{Config: c, Log: log, Now: time.Now,
		Ready: func() { s.Ready(); close(ready) }, Reloaded: func(c *config.Daemon) error { return s.Apply(c.API) }})
	if err != nil {
		t.Fatal(err)
	}
	s = New(Options{Control: d, Log: log, Now: time.Now})
	if err := s.Apply(c.API); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- d.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close(context.Background())); err != nil {
			t.Error(err)
		}
		d.Close()
	})
	<-ready
	return d, "http://" + s.Addrs()[0].String(), conf
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// What a real daemon answers is as it is described, and what it means.
func TestDaemon(t *testing.T) {
	d, url, conf := daemon(t)
	description := description(t)
	for _, test := range []struct {
		method, path, described string
		config                  string // backy.conf is this before
		code                    int
		body                    string // a regular expression
	}{
		{"GET", "/v1/status", "", daemonConfig, 200, `"job":"gone",.*"status":"Dead",.*"job":"new","sla":"OK",.*"last_time":null,.*"job":"web/db","sla":"OK",.*"last_tags":\["yearly","manual:x"\],"last_duration":1.5,`},
		{"GET", "/v1/status?filter=^web/", "/v1/status", daemonConfig, 200, `^\[{"job":"web/db",.*"manual_tags":\["manual:x"\],.*"local_revs":1,`},
		{"GET", "/v1/status?filter=nobody", "/v1/status", daemonConfig, 200, `^\[\]\n$`},
		{"GET", "/v1/jobs", "", daemonConfig, 200, `^\[{"name":"new","schedule":"default","tags":\["yearly"\],"pool":"default","source":"file"},{"name":"web/db",`},
		{"GET", "/v1/backups", "", daemonConfig, 200, `^\["gone"\]\n$`},
		{"GET", "/metrics", "", daemonConfig, 200, `backy_job_last_duration_seconds{job="web/db"} 1.5\n`},
		{"POST", "/v1/jobs/nobody/run", "/v1/jobs/{name}/run", daemonConfig, 404, `^{"error":"no such job: nobody"}\n$`},
		{"POST", "/v1/jobs/gone/run", "/v1/jobs/{name}/run", daemonConfig, 404, `no such job: gone`},
		{"POST", "/v1/jobs/web%2Fdb/run", "/v1/jobs/{name}/run", daemonConfig, 202, `^$`},
		{"POST", "/v1/runall", "", daemonConfig, 202, `^$`},
		{"POST", "/v1/reload", "", "global: {base: x}\njobs: {}", 422, `^{"error":"[^\n]*","mistakes":\["[^"]*backy.conf:1:`},
		{"GET", "/v1/jobs", "", daemonConfig, 200, `"name":"web/db"`}, // the one before holds
		{"POST", "/v1/reload", "", strings.ReplaceAll(daemonConfig, "  new:", "  newer:"), 204, `^$`},
		{"GET", "/v1/jobs", "", daemonConfig, 200, `^\[{"name":"newer",`},
		{"POST", "/v1/reload", "", strings.ReplaceAll(daemonConfig, "base-dir: base", "base-dir: other"), 409, `^{"error":"[^\n]*base-dir is [^\n]*/other now`},
		{"POST", "/v1/reload", "", strings.ReplaceAll(daemonConfig, "127.0.0.1", "192.0.2.1"), 409, `^{"error":"the new configuration holds, but for this: api: [^\n]*192.0.2.1`},
	} {
		write(t, conf, test.config)
		if test.described == "" {
			test.described = test.path
		}
		a, body := ask(t, test.method, url+test.path, "Bearer right")
		if a.StatusCode != test.code || !regexp.MustCompile(test.body).MatchString(body) {
			t.Errorf("%s %s: %s %s", test.method, test.path, a.Status, body)
			continue
		}
		responses := at(t, description, description, "paths", test.described, strings.ToLower(test.method), "responses").(object)
		if err := conforms(t, description, responses, a, body); err != nil {
			t.Errorf("%s %s: %v\n%s", test.method, test.path, err, body)
		}
	}

	// The pipeline of a job fails, which is told: once, or a second time for who asked for all jobs after that.
	failure := regexp.MustCompile(`"status":"failed",.*"failures":[12],.*"message":"`)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		_, body := ask(t, "GET", url+"/v1/status?filter=db", "Bearer right")
		if failure.MatchString(body) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the failure is not told: %s", body)
		}
	}
	problems, err := testutil.GatherAndLint(registry(d, time.Now))
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// A token that is gone from the configuration is worth nothing after the reload that it asked for itself.
func TestReloadTakesTokens(t *testing.T) {
	_, url, conf := daemon(t)
	write(t, conf, strings.ReplaceAll(daemonConfig, "right: me", "fresh: me"))
	for i, want := range []struct {
		path, token string
		code        int
	}{{"/v1/reload", "right", 204}, {"/v1/reload", "right", 401}, {"/v1/reload", "fresh", 204}} {
		if a, body := ask(t, "POST", url+want.path, "Bearer "+want.token); a.StatusCode != want.code {
			t.Error(fmt.Sprint(i), a.Status, body)
		}
	}
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/check"
	"backy/pkg/config"
	"backy/pkg/sched"
	"backy/pkg/sched/api"
)

func clientCommand() app.Command {
	return app.Command{
		Name:  "client",
		Usage: "ask the scheduler, and tell it what to do",
		Args:  "ACTION [NAME]",
		Help: `Asks the scheduler of this host, or of another, through its API. ACTION is one of:

  check         say whether all jobs are backed up in time, as a monitoring plugin: exit code 0 if they are,
                1 warning, 2 critical, 3 if the scheduler cannot be asked
  jobs [FILTER] a table of all jobs, or of those whose names match a regular expression. Directories that
                have revisions and are no job are shown as Dead
  status        how many jobs are in which state
  run JOB       run a job as soon as a worker is free
  runall        run all jobs as soon as there are workers
  reload        read the configuration again; if it is wrong, the scheduler goes on with the one before

Which scheduler, and with which token, is api.cli-default of the configuration; -p takes one of its peers
instead; and with --url and --token no configuration is needed.`,
		Examples: `backy client jobs
backy client -c /etc/backy.conf run vm1
backy client -p backup2 jobs '^web'
backy client check --url https://backup2:6023 --token "$(cat token)" --ca backup2.pem`,
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "peer", Aliases: []string{"p"}, Usage: "ask this `PEER` of the configuration"},
			&cli.StringFlag{Name: "url", Usage: "ask the scheduler at this `URL`; needs --token"},
			&cli.StringFlag{Name: "token", Usage: "show this `TOKEN`; needs --url"},
			&cli.StringFlag{Name: "ca", Usage: "trust the certificates in `FILE` (PEM), too"},
			&cli.BoolFlag{Name: "json", Usage: "write check, jobs and status as JSON"},
		},
		Action: client,
		Plugin: isCheck(os.Args[1:]),
	}
}

// action is one of the client's.
type action struct {
	arg  string // "" none, "[X]" may be, "X" must be
	json bool
	do   func(ctx context.Context, c *app.Context, daemon *api.Client, arg string) error
}

var actions = map[string]action{
	"check":  {"", true, clientCheck},
	"jobs":   {"[FILTER]", true, clientJobs},
	"status": {"", true, clientStatus},
	"run":    {"JOB", false, clientRun},
	"runall": {"", false, clientRunAll},
	"reload": {"", false, clientReload},
}

// isCheck says whether a command line is that of client check, which is a plugin of a monitoring system: what keeps it
// from a verdict, wrong usage too, is UNKNOWN.
func isCheck(argv []string) bool {
	verb := slices.Index(argv, "client")
	for _, word := range argv[verb+1:] {
		if _, ok := actions[word]; ok {
			return verb >= 0 && word == "check"
		}
	}
	return false
}

func client(ctx context.Context, c *app.Context) error {
	daemon, err := connect(c)
	if err != nil {
		return err
	}
	return actions[c.Args().First()].do(ctx, c, daemon, c.Args().Get(1))
}

// connect checks the command line, and makes the client that it asks for.
func connect(c *app.Context) (*api.Client, error) {
	name, given := c.Args().First(), c.Args().Len() > 1
	a, known := actions[name]
	switch {
	case !known:
		return nil, app.Usagef("%q is no action: want check, jobs, status, run, runall or reload", name)
	case given && a.arg == "":
		return nil, app.Usagef("unexpected argument %q: client %s has none", c.Args().Get(1), name)
	case !given && a.arg == "JOB":
		return nil, app.Usagef("JOB is missing: client run JOB")
	case c.Bool("json") && !a.json:
		return nil, app.Usagef("--json is for check, jobs and status; %s tells nothing", name)
	}
	peer, err := which(c)
	if err != nil {
		return nil, err
	}
	o := api.ClientOptions{URL: peer.URL, Token: peer.Token, Task: c.Task}
	if path := c.String("ca"); path != "" {
		if o.CA, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
	}
	daemon, err := api.NewClient(o)
	if err != nil && c.IsSet("url") {
		return nil, app.Usage(err)
	}
	return daemon, err
}

// which is the scheduler to ask: --url and --token, else the peer of the configuration that -p names, else its
// api.cli-default.
func which(c *app.Context) (config.Peer, error) {
	url, token, name := c.IsSet("url"), c.IsSet("token"), c.String("peer")
	switch {
	case url != token:
		return config.Peer{}, app.Usagef("--url and --token need each other")
	case url && c.IsSet("peer"):
		return config.Peer{}, app.Usagef("-p cannot be had together with --url and --token")
	case url:
		return config.Peer{URL: c.String("url"), Token: c.String("token")}, nil
	}
	conf, err := readConfig(c)
	if err != nil {
		return config.Peer{}, err
	}
	if c.IsSet("peer") {
		peer, ok := conf.Peers[name]
		if !ok {
			return peer, fmt.Errorf("%q is no peer of %s, which has: %s", name, conf.Path, cmp.Or(strings.Join(slices.Sorted(maps.Keys(conf.Peers)), ", "), "none"))
		}
		return peer, nil
	}
	peer := conf.API.CLI
	if peer.Token == "" {
		return peer, fmt.Errorf("%s has no api.cli-default with a token from api.tokens; give it one, or use -p, or --url and --token", conf.Path)
	}
	peer.URL = cmp.Or(peer.URL, localURL(conf.API))
	return peer, nil
}

// localURL is where a scheduler with this configuration listens, on this host.
func localURL(a config.API) string {
	scheme, host := "http", "127.0.0.1"
	if a.Certificate != "" {
		scheme = "https"
	}
	if len(a.Addrs) > 0 {
		host = a.Addrs[0]
	}
	if ip := net.ParseIP(host); ip.IsUnspecified() { // all of them
		host = map[bool]string{true: "127.0.0.1", false: "::1"}[ip.To4() != nil]
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// clientJobs shows the jobs.
func clientJobs(ctx context.Context, c *app.Context, daemon *api.Client, filter string) error {
	list, err := daemon.Status(ctx, filter)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(c.Stdout).Encode(list)
	}
	t := app.Table{Columns: []app.Column{{Title: "Job"}, {Title: "SLA"}, {Title: "SLA overdue"}, {Title: "Status"}, {Title: "Last Backup\n(" + app.Zone() + ")"},
		{Title: "Last Tags"}, {Title: "Last Duration", Right: true}, {Title: "Next Backup\n(" + app.Zone() + ")"}, {Title: "Next Tags"}}}
	for _, j := range list {
		sla, overdue, duration := j.SLA, "-", "-"
		if j.SLA == sched.SLABroken {
			overdue = app.Duration(seconds(j.SLAOverdue))
		}
		if j.LastTime != nil {
			duration = app.Duration(seconds(j.LastDuration))
		}
		if j.Status == sched.StatusDead {
			sla = "-" // nothing is promised of it
		}
		t.Row(j.Job, sla, overdue, j.Status, when(j.LastTime), strings.Join(j.LastTags, ","), duration, when(j.NextTime), strings.Join(j.NextTags, ","))
	}
	if _, err := t.WriteTo(c.Stdout); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Stdout, "%d jobs shown\n", len(list))
	return err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// clientStatus counts the jobs of each state.
func clientStatus(ctx context.Context, c *app.Context, daemon *api.Client, _ string) error {
	list, err := daemon.Status(ctx, "")
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, j := range list {
		count[j.Status]++
	}
	if c.Bool("json") {
		return json.NewEncoder(c.Stdout).Encode(count)
	}
	t := app.Table{Columns: []app.Column{{Title: "Status"}, {Title: "#", Right: true}}}
	for _, word := range slices.Sorted(maps.Keys(count)) {
		t.Row(word, strconv.Itoa(count[word]))
	}
	_, err = t.WriteTo(c.Stdout)
	return err
}

func clientRun(ctx context.Context, c *app.Context, daemon *api.Client, job string) error {
	err := daemon.Run(ctx, job)
	if refusal := (*api.Refusal)(nil); errors.As(err, &refusal) && refusal.Code == 404 {
		return fmt.Errorf("%w; `backy client jobs` lists those that there are", err)
	}
	if err == nil {
		c.Log.Info(job + " runs as soon as a worker is free")
	}
	return err
}

func clientRunAll(ctx context.Context, c *app.Context, daemon *api.Client, _ string) error {
	err := daemon.RunAll(ctx)
	if err == nil {
		c.Log.Info("all jobs run as soon as there are workers")
	}
	return err
}

func clientReload(ctx context.Context, c *app.Context, daemon *api.Client, _ string) error {
	err := daemon.Reload(ctx)
	if refusal := (*api.Refusal)(nil); errors.As(err, &refusal) && len(refusal.Mistakes) > 1 {
		for _, m := range refusal.Mistakes {
			c.Log.Error(m)
		}
	}
	if err == nil {
		c.Log.Info("the configuration was read again")
	}
	return err
}

// clientCheck judges as backy-check does, by what the scheduler tells.
func clientCheck(ctx context.Context, c *app.Context, daemon *api.Client, _ string) error {
	list, err := daemon.Status(ctx, "")
	if err != nil {
		return err
	}
	v := check.Judge(facts(list), check.DefaultThresholds)
	if c.Bool("json") {
		err = json.NewEncoder(c.Stdout).Encode(v)
	} else {
		_, err = io.WriteString(c.Stdout, v.Plugin(c.Verbose, false))
	}
	if err != nil {
		return err
	}
	return app.Verdict(v.Level)
}

// facts are what is known of the jobs. Of a directory that is no job nothing is promised.
func facts(list []sched.JobStatus) (f check.Facts) {
	reports := map[string]bool{}
	for _, j := range list {
		for _, id := range j.ProblemReports {
			reports[id] = true
		}
		if j.Status == sched.StatusDead {
			continue
		}
		f.Jobs = append(f.Jobs, check.Job{Name: j.Job, Age: seconds(j.Age), Limit: seconds(j.Limit), Never: j.LastTime == nil, Revisions: j.LocalRevs,
			Distrusted: j.Distrusted, Manual: j.ManualTags, Note: j.Message})
	}
	f.Reports = len(reports)
	return f
}

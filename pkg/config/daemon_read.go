package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"backy/pkg/repo"
	"backy/pkg/schedule"
)

// maxDaemon bounds backy.conf, in bytes: some 50,000 jobs. What the parser takes grows with their square.
const maxDaemon = 8 << 20

// ReadDaemon reads the configuration of the scheduler. All that is wrong with the file comes at once, as Mistakes; an
// error of the file system is another one, such as fs.ErrNotExist.
func ReadDaemon(path string) (*Daemon, error) {
	text, changed, err := readFile(path, maxDaemon)
	if err != nil {
		return nil, err
	}
	c, err := ParseDaemon(text, path)
	if err != nil {
		return nil, err
	}
	c.Changed = changed
	return c, nil
}

// ParseDaemon understands the text of backy.conf. path is that of the file, for mistakes, and for the directory where
// relative paths begin.
func ParseDaemon(text []byte, path string) (*Daemon, error) {
	c := &Daemon{Path: path, Peers: map[string]Peer{}, Schedules: map[string]schedule.Schedule{},
		Global: Global{WorkerLimit: 1, CallbackTimeout: 5 * time.Minute, JobTimeout: schedule.Day, CompareEvery: 30 * schedule.Day,
			PurgeEvery: schedule.Day, FollowUps: slices.Clone(FollowUps)},
		API:  API{Addrs: []string{"127.0.0.1", "::1"}, Port: 6023, Tokens: map[string]string{}},
		NATS: NATS{Port: 6024, MaxAge: 30 * schedule.Day, MaxBytes: 1 << 30}}
	d, all, ok := parse(text, path, maxDaemon)
	if ok {
		known := map[string]entry{}
		section := func(e entry) { known[e.name] = e }
		d.read(all, keys{"global": section, "api": section, "peers": section, "nats": section, "schedules": section, "jobs": section})
		d.global(known["global"], &c.Global, all)
		d.api(known["api"], &c.API)
		for _, e := range d.entries(known["peers"]) {
			c.Peers[e.name] = d.peer(e, "url", "token")
		}
		d.nats(known["nats"], &c.NATS)
		for _, e := range d.entries(known["schedules"]) {
			c.Schedules[e.name] = d.named(e)
		}
		d.jobs(known["jobs"], c)
	}
	if err := sorted(d.wrong); err != nil {
		return nil, err
	}
	return c, nil
}

func (d *document) global(e entry, g *Global, all entry) {
	if e.value == nil {
		if isMapping(all.value) { // else that was told
			d.mistake(all.value, "the file has no global, in which base-dir tells where the repository is")
		}
		return
	}
	d.read(e, keys{
		"base-dir":                  d.file(&g.BaseDir),
		"worker-limit":              d.integer(&g.WorkerLimit, 1, 1000),
		"backup-completed-callback": d.text(&g.Callback, nil),
		"callback-timeout":          d.duration(&g.CallbackTimeout, time.Second),
		"job-timeout":               d.duration(&g.JobTimeout, time.Second),
		"compare-interval":          d.duration(&g.CompareEvery, 0),
		"purge-interval":            d.duration(&g.PurgeEvery, 0),
		"follow-ups":                d.words(&g.FollowUps, checkFollowUp),
		"pools":                     d.words(&g.Pools, checkPool),
	})
	if isMapping(e.value) {
		d.need(e, "base-dir", "the directory of the repository")
	}
}

func (d *document) api(e entry, a *API) {
	d.read(e, keys{
		"addrs":       d.words(&a.Addrs, checkAddr),
		"port":        d.integer(&a.Port, 0, math.MaxUint16),
		"tokens":      func(e entry) { d.tokens(e, a.Tokens) },
		"cli-default": func(e entry) { a.CLI = d.peer(e, "token") },
		"certificate": d.file(&a.Certificate),
		"key":         d.file(&a.Key),
	})
	if (a.Certificate == "") != (a.Key == "") {
		d.mistake(e.place(), "api: TLS needs both certificate and key")
	}
}

// tokens reads the tokens with their clients. No token is ever shown.
func (d *document) tokens(e entry, to map[string]string) {
	for _, e := range d.entries(e) {
		if err := checkToken(e.name); err != nil {
			d.mistake(e.key, "tokens: %s", err)
		}
		client := ""
		if e.value == nil {
			d.mistake(e.key, "tokens: the token has no name of a client behind it")
			continue
		}
		d.text(&client, nil)(entry{"tokens", e.key, e.value})
		to[e.name] = client
	}
}

// peer reads a URL and a token; need are the keys that have to be there.
func (d *document) peer(e entry, need ...string) (p Peer) {
	if e.value != nil && !isMapping(e.value) {
		d.entries(e) // tells
		return p
	}
	d.read(e, keys{"url": d.text(&p.URL, func(s string) error { return checkURL(s, "http", "https") }), "token": d.text(&p.Token, checkToken)})
	for _, key := range need {
		d.need(e, key, map[string]string{"url": "as in http://backup2:6023", "token": "that of a client"}[key])
	}
	p.URL = strings.TrimRight(p.URL, "/")
	return p
}

func (d *document) nats(e entry, n *NATS) {
	d.read(e, keys{
		"url": d.text(&n.URL, func(list string) error {
			for s := range strings.SplitSeq(list, ",") {
				if err := checkURL(strings.TrimSpace(s), "nats", "tls", "ws", "wss"); err != nil {
					return err
				}
			}
			return nil
		}),
		"token":     d.text(&n.Token, checkToken),
		"port":      d.integer(&n.Port, 0, math.MaxUint16),
		"max-age":   d.duration(&n.MaxAge, time.Hour),
		"max-bytes": d.size(&n.MaxBytes),
	})
}

// named reads a schedule of the section schedules.
func (d *document) named(e entry) schedule.Schedule {
	if e.name == "" {
		d.mistake(e.key, "the name of a schedule is empty")
	}
	if e.value == nil {
		d.mistake(e.key, "schedule %q has no tags; it needs some, as in daily: {interval: 1d, keep: 9}", e.name)
		return nil
	}
	return d.rules(e)
}

func (d *document) jobs(e entry, c *Daemon) {
	list := d.entries(e)
	names := map[string]bool{}
	for _, e := range list {
		names[e.name] = true
	}
	for _, e := range list {
		if err := repo.CheckJob(e.name); err != nil {
			d.mistake(e.key, "%s", err)
		} else if file := inTheWay(e.name, names); file != "" {
			d.mistake(e.key, "job %q would lie where job %q has its file %s", e.name, e.name[:len(e.name)-len(file)-1], file)
		}
		c.Jobs = append(c.Jobs, d.job(e, c))
	}
	slices.SortFunc(c.Jobs, func(a, b ScheduledJob) int { return strings.Compare(a.Name, b.Name) })
}

// inTheWay is the file of another job's directory that a job's directory would lie in place of.
func inTheWay(job string, names map[string]bool) (file string) {
	i := strings.LastIndexByte(job, '/')
	if i < 0 || !names[job[:i]] {
		return ""
	}
	if file = job[i+1:]; file == JobFile || strings.HasSuffix(file, ".rev") || strings.HasSuffix(file, ".state") {
		return file
	}
	return ""
}

func (d *document) job(e entry, c *Daemon) ScheduledJob {
	j := ScheduledJob{Name: e.name, Pool: DefaultPool, Timeout: c.Global.JobTimeout, CompareEvery: c.Global.CompareEvery, Spot: DefaultSpotCheck}
	if e.value != nil && !isMapping(e.value) {
		d.entries(e) // tells
		return j
	}
	d.read(e, keys{
		"schedule":         func(e entry) { d.scheduleOf(e, c, &j) },
		"source":           func(e entry) { d.knownSource(e, &j.Source) },
		"pipeline":         d.text(&j.Pipeline, nil),
		"pool":             d.text(&j.Pool, checkPool),
		"timeout":          d.duration(&j.Timeout, time.Second),
		"compare-interval": d.duration(&j.CompareEvery, 0),
		"min-age":          d.duration(&j.MinAge, 0),
		"spot-check":       d.spot(&j.Spot),
	})
	d.need(e, "schedule", "the name of one in schedules")
	if !d.has(e, "pipeline") {
		d.need(e, "source", "what to back up, as in {type: file, filename: /dev/vg0/vm1}")
	}
	return j
}

func (d *document) scheduleOf(e entry, c *Daemon, j *ScheduledJob) {
	d.text(&j.ScheduleName, func(name string) error {
		rules, ok := c.Schedules[name]
		if !ok {
			known := cmp.Or(strings.Join(slices.Sorted(maps.Keys(c.Schedules)), ", "), "none")
			return fmt.Errorf("there is no schedule %q; there are: %s", name, known)
		}
		j.Schedule = rules
		return nil
	})(e)
}

func (d *document) knownSource(e entry, s *Source) {
	d.source(s)(e)
	if _, ok := types[s.Type]; !ok && s.Type != "" {
		d.mistake(e.value, "source type %q is not known to this version of backy; it knows: %s", s.Type, typeNames)
	}
}

func checkFollowUp(word string) error {
	if !slices.Contains(FollowUps, word) {
		return fmt.Errorf("%.40q is none; there are: %s", word, strings.Join(FollowUps, ", "))
	}
	return nil
}

var poolForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

func checkPool(name string) error {
	if !poolForm.MatchString(name) {
		return fmt.Errorf("%.80q is no name of a pool: want letters, digits, _ and -", name)
	}
	return nil
}

var hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

func checkAddr(addr string) error {
	if _, err := netip.ParseAddr(addr); err != nil && (!hostForm.MatchString(addr) || strings.Trim(addr, "0123456789.") == "") {
		return fmt.Errorf("%.80q is no address to listen on: want an IP address, as in 127.0.0.1 or ::1, without a port", addr)
	}
	return nil
}

// checkToken refuses what cannot stand in a header. It does not repeat the token.
func checkToken(token string) error {
	if len(token) > 1024 || token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return errors.New("that is no token: want up to 1024 letters, digits and signs without spaces")
	}
	return nil
}

func checkURL(text string, schemes ...string) error {
	u, err := url.Parse(text)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Hostname() == "" {
		return fmt.Errorf("that is no URL: want one that begins with %s://, and a host", strings.Join(schemes, ":// or "))
	}
	return nil
}

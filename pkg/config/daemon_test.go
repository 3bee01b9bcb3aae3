package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/pkg/schedule"
)

// As operators of the backy of old have it.
const familiar = `# backy.conf
global:
  base-dir: /my/backydir
  worker-limit: 3
  backup-completed-callback: /path/to/script.sh
api:
  addrs: "127.0.0.1, ::1"
  port: 1234
  tokens:
    "test-token": "test-server"
    "cli-token": "cli"
  cli-default:
    token: "cli-token"
peers:
  "test-server":
    url: "https://example.com:1234/"
    token: "token2"
schedules:
  default:
    daily: {interval: 1d, keep: 9}
    weekly: {interval: 1w, keep: 5}
    monthly: {interval: 4w, keep: 4}
  frequent:
    hourly:
      interval: 1h
      keep: 25
jobs:
  test03:
    source: {type: flyingcircus, vm: test03, consul_acl_token: abc-123, pool: rbd.hdd, image: test03.root}
    schedule: frequent
  test01:
    source:
      type: file
      filename: /vm/test01.img
    schedule: default
  test02:
    source:
      type: ceph-rbd
      pool: test
      image: test02
      full-always: true
    schedule: frequent
`

func parsed(t *testing.T, text string) *Daemon {
	t.Helper()
	c, err := ParseDaemon([]byte(text), "/etc/backy.conf")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFamiliarConfiguration(t *testing.T) {
	c := parsed(t, familiar)
	if g := c.Global; g.BaseDir != "/my/backydir" || g.WorkerLimit != 3 || g.Callback != "/path/to/script.sh" {
		t.Errorf("%+v", g)
	}
	if !reflect.DeepEqual(c.API, API{Addrs: []string{"127.0.0.1", "::1"}, Port: 1234, Tokens: map[string]string{"test-token": "test-server", "cli-token": "cli"}, CLI: Peer{Token: "cli-token"}}) {
		t.Errorf("%+v", c.API)
	}
	if c.Peers["test-server"] != (Peer{"https://example.com:1234", "token2"}) {
		t.Errorf("%+v", c.Peers)
	}
	if !reflect.DeepEqual(c.Schedules["frequent"], schedule.Schedule{"hourly": {Interval: time.Hour, Keep: 25}}) || len(c.Schedules["default"]) != 3 {
		t.Errorf("%+v", c.Schedules)
	}
	var got []string
	for _, j := range c.Jobs {
		address, err := j.Source.Address()
		got = append(got, fmt.Sprint(j.Name, " ", address, " ", err, " ", j.ScheduleName, " ", len(j.Schedule), " ", j.Pool, " ", j.Timeout, " ", j.CompareEvery == 30*schedule.Day, " ", j.Spot == DefaultSpotCheck))
	}
	want := []string{"test01 /vm/test01.img <nil> default 3 default 24h0m0s true true", "test02 rbd:test/test02 <nil> frequent 1 default 24h0m0s true true",
		"test03 rbd:rbd.hdd/test03.root <nil> frequent 1 default 24h0m0s true true"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if s := c.Jobs[1].Source; !s.FullAlways || s.Type != TypeRBD {
		t.Errorf("%+v", s)
	}
	if s := c.Jobs[2].Source; s.VM != "test03" || s.ConsulToken != "abc-123" || s.Type != TypeFlyingCircus {
		t.Errorf("%+v", s)
	}
}

func TestDefaults(t *testing.T) {
	c := parsed(t, "global: {base-dir: ../srv/backy}\nschedules:\njobs:\n")
	want := &Daemon{Path: "/etc/backy.conf", Global: Global{BaseDir: "/srv/backy", WorkerLimit: 1, CallbackTimeout: 5 * time.Minute, JobTimeout: schedule.Day,
		CompareEvery: 30 * schedule.Day, PurgeEvery: schedule.Day, FollowUps: FollowUps}, API: API{Addrs: []string{"127.0.0.1", "::1"}, Port: 6023, Tokens: map[string]string{}},
		Peers: map[string]Peer{}, NATS: NATS{Port: 6024, MaxAge: 30 * schedule.Day, MaxBytes: 1 << 30}, Schedules: map[string]schedule.Schedule{}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// Each key that no other test sets.
func TestAllKeys(t *testing.T) {
	c := parsed(t, `global:
  base-dir: /srv/backy
  callback-timeout: 1m
  job-timeout: 6h
  compare-interval: 2w
  purge-interval: 0
  follow-ups: [expire, purge]
  pools: ssd, hdd
api: {addrs: [backup.example.com, "fe80::1%eth0"], port: 0, certificate: tls/cert.pem, key: /key.pem, cli-default: {token: x, url: "http://localhost:1"}}
nats: {url: "nats://a:4222, tls://b", token: t, port: 0, max-age: 1w, max-bytes: 2 GiB}
schedules: {daily: {daily: {interval: 1d, keep: 3}}}
jobs:
  a/b:
    schedule: daily
    pipeline: |
      ssh "$BACKY_JOB" backy-read |
        backy-chunk | backy-store -t "$BACKY_TAGS"
    pool: ssd
    timeout: 12h
    compare-interval: 0
    min-age: 2d
    spot-check: {share: 0.5%, time: 1m}
  c: {schedule: daily, source: {type: rbd, pool: p, namespace: n, image: i}}
`)
	if !reflect.DeepEqual(c.Global, Global{BaseDir: "/srv/backy", WorkerLimit: 1, CallbackTimeout: time.Minute, JobTimeout: 6 * time.Hour, CompareEvery: 2 * schedule.Week,
		FollowUps: []string{"expire", "purge"}, Pools: []string{"ssd", "hdd"}}) {
		t.Errorf("%+v", c.Global)
	}
	if !reflect.DeepEqual(c.API, API{Addrs: []string{"backup.example.com", "fe80::1%eth0"}, Tokens: map[string]string{}, Certificate: "/etc/tls/cert.pem", Key: "/key.pem", CLI: Peer{"http://localhost:1", "x"}}) {
		t.Errorf("%+v", c.API)
	}
	if c.NATS != (NATS{"nats://a:4222, tls://b", "t", 0, schedule.Week, 2 << 30}) {
		t.Errorf("%+v", c.NATS)
	}
	rules := c.Schedules["daily"]
	if want := (ScheduledJob{Name: "a/b", ScheduleName: "daily", Schedule: rules, Pool: "ssd", Timeout: 12 * time.Hour, MinAge: 2 * schedule.Day, Spot: SpotCheck{0.5, time.Minute},
		Pipeline: "ssh \"$BACKY_JOB\" backy-read |\n  backy-chunk | backy-store -t \"$BACKY_TAGS\"\n"}); !reflect.DeepEqual(c.Jobs[0], want) {
		t.Errorf("got  %+v\nwant %+v", c.Jobs[0], want)
	}
	if j := c.Jobs[1]; j.Timeout != 6*time.Hour || j.CompareEvery != 2*schedule.Week {
		t.Errorf("what is not said is as for all: %+v", j)
	}
	if a, err := c.Jobs[1].Source.Address(); a != "rbd:p/n/i" {
		t.Error(a, err)
	}
}

// What is the same for many may be written once.
func TestAnchors(t *testing.T) {
	c := parsed(t, `global: {base-dir: /srv}
schedules: {daily: &rules {daily: &rule {interval: 1d, keep: 3}}, same: *rules, other: {weekly: {<<: *rule, interval: 1w}}}
jobs:
  a: &a {schedule: daily, min-age: 1d, source: {type: file, filename: /a}}
  b: {<<: *a, source: {type: file, filename: /b}}
`)
	if !reflect.DeepEqual(c.Schedules["same"], c.Schedules["daily"]) || c.Schedules["other"]["weekly"] != (schedule.Rule{Interval: schedule.Week, Keep: 3}) {
		t.Error(c.Schedules)
	}
	if b := c.Jobs[1]; b.Source.Filename != "/b" || b.MinAge != schedule.Day || b.ScheduleName != "daily" {
		t.Errorf("%+v", b)
	}
}

// All that is wrong is told at once, in the order of the file.
func TestAllMistakesAtOnce(t *testing.T) {
	_, err := ParseDaemon([]byte(`global:
  base-directory: /srv/backy
  worker-limit: many
api:
  port: 70000
  tokens: {"se cret": x}
peers: {b: {url: b:6023}}
schedules:
  default:
    daily: {interval: 1 day, keep: 0}
    daily: {interval: 1d, keep: 1}
  empty: {}
jobs:
  vm1: {schedule: dayly, source: {type: file}}
  vm1: {schedule: default, source: {type: file, filename: /x}}
  vm2/: {source: {type: tape}}
  vm3:
  vm4: {schedule: default, source: /dev/vg0/vm4, retries: 3}
shedules: {}
`), "backy.conf")
	want := []string{
		`backy.conf:2:3: global has no base-dir: the directory of the repository`,
		`backy.conf:2:3: unknown key "base-directory"; there are: backup-completed-callback, base-dir, callback-timeout, compare-interval, follow-ups, job-timeout, pools, purge-interval, worker-limit`,
		`backy.conf:3:17: worker-limit: want a whole number, 1 to 1000`,
		`backy.conf:5:9: port: want a whole number, 0 to 65535`,
		`backy.conf:6:12: tokens: that is no token: want up to 1024 letters, digits and signs without spaces`,
		`backy.conf:7:13: b has no token: that of a client`,
		`backy.conf:7:18: url: that is no URL: want one that begins with http:// or https://, and a host`,
		`backy.conf:10:23: interval: "1 day" is no duration: want a whole number with one of s, m, h, d, w, as in 30m or 1d`,
		`backy.conf:10:36: keep: want a whole number, 1 or more`,
		`backy.conf:11:5: "daily" is there twice, first in line 10`,
		`backy.conf:12:10: the schedule is empty, and all tags would expire; leave it out if nothing is to expire`,
		`backy.conf:14:19: schedule: there is no schedule "dayly"; there are: default, empty`,
		`backy.conf:14:35: source has no filename: the path of an image file or block device`,
		`backy.conf:15:3: "vm1" is there twice, first in line 14`,
		`backy.conf:16:3: "vm2/" is no job's name: want letters, digits, _ and -, single dots inside, starting with a letter or digit`,
		`backy.conf:16:10: vm2/ has no schedule: the name of one in schedules`,
		`backy.conf:16:19: source type "tape" is not known to this version of backy; it knows: file, rbd (or ceph, ceph-rbd), flyingcircus`,
		`backy.conf:17:3: vm3 has no schedule: the name of one in schedules`,
		`backy.conf:17:3: vm3 has no source: what to back up, as in {type: file, filename: /dev/vg0/vm1}`,
		`backy.conf:18:36: source has to be keys with values, as in {key: value}`,
		`backy.conf:18:50: unknown key "retries"; there are: compare-interval, min-age, pipeline, pool, schedule, source, spot-check, timeout`,
		`backy.conf:19:1: unknown key "shedules"; there are: api, global, jobs, nats, peers, schedules`,
	}
	var mistakes Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatal(err)
	}
	var got []string
	for _, m := range mistakes {
		got = append(got, m.Error())
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got[min(i, len(got)):], "\n"), strings.Join(want[min(i, len(want)):], "\n"))
		}
	}
	var one *Mistake
	if !errors.As(err, &one) || one.Line != 2 || one.Column != 3 || one.Path != "backy.conf" {
		t.Errorf("%+v", one)
	}
}

func TestMistakesOfTheScheduler(t *testing.T) {
	const good = "global: {base-dir: /srv}\nschedules: {daily: {daily: {interval: 1d, keep: 3}}}\n"
	const source = "schedule: daily, source: {type: file, filename: /x}"
	for _, test := range []struct{ name, text, want string }{
		{"no YAML", "global: {base-dir", "backy.conf:1:"},
		{"empty", "", "backy.conf: it is empty"},
		{"only comments", "# nothing\n", "backy.conf: it is empty"},
		{"two documents", good + "---\n" + good, "backy.conf: it has more than one document"},
		{"a list", "- a\n", "backy.conf:1:1: the file has to be keys with values"},
		{"a word", "backy\n", "backy.conf:1:1: the file has to be keys with values"},
		{"no global", "schedules: {}\n", "backy.conf:1:1: the file has no global, in which base-dir tells"},
		{"an empty base-dir", "global: {base-dir: ''}\n", "backy.conf:1:20: base-dir: it is empty"},
		{"no base-dir", "global: {base-dir: }\n", "backy.conf:1:10: global has no base-dir"},
		{"a base-dir that is a list", "global: {base-dir: [/srv]}\n", "backy.conf:1:20: base-dir: want a text, not a list"},
		{"a base-dir that is true", "global: {base-dir: true}\n", "backy.conf:1:20: base-dir: want a text, not true or false; put it in quotes"},
		{"nobody works", "global: {base-dir: /srv, worker-limit: 0}\n", "backy.conf:1:40: worker-limit: want a whole number, 1 to 1000"},
		{"half a worker", "global: {base-dir: /srv, worker-limit: 1.5}\n", "backy.conf:1:40: worker-limit: want a whole number"},
		{"no time", "global: {base-dir: /srv, job-timeout: 0}\n", "backy.conf:1:39: job-timeout: 0s is too short: want 1s or more"},
		{"a follow-up", "global: {base-dir: /srv, follow-ups: expire and purge}\n", `backy.conf:1:38: follow-ups: "expire and purge" is none; there are: verify, expire, callback, purge`},
		{"a follow-up twice", "global: {base-dir: /srv, follow-ups: [purge, purge]}\n", `backy.conf:1:46: follow-ups: "purge" is there twice`},
		{"a pool", "global: {base-dir: /srv, pools: a.b}\n", `backy.conf:1:33: pools: "a.b" is no name of a pool`},
		{"an address with a port", good + "api: {addrs: '127.0.0.1:6023'}\n", `backy.conf:3:14: addrs: "127.0.0.1:6023" is no address to listen on`},
		{"half an address", good + "api: {addrs: 127.0.0}\n", `backy.conf:3:14: addrs: "127.0.0" is no address`},
		{"an address too many", good + "api: {addrs: '::1, '}\n", `backy.conf:3:14: addrs: "" is no address`},
		{"half of TLS", good + "api: {certificate: /c}\n", "backy.conf:3:7: api: TLS needs both certificate and key"},
		{"a token of nobody", good + "api: {tokens: {abc: }}\n", "backy.conf:3:16: tokens: the token has no name of a client"},
		{"a token too long", good + "api: {tokens: {? " + strings.Repeat("x", 1025) + " : me}}\n", "backy.conf:3:16: tokens: that is no token"},
		{"the client's token", good + "api: {cli-default: {url: 'http://x'}}\n", "backy.conf:3:21: cli-default has no token"},
		{"another's URL", good + "peers: {b: {token: x}}\n", "backy.conf:3:13: b has no url: as in http://backup2:6023"},
		{"a wrong kind of server", good + "nats: {url: 'http://x'}\n", "backy.conf:3:13: url: that is no URL: want one that begins with nats:// or tls://"},
		{"no size", good + "nats: {max-bytes: 1TB5}\n", "backy.conf:3:19: max-bytes: want a number of bytes, as in 1073741824, 512MiB or 1G"},
		{"a size of nothing", good + "nats: {max-bytes: 0}\n", "backy.conf:3:19: max-bytes: want a number of bytes"},
		{"a size beyond all", good + "nats: {max-bytes: 99999999T}\n", "backy.conf:3:19: max-bytes: want a number of bytes"},
		{"a schedule without tags", "global: {base-dir: /srv}\nschedules:\n  daily:\n", `backy.conf:3:3: schedule "daily" has no tags`},
		{"a schedule that is a name", "global: {base-dir: /srv}\nschedules: {a: b}\n", "backy.conf:2:16: a has to be keys with values"},
		{"a rule in a schedule's own words", "global: {base-dir: /srv}\nschedules: {a: {daily: 1d}}\n", `backy.conf:2:24: tag "daily" needs an interval and a keep`},
		{"a job's name", good + "jobs: {../vm1: {" + source + "}}\n", `backy.conf:3:8: "../vm1" is no job's name`},
		{"a job with a space", good + "jobs: {vm 1: {" + source + "}}\n", `backy.conf:3:8: "vm 1" is no job's name`},
		{"a job in another's file", good + "jobs: {vm1: {" + source + "}, vm1/config: {" + source + "}}\n", `backy.conf:3:68: job "vm1/config" would lie where job "vm1" has its file config`},
		{"a job that is a word", good + "jobs: {vm1: daily}\n", "backy.conf:3:13: vm1 has to be keys with values"},
		{"jobs that are a list", good + "jobs: [vm1]\n", "backy.conf:3:7: jobs has to be keys with values"},
		{"an image in an image", good + "jobs: {vm1: {schedule: daily, source: {type: rbd, pool: a/b, image: c}}}\n", `backy.conf:3:57: pool: "a/b": want a name without spaces, / and @`},
		{"an image without a pool", good + "jobs: {vm1: {schedule: daily, source: {type: ceph, image: c}}}\n", "backy.conf:3:40: source has no pool"},
		{"a machine without a name", good + "jobs: {vm1: {schedule: daily, source: {type: flyingcircus, pool: a, image: c}}}\n", "backy.conf:3:40: source has no vm"},
		{"a word for true", good + "jobs: {vm1: {schedule: daily, source: {type: file, filename: /x, cow: yep}}}\n", "backy.conf:3:71: cow: want true or false"},
		{"an empty pipeline", good + "jobs: {vm1: {schedule: daily, pipeline: ' '}}\n", "backy.conf:3:41: pipeline: it is empty"},
		{"an anchor that is not there", good + "jobs: *all\n", "backy.conf:3:7: "},
		{"a key that is a list", good + "jobs: {? [a] : b}\n", "backy.conf:3:"},
	} {
		_, err := ParseDaemon([]byte(test.text), "backy.conf")
		var mistakes Mistakes
		if !errors.As(err, &mistakes) || !strings.HasPrefix(mistakes[0].Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\ngot  %v\nwant %s", test.name, err, test.want)
		} else if len(mistakes) > 1 {
			t.Errorf("%s: more than one thing is wrong: %v", test.name, err)
		}
	}
}

// What would need all memory is refused before; what machines write, JSON in one line, is not.
func TestDepth(t *testing.T) {
	for _, text := range []string{strings.Repeat("[", 1<<20), strings.Repeat("{a: ", 1<<18), strings.Repeat("- ", 1<<19), strings.Repeat("? ", 1<<19), strings.Repeat("-\t?", 3000)} {
		if _, err := ParseDaemon([]byte(text), "x"); err == nil || err.Error() != "x: it is nested too deep" {
			t.Errorf("%.10q...: %v", text, err)
		}
	}
	text := `{"global": {"base-dir": "/srv"}, "schedules": {"a": {"daily": {"interval": "1d", "keep": 3}}}, "jobs": {`
	for i := range 500 {
		text += fmt.Sprintf(`"vm%d": {"schedule": "a", "pipeline": "backy-read -- - | - [ %s"}, `, i, strings.Repeat("-", 80))
	}
	if c := parsed(t, strings.TrimSuffix(text, ", ")+"}}"); len(c.Jobs) != 500 || !strings.HasPrefix(c.Jobs[7].Pipeline, "backy-read -- - | - [ --") {
		t.Errorf("%d jobs", len(c.Jobs))
	}
}

// A token is a secret, also in a log that says what is wrong with the configuration.
func TestTokensAreNotShown(t *testing.T) {
	_, err := ParseDaemon([]byte("global: {base-dir: /srv}\napi: {tokens: {'sec ret': a, secret2: [], 'sec ret': b}, cli-default: {token: 'sec ret'}}\npeers: {a: {token: 'sec ret', url: 'sec ret'}}\nnats: {token: 'sec ret'}\n"), "backy.conf")
	if err == nil || strings.Contains(err.Error(), "ret") {
		t.Error(err)
	}
}

func TestReadDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backy.conf")
	if _, err := ReadDaemon(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(familiar), 0o640); err != nil {
		t.Fatal(err)
	}
	changed := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	if err := os.Chtimes(path, changed, changed); err != nil {
		t.Fatal(err)
	}
	c, err := ReadDaemon(path)
	if err != nil || !c.Changed.Equal(changed) || len(c.Jobs) != 3 || c.Path != path {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := ReadDaemon(filepath.Dir(path)); err == nil {
		t.Error("a directory is read")
	}
}

func FuzzParseDaemon(f *testing.F) {
	for _, text := range []string{familiar, "", "global: &a {base-dir: *a}\n", "~", "&j\n*j", "jobs: &j {<<: *j}\nglobal: *j", "global: {<<: [*a]}", "? {a: b}\n: c", "a: !!str b", "jobs: {1: {schedule: 2}, null: 3, true: .nan}",
		"global: {base-dir: /x}\nschedules: {a: {b: {interval: 1, keep: 1}}}\njobs: {v: {schedule: a, pipeline: |\n x\n}}", "api: {tokens: {a: b, a: c}, addrs: [[]]}", "%YAML 1.2\n---\nglobal:\n...\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseDaemon(text, "/etc/backy.conf")
		var mistakes Mistakes
		switch {
		case errors.As(err, &mistakes):
			for _, m := range mistakes {
				if !strings.HasPrefix(m.Error(), "/etc/backy.conf:") || strings.Contains(m.Error(), "\n") {
					t.Errorf("a mistake without its place, or of many lines: %q", m)
				}
			}
		case err != nil:
			t.Error(err)
		default:
			if !filepath.IsAbs(c.Global.BaseDir) {
				t.Errorf("base-dir %q", c.Global.BaseDir)
			}
			for _, j := range c.Jobs {
				if len(j.Schedule) == 0 || j.Timeout <= 0 || j.Source.Type == "" && j.Pipeline == "" {
					t.Errorf("%+v", j)
				}
			}
		}
	})
}

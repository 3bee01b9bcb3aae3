package doc

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"backy/pkg/config"
	"backy/pkg/schedule"
)

// switchedOff is a line of pipeline.example with a setting that is an example.
var switchedOff = regexp.MustCompile(`(?m)^#(\S|  )`)

// example is what pipeline.example says, as it is; and with all switched on that is switched off.
func example(t *testing.T) (c, all *config.Daemon, settings string) {
	t.Helper()
	settings, _, ok := strings.Cut(text(t, "../pipeline.example"), "\n# --- config ---\n")
	if !ok {
		t.Fatal("pipeline.example has no mark where the scheduler's part ends")
	}
	c, err := config.ParseDaemon([]byte(text(t, "../pipeline.example")), "/etc/backy.conf")
	if err != nil {
		t.Fatal(err)
	}
	settings = switchedOff.ReplaceAllString(settings, "$1")
	all, err = config.ParseDaemon([]byte(settings), "/etc/backy.conf")
	if err != nil {
		t.Fatal(err)
	}
	return c, all, settings
}

// What stands in pipeline.example is what holds without it.
func TestExampleHasTheDefaults(t *testing.T) {
	c, _, _ := example(t)
	bare, err := config.ParseDaemon([]byte(`global: {base-dir: /srv/backy}
schedules: {default: {daily: {interval: 1d, keep: 9}, weekly: {interval: 1w, keep: 5}, monthly: {interval: 4w, keep: 5}}}
jobs: {vm1: {schedule: default, source: {type: file, filename: /dev/vg0/vm1}}}
`), "/etc/backy.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.Global, bare.Global) || !reflect.DeepEqual(c.API, bare.API) || c.NATS != bare.NATS || !maps.Equal(c.Peers, bare.Peers) {
		t.Errorf("the example says\n%+v %+v %+v\nand without it holds\n%+v %+v %+v", c.Global, c.API, c.NATS, bare.Global, bare.API, bare.NATS)
	}
	got, want := c.Jobs[0], bare.Jobs[0]
	if address, _ := got.Source.Address(); address != "/dev/vg0/vm1" {
		t.Errorf("vm1 is %s", address)
	}
	got.Source, want.Source = config.Source{}, config.Source{} // which know their lines
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the example says\n%+v\nand without it holds\n%+v", got, want)
	}
}

// All that can be switched on is right, and there is no key that pipeline.example leaves out, or README.md's table.
func TestExampleIsComplete(t *testing.T) {
	_, all, settings := example(t)
	var names []string
	for _, j := range all.Jobs {
		names = append(names, j.Name)
	}
	if !slices.Equal(names, []string{"customer1/vm4", "vm1", "vm2", "vm3", "vm5"}) || len(all.API.Tokens) != 2 || len(all.Peers) != 1 || all.Global.Callback == "" {
		t.Errorf("not all of it is switched on: %v, %+v", names, all)
	}
	table := section(t, "../README.md", "## Configuration")
	words := regexp.MustCompile(`unknown key "unheard-of"; there are: (.*)$`)
	for _, where := range []string{"%", "global: {%}", "api: {%}", "api: {cli-default: {%}}", "peers: {a: {%}}", "nats: {%}", "schedules: {a: {a: {%}}}", "jobs: {a: {%}}",
		"jobs: {a: {spot-check: {%}}}", "jobs: {a: {source: {type: file, %}}}", "jobs: {a: {source: {type: rbd, %}}}", "jobs: {a: {source: {type: flyingcircus, %}}}"} {
		_, err := config.ParseDaemon([]byte(strings.ReplaceAll(where, "%", "unheard-of: 1")), "x")
		known := ""
		for _, mistake := range err.(config.Mistakes) {
			if m := words.FindStringSubmatch(mistake.Error()); m != nil {
				known = m[1]
			}
		}
		if known == "" {
			t.Fatalf("%s: %v", where, err)
		}
		for key := range strings.SplitSeq(known, ", ") {
			if !regexp.MustCompile(`(?m)(^ *|[{ ])` + key + `:`).MatchString(settings) {
				t.Errorf("pipeline.example does not have %s of %s", key, where)
			}
			if !regexp.MustCompile("[`{ ]" + key + "[`:]").MatchString(table) {
				t.Errorf("README.md does not have %s of %s", key, where)
			}
		}
	}
}

// The part of pipeline.example that is a job's config can be read as one.
func TestExampleOfAJobsConfig(t *testing.T) {
	_, rest, _ := strings.Cut(text(t, "../pipeline.example"), "\n# --- config ---\n")
	configuration, _, ok := strings.Cut(rest, "\n# --- ")
	_, configuration, begins := strings.Cut("\n"+configuration, "\n#\n")
	configuration, _, ends := strings.Cut(configuration, "\n#\n")
	if !ok || !begins || !ends {
		t.Fatal("pipeline.example has no config between its marks")
	}
	job, err := config.ParseJob([]byte(regexp.MustCompile(`(?m)^# `).ReplaceAllString(configuration, "")), "/srv/backy/vm1/config")
	if err != nil {
		t.Fatal(err)
	}
	if address, err := job.Source.Address(); err != nil || address != "/dev/vg0/vm1-snap" {
		t.Errorf("%q, %v", address, err)
	}
	if rules, err := job.Rules(); err != nil || len(rules) != 3 || job.MinAge != 2*schedule.Day {
		t.Errorf("%v, %v, %s", rules, err, job.MinAge)
	}
}

package pipeline

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backy/pkg/config"
)

// What a source's configuration becomes: flags of backy-read; and a secret stays off the command line.
func TestFrom(t *testing.T) {
	for _, test := range []struct {
		name, source, address, flags, env string
	}{
		{"a file", "{type: file, filename: /dev/vg0/vm1}", "/dev/vg0/vm1", "", ""},
		{"an image", "{type: ceph, pool: vms, namespace: a, image: vm1}", "rbd:vms/a/vm1", "", ""},
		{"all of it", "{type: rbd, pool: vms, image: vm1, full-always: true}", "rbd:vms/vm1", "--full", ""},
		{"hooks", "{type: rbd, pool: vms, image: vm1, freeze: a b, thaw: c, freeze-time: 90s}", "rbd:vms/vm1", "--freeze=a b --thaw=c --freeze-time=90s", ""},
		{"hooks, and the usual time", "{type: rbd, pool: vms, image: vm1, freeze: a, thaw: c}", "rbd:vms/vm1", "--freeze=a --thaw=c --freeze-time=30s", ""},
		{"a machine", "{type: flyingcircus, pool: vms, image: vm1.root, vm: vm1}", "rbd:vms/vm1.root", "--freeze-vm=vm1", ""},
		{"a machine and its token", "{type: flyingcircus, pool: vms, image: vm1.root, vm: vm1, consul_acl_token: secret}", "rbd:vms/vm1.root", "--freeze-vm=vm1", "CONSUL_HTTP_TOKEN=secret"},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, err := config.ParseJob([]byte("source: "+test.source), "/srv/backy/vm1/config")
			if err != nil {
				t.Fatal(err)
			}
			b := &Backup{Dir: "/srv/backy/vm1"}
			if err := b.From(job.Source); err != nil {
				t.Fatal(err)
			}
			if b.Source != test.address || strings.Join(b.Read, " ") != test.flags || strings.Join(b.ReadEnv, " ") != test.env {
				t.Errorf("got %s %q %q", b.Source, b.Read, b.ReadEnv)
			}
		})
	}
	if err := new(Backup).From(config.Source{}); err == nil {
		t.Error("from no source")
	}
}

// Only the stage that needs it has it in its environment.
func TestEnvironmentOfOneStage(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"read", "chunk", "store"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\ncat > /dev/null\necho $SECRET > $0.env\necho \"$@\" > $0.args\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("BACKY_"+strings.ToUpper(name), path)
	}
	b := &Backup{Dir: dir, Source: "x", Read: []string{"--full"}, ReadEnv: []string{"SECRET=hush"}}
	if _, err := b.Run(context.Background(), Options{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"read": "hush", "chunk": "", "store": ""} {
		if got := strings.TrimSpace(content(t, filepath.Join(dir, name+".env"))); got != want {
			t.Errorf("%s has %q", name, got)
		}
		if args := content(t, filepath.Join(dir, name+".args")); strings.Contains(args, "hush") || strings.Contains(args, "--full") != (name == "read") {
			t.Errorf("%s %s", name, args)
		}
	}
}

func TestSame(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"rbd:vms/vm1", "rbd:vms/vm1", true}, {"rbd:vms/vm1", "rbd:vms/vm1@a", false}, {"rbd:vms/vm1", "rbd:vms/vm2", false},
		{"disk.img", here + "/disk.img", true}, {"file:disk.img", "./disk.img", true}, {"disk.img", "/disk.img", false}, {"rbd:vms", "rbd:vms", true},
	} {
		if got := Same(test.a, test.b); got != test.want {
			t.Errorf("%s and %s: %t", test.a, test.b, got)
		}
	}
}

// With what a revision can be compared: with a snapshot, which stays as it is, or with what has not changed since.
func TestSpot(t *testing.T) {
	const id = "NkjcG4wtGr5uRyCsQeWXQd"
	for _, test := range []struct {
		source, since string
		check         config.SpotCheck
		want          string
	}{
		{"rbd:vms/vm1", "", config.SpotCheck{Percent: 1, Time: 5 * time.Minute}, "spot -r " + id + " --percent=1 --source=rbd:vms/vm1@backy-" + id + " --max-duration=5m"},
		{"rbd:vms/vm1@a", "", config.SpotCheck{Percent: 2.5}, "spot -r " + id + " --percent=2.5 --source=rbd:vms/vm1@a"},
		{"disk.img", "1,2,3", config.SpotCheck{Percent: 1}, "spot -r " + id + " --percent=1 --source=disk.img --since=1,2,3"},
		{"disk.img", "", config.SpotCheck{Percent: 1}, ""},
		{"-", "", config.SpotCheck{Percent: 1}, ""},
		{"rbd:vms/vm1", "", config.SpotCheck{}, ""},
	} {
		if got := strings.Join(Spot(test.source, test.since, id, test.check), " "); got != test.want {
			t.Errorf("%s: %s, want %s", test.source, got, test.want)
		}
	}
}

func TestSnapshots(t *testing.T) {
	for source, want := range map[string]bool{"rbd:vms/vm1": true, "rbd:vms/ns/vm1": true, "rbd:vms/vm1@a": false, "/dev/vg0/vm1": false, "-": false, "rbd:": false, "./rbd:vms/vm1": false} {
		if got := Snapshots(source); got != want {
			t.Errorf("%s: %t", source, got)
		}
	}
	if got := strings.Join(Sweep("rbd:vms/vm1", "/srv/backy/vm1"), " "); got != "rbd:vms/vm1 --sweep -b /srv/backy/vm1" {
		t.Error(got)
	}
}

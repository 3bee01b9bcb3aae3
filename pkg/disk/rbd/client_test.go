package rbd

import (
	"strings"
	"testing"
)

func TestWhoami(t *testing.T) {
	for _, c := range []struct {
		args, cluster, conf string
		want                client
		err                 string
	}{
		{"", "", "", client{"client.admin", "ceph", "", ""}, ""},
		{"--id backup", "", "", client{"client.backup", "ceph", "", ""}, ""},
		{"--id=backup", "", "", client{"client.backup", "ceph", "", ""}, ""},
		{"--user backup", "", "", client{"client.backup", "ceph", "", ""}, ""},
		{"-n client.backup", "", "", client{"client.backup", "ceph", "", ""}, ""},
		{"--name=client.a.b", "", "", client{"client.a.b", "ceph", "", ""}, ""},
		{"  --keyring /k   --id backup -m host ", "", "", client{"client.backup", "ceph", "", "--keyring /k -m host"}, ""},
		{"--id one --name client.two", "", "", client{"client.two", "ceph", "", ""}, ""},
		{"--id one -- --id two", "", "", client{"client.one", "ceph", "", ""}, ""},
		{"", "site", "/etc/x.conf", client{"client.admin", "site", "/etc/x.conf", ""}, ""},
		{"--cluster other -c /y.conf", "site", "/etc/x.conf", client{"client.admin", "other", "/y.conf", ""}, ""},
		{"--conf=/y.conf", "", "", client{"client.admin", "ceph", "/y.conf", ""}, ""},
		{"--id", "", "", client{}, "CEPH_ARGS: --id needs a value"},
		{"--id=", "", "", client{}, "CEPH_ARGS: --id needs a value"},
		{"--name backup", "", "", client{}, "--name backup: want TYPE.ID, as in client.admin"},
		{"-n .", "", "", client{}, "want TYPE.ID"},
	} {
		env := map[string]string{"CEPH_ARGS": c.args, "CEPH_CLUSTER": c.cluster, "CEPH_CONF": c.conf}
		got, err := whoami(func(name string) string { return env[name] })
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %+v, %v", c.args, got, err)
		}
	}
}

// However mad CEPH_ARGS is, there is a client with all names, or an error.
func FuzzWhoami(f *testing.F) {
	for _, s := range []string{"--id backup", "-n client.x", "--id", "--conf= --", "-c a -c b --cluster"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := whoami(func(name string) string { return map[string]string{"CEPH_ARGS": s}[name] })
		if err == nil && (!strings.Contains(c.name, ".") || c.cluster == "") || err != nil && c != (client{}) {
			t.Fatalf("%q: %+v, %v", s, c, err)
		}
	})
}

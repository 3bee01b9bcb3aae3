//go:build ceph

package cmd_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/pkg/disk/rbd/rbdtest"
	"backy/pkg/freeze/consul"
	"backy/pkg/freeze/consul/consultest"
)

// The scripts in testdata/ceph are sessions with a cluster that has a pool named vms, and with a Consul that knows the token
// let-me-in, where the host of the virtual machine circus looks for requests.
func TestCeph(t *testing.T) {
	rbdtest.Cluster(t)
	t.Cleanup(rbdtest.Stop)
	rbdtest.Tool(t, nil, "ceph", "osd", "pool", "create", "vms", "8")
	t.Cleanup(func() {
		rbdtest.Tool(t, nil, "ceph", "osd", "pool", "rm", "vms", "vms", "--yes-i-really-really-mean-it")
	})
	rbdtest.RBD(t, "pool", "init", "vms")
	kv := consultest.Start(t, "let-me-in")
	t.Setenv("CONSUL_HTTP_ADDR", kv.URL)
	over := make(chan struct{})
	var host sync.WaitGroup
	host.Go(func() { serve(t, kv, over) })
	t.Cleanup(func() { close(over); host.Wait() }) // the sessions run when this function has ended
	scripts(t, "ceph", "ceph,pacific")
}

// serve is what the host of a virtual machine does: it makes the snapshots that are asked for, in Ceph's pool vms.
func serve(t *testing.T, kv *consultest.Server, over <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	done := map[string]bool{}
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		for _, key := range kv.Keys(consul.Prefix) {
			var r consul.Request
			if done[key] || json.Unmarshal([]byte(kv.Value(key)), &r) != nil || r.VM != "circus" || !strings.HasPrefix(r.Snapshot, "backy-") {
				continue
			}
			done[key] = true
			rbdtest.RBD(t, "snap", "create", "--no-progress", "vms/circus@"+r.Snapshot)
		}
	}
}

//go:build ceph

package cmd_test

import (
	"testing"

	"backy/pkg/disk/rbd/rbdtest"
)

// The scripts in testdata/ceph are sessions with a cluster that has a pool named vms.
func TestCeph(t *testing.T) {
	rbdtest.Cluster(t)
	t.Cleanup(rbdtest.Stop)
	rbdtest.Tool(t, nil, "ceph", "osd", "pool", "create", "vms", "8")
	t.Cleanup(func() {
		rbdtest.Tool(t, nil, "ceph", "osd", "pool", "rm", "vms", "vms", "--yes-i-really-really-mean-it")
	})
	rbdtest.RBD(t, "pool", "init", "vms")
	scripts(t, "ceph", "ceph,pacific")
}

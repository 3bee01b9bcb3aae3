//go:build !ceph

package rbd

import "testing"

func TestAgainstCluster(t *testing.T) {
	t.Skip("built without the tag ceph: nothing here was tried against a cluster")
}

//go:build !ceph

package main

import (
	"fmt"

	"backy/pkg/app"
	"backy/pkg/freeze"
	"backy/pkg/open"
)

// machine says that this build knows no images of Ceph, and so nobody who makes snapshots of them.
func machine(*app.Context, string) (freeze.Freezer, error) {
	return nil, fmt.Errorf("--freeze-vm: %w; one built with `go build -tags ceph` has", open.ErrUnsupported)
}

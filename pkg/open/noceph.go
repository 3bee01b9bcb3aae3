//go:build !ceph

package open

import (
	"fmt"

	"backy/pkg/disk"
)

func image(address string) (disk.Disk, error) { return nil, unsupported(address) }

func imageTarget(address string, _ int64, _ bool) (disk.Writer, error) {
	return nil, unsupported(address)
}

func unsupported(address string) error {
	return fmt.Errorf("rbd:%s: %w; one built with `go build -tags ceph` has; `rbd export-diff` writes a stream that backy-chunk reads as it is, and `rbd map` gives a block device", address, ErrUnsupported)
}

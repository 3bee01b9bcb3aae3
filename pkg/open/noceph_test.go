//go:build !ceph

package open

import (
	"errors"
	"strings"
	"testing"
)

func TestWithoutCeph(t *testing.T) {
	a := parse(t, "rbd:vms/vm1")
	d, err := Source(a, Options{})
	if d != nil || !errors.Is(err, ErrUnsupported) || !strings.HasPrefix(err.Error(), "rbd:vms/vm1: this build of backy has no support for it; one built with `go build -tags ceph` has") {
		t.Errorf("got %v, %v", d, err)
	}
	w, err := Target(a, 1000, true)
	if w != nil || !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v, %v", w, err)
	}
}

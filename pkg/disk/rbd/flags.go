//go:build ceph

package rbd

/*
#cgo LDFLAGS: -lrbd -lrados
#include <stdlib.h>
#include <rbd/librbd.h>
*/
import "C"

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rbd"
)

// mapped says whether the cluster keeps a map of the image's objects, and vouches for it: the features object-map and
// fast-diff are on, and neither of their flags says that the map is invalid. go-ceph does not know these flags.
func (c *cluster) mapped(img *rbd.Image) (bool, error) {
	const need = rbd.FeatureObjectMap | rbd.FeatureFastDiff
	features, err := img.GetFeatures()
	if err != nil || features&need != need {
		return false, cause(err)
	}
	name, snapshot := C.CString(c.Image), (*C.char)(nil)
	defer C.free(unsafe.Pointer(name))
	if c.Snapshot != "" {
		snapshot = C.CString(c.Snapshot)
		defer C.free(unsafe.Pointer(snapshot))
	}
	var again C.rbd_image_t
	if r := C.rbd_open_read_only(C.rados_ioctx_t(c.pool.Pointer()), name, &again, snapshot); r < 0 {
		return false, fmt.Errorf("open it for its flags: %w", syscall.Errno(-r))
	}
	defer C.rbd_close(again)
	var flags C.uint64_t
	if r := C.rbd_get_flags(again, &flags); r < 0 {
		return false, fmt.Errorf("find out its flags: %w", syscall.Errno(-r))
	}
	return flags&(C.RBD_FLAG_OBJECT_MAP_INVALID|C.RBD_FLAG_FAST_DIFF_INVALID) == 0, nil
}

//go:build ceph

package rbd

/*
#cgo LDFLAGS: -lrbd -lrados
#include <errno.h>
#include <stdlib.h>
#include <rbd/librbd.h>
*/
import "C"

import (
	"fmt"
	"syscall"
	"unsafe"
)

// facts are what go-ceph does not tell of a snapshot.
type facts struct {
	mapped  bool  // there is a map of its objects that tells what has changed, and the cluster vouches for it
	overlap int64 // how much of a clone may show what its parent holds, bytes
}

// facts tells the facts of some snapshots of the image, by their ids, of which 0 is the image as it is now. They are found
// out anew: the library reads the maps for that, and vouches for none that is missing. A snapshot that is gone has none.
func (c *cluster) facts(ids ...uint64) ([]facts, error) {
	name := C.CString(c.Image)
	defer C.free(unsafe.Pointer(name))
	var img C.rbd_image_t
	if r := C.rbd_open_read_only(C.rados_ioctx_t(c.pool.Pointer()), name, &img, nil); r < 0 {
		return nil, fmt.Errorf("open it for its flags: %w", cause(result(r)))
	}
	defer C.rbd_close(img)
	list := make([]facts, len(ids))
	for i, id := range ids {
		r := C.int(0)
		if id != 0 {
			r = C.rbd_snap_set_by_id(img, C.uint64_t(id))
		}
		if r >= 0 {
			list[i], r = factsOf(img)
		}
		if r < 0 && r != -C.ENOENT {
			return nil, fmt.Errorf("find out its flags: %w", cause(result(r)))
		}
	}
	return list, nil
}

// factsOf tells the facts of what is open.
func factsOf(img C.rbd_image_t) (f facts, r C.int) {
	const need = C.RBD_FEATURE_OBJECT_MAP | C.RBD_FEATURE_FAST_DIFF
	const wrong = C.RBD_FLAG_OBJECT_MAP_INVALID | C.RBD_FLAG_FAST_DIFF_INVALID
	var features, flags, overlap C.uint64_t
	if r = C.rbd_get_features(img, &features); r < 0 {
		return f, r
	}
	if r = C.rbd_get_flags(img, &flags); r < 0 {
		return f, r
	}
	if r = C.rbd_get_overlap(img, &overlap); r < 0 {
		return f, r
	}
	return facts{features&need == need && flags&wrong == 0, int64(overlap)}, 0
}

// result is what a call of the library returned, as go-ceph's errors are.
type result int

func (r result) Error() string  { return syscall.Errno(-r).Error() }
func (r result) ErrorCode() int { return int(r) }

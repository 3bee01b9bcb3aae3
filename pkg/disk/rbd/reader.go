//go:build ceph

package rbd

/*
#cgo LDFLAGS: -lrbd -lrados
#include <stdlib.h>
#include <rbd/librbd.h>
#include <rados/librados.h>
*/
import "C"

import (
	"encoding/binary"
	"io"
	"unsafe"
)

// reader reads an image, or a snapshot of it, and tells the cluster that this is once only: it need not keep in memory what
// a backup reads, in place of what others do. go-ceph has no call for that which several may use at once.
type reader struct {
	img    C.rbd_image_t
	pool   C.rados_ioctx_t
	header string // the object that knows the size; "" in an image of the first format
}

// reader opens what look opens.
func (c *cluster) reader() (*reader, error) {
	name, snapshot := C.CString(c.Image), C.CString(c.Snapshot)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(snapshot))
	r := &reader{pool: C.rados_ioctx_t(c.pool.Pointer())}
	if n := C.rbd_open_read_only(r.pool, name, &r.img, nil); n < 0 {
		return nil, cause(result(n))
	}
	n := C.int(0)
	if c.Snapshot != "" {
		n = C.rbd_snap_set(r.img, snapshot)
	}
	if n < 0 {
		C.rbd_close(r.img)
		return nil, cause(result(n))
	}
	var id [256]C.char
	if C.rbd_get_id(r.img, &id[0], C.size_t(len(id))) == 0 {
		r.header = "rbd_header." + C.GoString(&id[0])
	}
	return r, nil
}

// sizeNow asks the cluster for the image's size as it is now, as the library does when it opens one; to open one for that
// would take longer than a read.
func (r *reader) sizeNow() (int64, error) {
	object, class, method := C.CString(r.header), C.CString("rbd"), C.CString("get_size")
	defer C.free(unsafe.Pointer(object))
	defer C.free(unsafe.Pointer(class))
	defer C.free(unsafe.Pointer(method))
	const noSnapshot = 1<<64 - 2
	in := binary.LittleEndian.AppendUint64(nil, noSnapshot)
	var out [9]byte // the order of the objects' size, and the size
	n := C.rados_exec(r.pool, object, class, method, (*C.char)(unsafe.Pointer(&in[0])), C.size_t(len(in)), (*C.char)(unsafe.Pointer(&out[0])), C.size_t(len(out)))
	if n < 0 {
		return 0, cause(result(n))
	}
	return int64(binary.LittleEndian.Uint64(out[1:])), nil
}

// ReadAt reads as io.ReaderAt says, but that beyond the end it may fail otherwise.
func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := C.rbd_read2(r.img, C.uint64_t(off), C.size_t(len(p)), (*C.char)(unsafe.Pointer(&p[0])), C.LIBRADOS_OP_FLAG_FADVISE_NOCACHE)
	switch {
	case n < 0:
		return 0, cause(result(n))
	case int(n) < len(p):
		return int(n), io.EOF
	}
	return int(n), nil
}

func (r *reader) Close() error {
	if n := C.rbd_close(r.img); n < 0 {
		return cause(result(n))
	}
	return nil
}

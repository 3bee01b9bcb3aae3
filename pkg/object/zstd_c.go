//go:build libzstd

package object

/*
#cgo pkg-config: libzstd
#include <zstd.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"
)

// Coder names the zstd implementation that this build uses.
const Coder = "libzstd"

type encoder struct{ *cctx }

type cctx struct{ c *C.ZSTD_CCtx }

func newEncoder() (encoder, error) {
	c := C.ZSTD_createCCtx()
	if c == nil {
		return encoder{}, errors.New("libzstd: no memory")
	}
	C.ZSTD_CCtx_setParameter(c, C.ZSTD_c_compressionLevel, 1)
	C.ZSTD_CCtx_setParameter(c, C.ZSTD_c_checksumFlag, 1)
	e := &cctx{c}
	runtime.AddCleanup(e, func(c *C.ZSTD_CCtx) { C.ZSTD_freeCCtx(c) }, c)
	return encoder{e}, nil
}

func (e encoder) encode(dst, content []byte) ([]byte, error) {
	bound := int(C.ZSTD_compressBound(C.size_t(len(content))))
	dst = slices.Grow(dst, bound)
	n := C.ZSTD_compress2(e.c, pointer(dst[len(dst):cap(dst)]), C.size_t(cap(dst)-len(dst)), pointer(content), C.size_t(len(content)))
	if C.ZSTD_isError(n) != 0 {
		return nil, fmt.Errorf("libzstd: %s", C.GoString(C.ZSTD_getErrorName(n)))
	}
	runtime.KeepAlive(e.cctx)
	return dst[:len(dst)+int(n)], nil
}

type decoder struct{ *dctx }

type dctx struct {
	c     *C.ZSTD_DCtx
	limit int
}

func newDecoder(limit int) (decoder, error) {
	c := C.ZSTD_createDCtx()
	if c == nil {
		return decoder{}, errors.New("libzstd: no memory")
	}
	d := &dctx{c, limit}
	runtime.AddCleanup(d, func(c *C.ZSTD_DCtx) { C.ZSTD_freeDCtx(c) }, c)
	return decoder{d}, nil
}

func (d decoder) decode(dst, frame []byte) ([]byte, error) {
	dst = slices.Grow(dst, max(d.limit, 1))
	n := C.ZSTD_decompressDCtx(d.c, pointer(dst[:cap(dst)]), C.size_t(d.limit), pointer(frame), C.size_t(len(frame)))
	if C.ZSTD_isError(n) != 0 {
		return nil, fmt.Errorf("libzstd: %s", C.GoString(C.ZSTD_getErrorName(n)))
	}
	runtime.KeepAlive(d.dctx)
	return dst[:int(n)], nil
}

func pointer(p []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(p)) }

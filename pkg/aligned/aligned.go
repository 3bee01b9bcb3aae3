// Package aligned makes buffers for I/O that goes past the page cache (O_DIRECT in open(2)).
package aligned

import "unsafe"

// Size, in bytes, is what address, offset and length must be multiples of.
const Size = 4096

// Buffer allocates n bytes that begin at a multiple of Size.
func Buffer(n int) []byte {
	b := make([]byte, n+Size-1)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (Size - 1)
	return b[skip : skip+n : skip+n]
}

// Is reports whether p can go to or from offset off past the page cache as it is.
func Is(p []byte, off int64) bool {
	return (uintptr(unsafe.Pointer(unsafe.SliceData(p)))|uintptr(off)|uintptr(len(p)))&(Size-1) == 0
}

// Up is n rounded up to a multiple of Size.
func Up(n int) int { return (n + Size - 1) &^ (Size - 1) }

package file

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sector    = 4096      // what ranges are aligned to before a device is asked to zero them; at least a logical sector
	zeroPiece = 256 << 20 // what a device is asked to zero at once, so that a signal gets through
)

var zeroes = make([]byte, 1<<20)

// zeroFile punches a hole, or else has the range zeroed, or else writes zeroes.
func zeroFile(t *Target, off, length int64) error {
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE} {
		err := again(func() error { return unix.Fallocate(int(t.f.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, off, length) })
		if !unsupported(err) {
			return err
		}
	}
	return t.writeZeroes(off, length)
}

// zeroDevice has the device zero a range (BLKZEROOUT; it makes the kernel write zeroes where the device cannot), and writes
// zeroes for what is not aligned.
func zeroDevice(t *Target, off, length int64) error {
	end := off + length
	first, last := (off+sector-1)&^(sector-1), end&^(sector-1)
	if first >= last {
		return t.writeZeroes(off, length)
	}
	for at := first; at < last; {
		n := min(last-at, zeroPiece)
		if err := zeroOut(int(t.f.Fd()), at, n); unsupported(err) {
			if err := t.writeZeroes(at, n); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		at += n
	}
	if err := t.writeZeroes(off, first-off); err != nil {
		return err
	}
	return t.writeZeroes(last, end-last)
}

// zeroOut is the ioctl BLKZEROOUT, or else fallocate(2), which some drivers in user space have instead.
func zeroOut(fd int, off, length int64) error {
	r := [2]uint64{uint64(off), uint64(length)}
	err := again(func() error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r))); e != 0 {
			return e
		}
		return nil
	})
	if unsupported(err) {
		err = again(func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, length)
		})
	}
	return err
}

func (t *Target) writeZeroes(off, length int64) error {
	for length > 0 {
		n, err := t.f.WriteAt(zeroes[:min(length, int64(len(zeroes)))], off)
		if err != nil {
			return err
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}

// unsupported says that another way must be found. A lost device, or no space, is none of these.
func unsupported(err error) bool {
	switch err {
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY, unix.EINVAL:
		return true
	}
	return false
}

// again calls once more what a signal has interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

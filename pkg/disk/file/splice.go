package file

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Cached implements disk.Splicer. It is false where it cannot tell.
func (d *File) Cached(off, length int64) bool {
	if d.direct || length <= 0 {
		return false
	}
	runs, known := absent(d.fd, off, length)
	return known && len(runs) == 0
}

// Splice implements disk.Splicer. What went into the pipe is the page cache's own pages, so nothing is brought into it or
// dropped from it.
func (d *File) Splice(pipe *os.File, off, length int64) (int64, error) {
	done := int64(0)
	for done < length {
		at := off + done
		n, err := unix.Splice(d.fd, &at, int(pipe.Fd()), nil, int(length-done), unix.SPLICE_F_MORE)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINVAL): // no pipe, or a file system that knows no splice
			return done, nil
		case errors.Is(err, unix.EPIPE): // nobody reads any more; a write is what ends a process of that
			return done, nil
		case err != nil:
			return done, fmt.Errorf("pass on %s at byte %d: %w", d.name, at, cause(err))
		case n == 0: // the end, before its time: whoever reads on finds out
			return done, nil
		}
		done += max(n, 0)
	}
	return done, nil
}

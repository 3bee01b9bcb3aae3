package repo

import (
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"backy/pkg/keyval"
)

// readSmall reads a file of key: value lines; of one that is too long, a little more than such a file may have. There are
// hundreds of thousands of them, so it makes the system calls that this takes, and no others: an os.File costs twice as many.
func readSmall(path string) ([]byte, error) {
	fd, err := uninterrupted(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 1024)
	for len(text) <= keyval.MaxSize {
		text = slices.Grow(text, 1)
		n, err := uninterrupted(func() (int, error) { return unix.Read(fd, text[len(text):cap(text)]) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			break
		}
		text = text[:len(text)+n]
	}
	return text, nil
}

// uninterrupted makes a system call again that a signal interrupted.
func uninterrupted(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Package durable names the three system calls by which a file survives a power cut.
//
// A name and its content are two things to a file system: fdatasync(2) makes the content of a file durable,
// fsync(2) of a directory the names in it, and syncfs(2) all that was written to a file system before it.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Ops are the calls as a repository makes them. A nil field is the kernel's own call, so the zero value is what
// production uses; tests put their own in place to show that each one is needed.
type Ops struct {
	Fdatasync func(*os.File) error // content of a file
	FsyncDir  func(*os.File) error // names in a directory
	Syncfs    func(*os.File) error // everything on the file system that the descriptor is on
}

// File makes the content of f durable. An error ends whatever relied on f: the kernel reports a lost write once.
func (o Ops) File(f *os.File) error {
	if o.Fdatasync != nil {
		return o.Fdatasync(f)
	}
	return sync("fdatasync", f, func(fd int) error { return unix.Fdatasync(fd) })
}

// Dir makes the names in the directory d durable.
func (o Ops) Dir(d *os.File) error {
	if o.FsyncDir != nil {
		return o.FsyncDir(d)
	}
	return sync("fsync", d, func(fd int) error { return unix.Fsync(fd) })
}

// FS makes everything durable that was written to the file system of f. Since Linux 5.8 it reports a write that
// failed after f was opened, so f is to be opened before the first of them.
func (o Ops) FS(f *os.File) error {
	if o.Syncfs != nil {
		return o.Syncfs(f)
	}
	return sync("syncfs", f, func(fd int) error { return unix.Syncfs(fd) })
}

// DirPath opens the directory at path, makes the names in it durable and closes it.
func (o Ops) DirPath(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return o.Dir(d)
}

// WriteFile makes a new file with this content, durable before it returns. Its name is not durable yet.
func (o Ops) WriteFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = o.File(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// MkdirAll makes a directory and those above it that are not there. Each one that it makes is durable.
func (o Ops) MkdirAll(path string, mode os.FileMode) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := o.MkdirAll(filepath.Dir(path), mode); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return o.DirPath(filepath.Dir(path))
}

func sync(op string, f *os.File, call func(fd int) error) error {
	err := unix.EINTR
	for err == unix.EINTR {
		if e := call(int(f.Fd())); e == nil {
			return nil
		} else if e != unix.EINTR {
			return &os.PathError{Op: op, Path: f.Name(), Err: e}
		}
	}
	return nil
}

// Package open finds the driver for a disk by its address. It alone imports drivers.
//
// An address is a path, or SCHEME:REST:
//
//	/dev/vg0/vm1  disk.img  file:disk.img   an image file or block device
//	rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]   an image in a Ceph cluster, if this is built with the tag ceph
//
// A path with a colon in it is written ./a:b. What looks like an unknown scheme but exists as a file is that file.
package open

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"backy/pkg/disk"
	"backy/pkg/disk/file"
	"backy/pkg/disk/rbd"
)

// Address tells where a disk is.
type Address struct {
	Scheme string // "file", "rbd"
	Rest   string // of a file its path; else what follows the colon
}

// String is the address in full; of a file with the scheme, and with the path as it was given.
func (a Address) String() string { return a.Scheme + ":" + a.Rest }

// Absolute is the address with an absolute path, so that it names the same disk from every directory. Symbolic links are
// left alone: they are often the name that stays when the device behind it does not.
func (a Address) Absolute() (Address, error) {
	if a.Scheme != "file" {
		return a, nil
	}
	path, err := filepath.Abs(a.Rest)
	if err != nil {
		return a, fmt.Errorf("find out the absolute path of %s: %w", a.Rest, err)
	}
	return Address{a.Scheme, path}, nil
}

// ErrUnsupported says that an address is right, but this build has no driver for it.
var ErrUnsupported = errors.New("this build of backy has no support for it")

// schemes are those that there may be a driver for.
var schemes = map[string]bool{"file": true, "rbd": true}

// Parse takes an address apart. It opens nothing.
func Parse(s string) (Address, error) {
	scheme, rest, found := strings.Cut(s, ":")
	switch {
	case s == "":
		return Address{}, errors.New("an address of a disk is missing: want a path, or SCHEME:REST")
	case strings.IndexByte(s, 0) >= 0:
		return Address{}, fmt.Errorf("%q has a zero byte in it", s)
	case !found || !isScheme(scheme):
		return Address{"file", s}, nil
	case !schemes[scheme]:
		if _, err := os.Lstat(s); err == nil {
			return Address{"file", s}, nil
		}
		return Address{}, fmt.Errorf("%s: there is no file of that name, and no kind of disk %q; write ./%s for a new file", s, scheme, s)
	case rest == "":
		return Address{}, fmt.Errorf("%s: something must follow the colon", s)
	case scheme == "rbd":
		if _, err := rbd.Parse(rest); err != nil {
			return Address{}, err
		}
	}
	return Address{scheme, rest}, nil
}

// isScheme tells a scheme from a path: letters, digits, + and -, the first a letter.
func isScheme(s string) bool {
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-') {
			return false
		}
	}
	return s != ""
}

// Options say how a source is read.
type Options struct {
	Direct    bool // past the page cache, where the kind of disk has one
	KeepCache bool // leave in the page cache what was read
}

// Source opens the disk at an address to be read. Its errors name the address.
func Source(a Address, o Options) (disk.Disk, error) {
	if a.Scheme == "rbd" {
		return image(a.Rest)
	}
	return source(file.Open(a.Rest, file.Options(o)))
}

// File makes a source of a file that is open already, as standard input may be. Where it is a pipe or the like, or stands
// elsewhere than at its start, the error wraps file.ErrNoDisk, and it can only be read as a stream: see IsStream.
func File(f *os.File, o Options) (disk.Disk, error) {
	return source(file.FromFile(f, file.Options(o)))
}

// source keeps a nil pointer from becoming a Disk that is not nil.
func source(d *file.File, err error) (disk.Disk, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

// IsStream says of an error of File that the file can be read, but only from where it stands to its end.
func IsStream(err error) bool { return errors.Is(err, file.ErrNoDisk) }

// Target opens the disk at an address to be written, for a disk of size bytes. One that exists is written over only with
// force (fs.ErrExist), and never if it is too small; one that does not is made, and is then a disk.Committer.
func Target(a Address, size int64, force bool) (disk.Writer, error) {
	if a.Scheme == "rbd" {
		return imageTarget(a.Rest, size, force)
	}
	i, err := os.Stat(a.Rest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w, err := file.Create(a.Rest, size)
		if err != nil {
			return nil, err
		}
		return w, nil
	case err == nil && !force && (i.Mode().IsRegular() || i.Mode().Type() == fs.ModeDevice):
		return nil, exists(a.Rest)
	} // anything else that is there is no disk, with force or without
	w, err := file.OpenTarget(a.Rest, size)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// exists refuses to write over what is there.
func exists(name string) error {
	return fmt.Errorf("%s %w; all of it would be written over, which takes --force", name, errExists)
}

// errExists is fs.ErrExist in words that fit into a sentence.
var errExists = existsError{}

type existsError struct{}

func (existsError) Error() string        { return "exists already" }
func (existsError) Is(target error) bool { return target == fs.ErrExist }

// Package file is the driver for image files and block devices: both as sources and as targets.
package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"backy/pkg/aligned"
	"backy/pkg/disk"
)

// ErrNoDisk says that a file is neither an image file nor a block device, or, given open, stands elsewhere than at its start.
var ErrNoDisk = errors.New("neither an image file nor a block device")

// Options say how a source is read. The zero value reads through the page cache and leaves that as it was.
type Options struct {
	Direct    bool // past the page cache (O_DIRECT); best with buffers from aligned.Buffer
	KeepCache bool // leave in the page cache what was read
}

// File is an image file or block device as a source. It is a disk.Disk, disk.Mapper and disk.Stater.
type File struct {
	f      *os.File
	fd     int
	name   string
	size   int64
	direct bool
	tidy   bool // leave the page cache as it was
}

var (
	_ disk.Disk   = (*File)(nil)
	_ disk.Mapper = (*File)(nil)
	_ disk.Stater = (*File)(nil)
)

// Open opens the image file or block device at path.
func Open(path string, o Options) (*File, error) {
	i, err := os.Stat(path) // before the open: that of a named pipe would wait for its writer
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, cause(err))
	}
	if err := fit(i); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return open(path, path, o)
}

// FromFile makes a source of a file that is open already, as standard input may be. It does not move its offset and leaves
// closing it to the caller. ErrNoDisk: it is a pipe or the like, or is not at its start, and can only be read as a stream.
func FromFile(f *os.File, o Options) (*File, error) {
	i, err := f.Stat()
	if err == nil {
		err = fit(i)
	}
	if err == nil {
		if at, e := f.Seek(0, io.SeekCurrent); e != nil || at != 0 {
			err = fmt.Errorf("%w at its start", ErrNoDisk)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name(), cause(err))
	}
	// Opened anew, so that neither offset nor advice is shared with whoever gave it.
	d, err := open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), f.Name(), o)
	if !errors.Is(err, fs.ErrPermission) {
		return d, err
	}
	// Whoever opened it may read it, we may not: what is shared has to do.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name(), err)
	}
	return setUp(os.NewFile(uintptr(fd), f.Name()), f.Name(), Options{KeepCache: true})
}

// fit says what is wrong with the type of a file.
func fit(i fs.FileInfo) error {
	switch m := i.Mode(); {
	case m.IsRegular(), m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0:
		return nil
	case m.IsDir():
		return fmt.Errorf("is a directory: %w", ErrNoDisk)
	case m&fs.ModeNamedPipe != 0:
		return fmt.Errorf("is a pipe: %w", ErrNoDisk)
	}
	return ErrNoDisk
}

func open(path, name string, o Options) (*File, error) {
	flags := os.O_RDONLY
	if o.Direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		if o.Direct && errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("open %s: its file system cannot read past the page cache (O_DIRECT); do without", name)
		}
		return nil, fmt.Errorf("open %s: %w", name, cause(err))
	}
	return setUp(f, name, o)
}

// setUp makes a source of an open file, which it closes if it cannot.
func setUp(f *os.File, name string, o Options) (*File, error) {
	d := &File{f: f, fd: int(f.Fd()), name: name, direct: o.Direct, tidy: !o.Direct && !o.KeepCache}
	s, err := d.Stat()
	if err == nil && s.Size == 0 {
		err = fmt.Errorf("open %s: is empty: there is no disk in it", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	d.size = s.Size
	if d.tidy {
		// No readahead: it would leave pages behind that nobody asked for. Reads are large enough without.
		unix.Fadvise(d.fd, 0, 0, unix.FADV_RANDOM)
	}
	return d, nil
}

// Size is the size in bytes, as it was when the file was opened.
func (d *File) Size() int64 { return d.size }

// Close closes the file.
func (d *File) Close() error { return d.f.Close() }

// Stat tells size and times as they are now; a block device has no times.
func (d *File) Stat() (disk.State, error) {
	i, err := d.f.Stat()
	if err != nil {
		return disk.State{}, fmt.Errorf("stat %s: %w", d.name, cause(err))
	}
	if st, ok := i.Sys().(*sysStat); ok && i.Mode().IsRegular() {
		return disk.State{Size: i.Size(), Modified: i.ModTime(), Changed: changed(st)}, nil
	}
	size, err := unix.Seek(d.fd, 0, io.SeekEnd)
	if err != nil {
		return disk.State{}, fmt.Errorf("find out the size of %s: %w", d.name, err)
	}
	return disk.State{Size: size}, nil
}

// ReadAt reads as disk.Disk says.
func (d *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s at byte %d: negative offset", d.name, off)
	}
	if off >= d.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), d.size-off)]
	n, err := d.read(want, off)
	switch {
	case errors.Is(err, io.EOF):
		return n, fmt.Errorf("read %s at byte %d: %w", d.name, off+int64(n), disk.ErrShrunk)
	case err != nil:
		return n, fmt.Errorf("read %s at byte %d: %w", d.name, off+int64(n), cause(err))
	case len(want) < len(p):
		return n, io.EOF
	}
	return n, nil
}

// read fills p.
func (d *File) read(p []byte, off int64) (int, error) {
	switch {
	case d.direct && !aligned.Is(p, off):
		return d.bounce(p, off)
	case !d.tidy || len(p) == 0:
		return d.f.ReadAt(p, off)
	}
	absent, _ := absent(d.fd, off, int64(len(p)))
	n, err := d.f.ReadAt(p, off)
	for _, r := range absent {
		unix.Fadvise(d.fd, r.off, r.len, unix.FADV_DONTNEED)
	}
	return n, err
}

// bounce reads what O_DIRECT would refuse: the last piece of a disk, above all.
func (d *File) bounce(p []byte, off int64) (int, error) {
	start := off &^ (aligned.Size - 1)
	skip := int(off - start)
	b := aligned.Buffer(aligned.Up(skip + len(p)))
	n, err := d.f.ReadAt(b, start)
	n = copy(p, b[min(skip, n):n])
	if n == len(p) {
		return n, nil // io.EOF came after it
	}
	return n, err
}

// NextData finds data as disk.Mapper says, by SEEK_DATA; where the file system cannot tell, all is data.
func (d *File) NextData(off int64) (start, end int64, err error) {
	if off >= d.size {
		return 0, 0, io.EOF
	}
	start, err = unix.Seek(d.fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return 0, 0, io.EOF
	case err == unix.EINVAL, err == unix.EOPNOTSUPP, err == unix.ENOSYS:
		return off, d.size, nil
	case err != nil:
		return 0, 0, fmt.Errorf("look for data in %s from byte %d on: %w", d.name, off, err)
	case start >= d.size:
		return 0, 0, io.EOF
	}
	end, err = unix.Seek(d.fd, start, unix.SEEK_HOLE)
	if err != nil || end <= start {
		end = d.size // cut short meanwhile, or no answer: reading tells
	}
	return start, min(end, d.size), nil
}

// cause strips what os puts before an error: the caller names operation and path itself.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

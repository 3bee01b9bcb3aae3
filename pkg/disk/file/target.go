package file

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"backy/pkg/aligned"
	"backy/pkg/disk"
	"backy/pkg/durable"
)

// Target is an image file or block device as a target. It is a disk.Writer.
type Target struct {
	f    *os.File
	past *os.File // the same, past the page cache; nil where that cannot be had
	name string
	size int64
	zero func(t *Target, off, length int64) error

	mu     sync.Mutex
	broken error // a failed sync: what it lost is not reported again
}

// Writes from direct bytes on go past the page cache where they can: whoever restores a disk does not read it right away, and
// the copy costs more than the write. Of one that cannot, from writeBack bytes on, the kernel is told to begin with it
// at once. Left to itself it lets gigabytes pile up, then holds up every writer.
const (
	direct    = 64 << 10
	writeBack = 256 << 10
)

// NewFile is a Target that does not exist under its name before Commit. It is a disk.Committer.
type NewFile struct {
	Target
	path string // what it is to be called
	done bool   // nothing is to be removed any more
}

var (
	_ disk.Writer    = (*Target)(nil)
	_ disk.Writer    = (*NewFile)(nil)
	_ disk.Committer = (*NewFile)(nil)
)

// Create begins a new image file of size bytes, sparse where nothing is written. It is written beside its place, as
// PATH.partial. Both that and path must not exist (fs.ErrExist).
func Create(path string, size int64) (*NewFile, error) {
	switch i, err := os.Lstat(path); {
	case err == nil && i.Mode().Type() == fs.ModeSymlink:
		return nil, fmt.Errorf("create %s: is a symbolic link already, maybe to what is not there: %w", path, fs.ErrExist)
	case err == nil:
		return nil, fmt.Errorf("create %s: %w", path, fs.ErrExist)
	}
	partial := path + ".partial"
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create %s: %s is there already: a restore is at work on it, or was killed; if so, remove it: %w", path, partial, fs.ErrExist)
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", partial, cause(err))
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		os.Remove(partial)
		return nil, fmt.Errorf("create %s: no file of %d bytes can be made here: %w", path, size, cause(err))
	}
	untouched := func(*Target, int64, int64) error { return nil } // no byte is given twice, so it is a hole
	return &NewFile{Target: Target{f: f, past: pastCache(f), name: partial, size: size, zero: untouched}, path: path}, nil
}

// pastCache opens a file once more, past the page cache; nil where that is refused.
func pastCache(f *os.File) *os.File {
	past, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	return past
}

// Commit makes the file durable and gives it its name, unless something has taken that meanwhile (fs.ErrExist); where it
// fails, PATH.partial stays.
func (n *NewFile) Commit() error {
	if err := n.Sync(); err != nil {
		return err
	}
	n.done = true
	if err := rename(n.name, n.path); err != nil {
		return fmt.Errorf("rename %s to %s: %w", n.name, n.path, err)
	}
	if err := (durable.Ops{}).DirPath(filepath.Dir(n.path)); err != nil {
		return fmt.Errorf("make the name %s durable: %w", n.path, err)
	}
	return nil
}

// Close removes the file, unless it was committed.
func (n *NewFile) Close() error {
	if !n.done {
		n.done = true
		os.Remove(n.name)
	}
	return n.Target.Close()
}

// rename gives a file a name that must be free.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != unix.EINVAL && err != unix.ENOSYS {
		return err
	}
	if err := os.Link(from, to); err != nil { // some network file systems
		return errors.Unwrap(err)
	}
	return os.Remove(from)
}

// OpenTarget opens an existing image file or block device to be written over, for a disk of size bytes. One that is smaller
// is refused, as is a device that is in use; a larger image file is cut to the size; of a larger device the rest stays as
// it is. fs.ErrNotExist: there is none.
func OpenTarget(path string, size int64) (*Target, error) {
	i, err := os.Stat(path)
	if err == nil {
		err = fit(i)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, cause(err))
	}
	flags := os.O_WRONLY
	zero := zeroFile
	if !i.Mode().IsRegular() {
		flags |= unix.O_EXCL // of a block device: fails while it is mounted, or part of another
		zero = zeroDevice
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("open %s: is in use: mounted, or part of another device", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, cause(err))
	}
	t := &Target{f: f, past: pastCache(f), name: path, size: size, zero: zero}
	if err := t.prepare(i.Mode().IsRegular()); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// prepare compares sizes and cuts an image file.
func (t *Target) prepare(regular bool) error {
	have, err := unix.Seek(int(t.f.Fd()), 0, unix.SEEK_END)
	switch {
	case err != nil:
		return fmt.Errorf("find out the size of %s: %w", t.name, err)
	case have < t.size:
		return fmt.Errorf("open %s: has %d bytes, too few for a disk of %d bytes", t.name, have, t.size)
	case have > t.size && regular:
		if err := t.f.Truncate(t.size); err != nil {
			return fmt.Errorf("cut %s to %d bytes: %w", t.name, t.size, cause(err))
		}
	}
	return nil
}

// WriteAt writes p at byte off; the faster, the more of it is aligned.
func (t *Target) WriteAt(p []byte, off int64) (int, error) {
	if err := t.within(off, int64(len(p))); err != nil {
		return 0, err
	}
	n := t.writePast(p, off)
	if n == len(p) {
		return n, nil
	}
	m, err := t.write(p[n:], off+int64(n))
	return n + m, err
}

// writePast writes what can go past the page cache of the beginning of p, and says how much that was. If it fails on the
// way, the same write is tried again through the cache, and its error is the one that counts.
func (t *Target) writePast(p []byte, off int64) int {
	whole := p[:len(p)&^(aligned.Size-1)]
	if t.past == nil || len(whole) < direct || !aligned.Is(whole, off) {
		return 0
	}
	n, _ := t.past.WriteAt(whole, off)
	return n &^ (aligned.Size - 1)
}

// write writes through the page cache.
func (t *Target) write(p []byte, off int64) (int, error) {
	n, err := t.f.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write %s at byte %d: %w", t.name, off+int64(n), cause(err))
	}
	if n >= writeBack {
		unix.SyncFileRange(int(t.f.Fd()), off, int64(n), unix.SYNC_FILE_RANGE_WRITE) // what fails comes out at the Sync
	}
	return n, nil
}

// Zero makes a range read as zero; on a block device by writing zeroes, or having the device do it, but never by a discard,
// which promises nothing of what is read afterwards.
func (t *Target) Zero(off, length int64) error {
	if err := t.within(off, length); err != nil || length == 0 {
		return err
	}
	if err := t.zero(t, off, length); err != nil {
		return fmt.Errorf("write zeroes to %s at byte %d: %w", t.name, off, cause(err))
	}
	return nil
}

// Sync makes all durable that was written. Once it has failed it always does.
func (t *Target) Sync() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken == nil {
		if err := t.f.Sync(); err != nil {
			t.broken = fmt.Errorf("sync %s: %w", t.name, cause(err))
		}
	}
	return t.broken
}

// Close closes the file, without a sync.
func (t *Target) Close() error {
	if t.past != nil {
		t.past.Close()
	}
	return t.f.Close()
}

func (t *Target) within(off, length int64) error {
	if off < 0 || length < 0 || off > math.MaxInt64-length || off+length > t.size {
		return fmt.Errorf("write %s at byte %d, length %d: not within its %d bytes", t.name, off, length, t.size)
	}
	return nil
}

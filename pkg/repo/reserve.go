package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Reserve is the space that lies aside in .backy/reserve for what has to work on a full disk. Who forgets, expires,
// purges or changes tags opens it, takes each step that may need space by Do, and closes it.
//
// Several may have it open at once; the last to close it sets the space aside again.
type Reserve struct {
	repo  *Repo
	file  *os.File // locked for reading as long as it is open; nil where there is none
	given bool
}

// OpenReserve opens the reserve. Where there is none, or it cannot be opened, Do goes without.
func (r *Repo) OpenReserve() *Reserve {
	s := &Reserve{repo: r}
	f, err := os.OpenFile(r.path("reserve"), os.O_RDWR, 0)
	if err != nil {
		return s
	}
	// Whoever restores it right now has the lock for writing, and only for a moment.
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_RDLCK}); err != nil {
		f.Close()
		return s
	}
	s.file = f
	return s
}

// Do calls f, and where that fails for lack of space, gives the reserve up and calls f once more. f has to leave things
// as they were when it fails, or to find its way from there.
func (s *Reserve) Do(f func() error) error {
	err := f()
	if !NoSpace(err) {
		return err
	}
	if !s.given && s.give() == nil {
		if err = f(); !NoSpace(err) {
			return err
		}
	}
	return fmt.Errorf("the disk under %s is full, and the reserve did not help: %w; free some space there by other means", s.repo.Base, err)
}

// NoSpace reports whether an error says that a disk or a quota is full.
func NoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

var errNoReserve = errors.New("there is no reserve")

func (s *Reserve) give() error {
	if s.file == nil {
		return errNoReserve
	}
	s.given = true
	if err := s.file.Truncate(0); err != nil {
		return fmt.Errorf("give up the reserve: %w", err)
	}
	return s.repo.Ops.FS(s.file) // btrfs and xfs hand the space out only after that
}

// Given reports whether the reserve had to be given up.
func (s *Reserve) Given() bool { return s.given }

// Close ends the use of the reserve, and sets the space aside again if it is not, as much of it as there is. What lacks
// is tried again by the next who closes it, so an error is worth a warning at most. It may be called twice.
func (s *Reserve) Close() error {
	if s.repo == nil {
		return nil
	}
	r := s.repo
	if s.file != nil {
		s.file.Close()
	}
	*s = Reserve{}
	f, err := os.OpenFile(r.path("reserve"), os.O_RDWR|os.O_CREATE, 0o640)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil // nothing was changed either
	}
	if err != nil {
		return fmt.Errorf("restore the reserve: %w", err)
	}
	defer f.Close()
	if free, err := tryLock(f); err != nil || !free {
		return err // somebody else has it open, and does this
	}
	return r.fillReserve(f)
}

// fillReserve brings the reserve to its size, or to what is free.
func (r *Repo) fillReserve(f *os.File) error {
	var disk unix.Statfs_t
	var have unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(f.Fd()), &disk), unix.Fstat(int(f.Fd()), &have)); err != nil {
		return fmt.Errorf("restore the reserve: %w", err)
	}
	want := reserveFor(int64(disk.Blocks) * disk.Bsize)
	if have.Size >= want {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, want)
	for size := want / 2; NoSpace(err) && size > have.Size; size /= 2 {
		if terr := f.Truncate(have.Size); terr != nil { // ext4 keeps what it could get
			return fmt.Errorf("restore the reserve: %w", terr)
		}
		if unix.Fallocate(int(f.Fd()), 0, 0, size) == nil {
			return fmt.Errorf("restore the reserve: only %d of %d bytes are free for it", size, want)
		}
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("restore the reserve: %w", err)
	}
	return nil
}

// reserveFor is the size of the reserve on a disk: less on a very small one. Bytes.
func reserveFor(disk int64) int64 { return min(reserveSize, disk/64) }

// Package repo is the repository: jobs and their revisions, sessions, the commit, and trust. The file system is the
// index; there is no other. doc/format.md says what lies where.
package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/blockmap"
	"backy/pkg/durable"
	"backy/pkg/event"
	"backy/pkg/keyval"
	"backy/pkg/object"
	"backy/pkg/object/dir"
)

// The folder of a repository below its base directory, like .git, and the file that tells that it is one.
const (
	Dot        = ".backy"
	configFile = "repo.yaml"
)

// The block size: a power of two, in bytes.
const (
	MinBlock     = 256 << 10
	MaxBlock     = 16 << 20
	DefaultBlock = 4 << 20
)

const reserveSize = 64 << 20

// AgainError says that nothing is wrong, and that what failed will succeed when it is run again.
type AgainError struct{ Err error }

func (e *AgainError) Error() string { return e.Err.Error() + "; nothing is lost, run it again" }

// Unwrap gives the reason.
func (e *AgainError) Unwrap() error { return e.Err }

// ExitCode is that of EX_TEMPFAIL in sysexits(3).
func (e *AgainError) ExitCode() int { return 75 }

func again(format string, args ...any) error { return &AgainError{fmt.Errorf(format, args...)} }

// Prefixes is into how many folders the objects of a kind are divided, by their names.
const Prefixes = dir.Prefixes

// World is what a repository needs of the world around it.
type World struct {
	Now func() time.Time
	Ops durable.Ops // the zero value is the kernel's

	Events *event.Writer // told of each revision that is forgotten, loses tags, or whose trust changes; nil if nobody listens

	// Step, if not nil, is called before each step of a session or a purge that others may come before or after. It is
	// for tests, which stop an actor there, and may be called from several goroutines.
	Step func(step Step, what string)
}

// Repo is a repository.
type Repo struct {
	Base      string // base directory, absolute
	ID        string
	BlockSize int64 // of new revisions without a base, bytes
	World
	pool *dir.Pool
}

// CheckBlock refuses a block size that is none.
func CheckBlock(n int64) error {
	if n < MinBlock || n > MaxBlock || n&(n-1) != 0 {
		return fmt.Errorf("a block of %d bytes: want a power of two from %d to %d", n, MinBlock, MaxBlock)
	}
	return nil
}

// FrameLimit is the most bytes that a frame of this kind has in any repository.
func FrameLimit(kind object.Kind) int {
	if kind == object.Page {
		return object.MaxFrame(blockmap.MaxPage)
	}
	return object.MaxFrame(MaxBlock)
}

// Init makes a repository in a directory, which is made too if it is not there.
func Init(base string, block int64, world World) (*Repo, error) {
	if err := CheckBlock(block); err != nil {
		return nil, err
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return nil, err
	}
	if found, _, err := Open(base, world); err == nil {
		return nil, fmt.Errorf("%s lies in the repository %s already; repositories are not nested", base, found.Base)
	} else if !errors.Is(err, ErrNoRepository) {
		return nil, err
	}
	if below, err := inner(base); err != nil {
		return nil, fmt.Errorf("look for a repository below %s: %w", base, err)
	} else if below != "" {
		return nil, fmt.Errorf("%s is a repository already, and lies in %s; repositories are not nested", below, base)
	}
	r := &Repo{Base: base, ID: NewID(), BlockSize: block, World: world}
	if err := checkMount(nearest(base)); err != nil {
		return nil, err
	}
	if err := r.create(); err != nil {
		return nil, fmt.Errorf("init %s: %w", base, err)
	}
	r.pool = dir.Open(r.path())
	return r, nil
}

var folders = []string{"chunks", "maps", "sessions", "tmp", "limbo", "reads", "bad", "quarantine", "lock"}

func (r *Repo) create() error {
	if err := r.Ops.MkdirAll(r.path(), 0o750); err != nil {
		return err
	}
	var free unix.Statfs_t
	if err := unix.Statfs(r.Base, &free); err != nil {
		return err
	}
	if free.Files > 0 && free.Ffree < 10000 {
		return fmt.Errorf("only %d inodes are free, and each block takes one; make a file system with more", free.Ffree)
	}
	for _, name := range folders {
		if err := os.Mkdir(r.path(name), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := r.probe(r.path("tmp"), r.path("chunks"), r.Base); err != nil {
		return err
	}
	if err := r.makeReserve(int64(free.Blocks) * free.Bsize); err != nil {
		return err
	}
	var c keyval.Pairs
	c.SetInt("format", 1)
	c.Set("id", r.ID)
	c.Set("hash", "sha256")
	c.Set("seal", "none")
	c.Set("coding", "zstd")
	c.SetInt("fanout", 1024)
	c.SetInt("block", r.BlockSize)
	temp := r.path("tmp", configFile)
	_ = os.Remove(temp) // of an init that was killed
	if err := r.Ops.WriteFile(temp, c.Bytes(), 0o640); err != nil {
		return err
	}
	if err := os.Link(temp, r.path(configFile)); err != nil {
		return err
	}
	_ = os.Remove(temp) // its other name is what counts
	return r.Ops.DirPath(r.path())
}

// inner finds a repository below a directory: nobody would know whose its jobs are.
func inner(base string) (found string, err error) {
	err = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path == base:
			return fs.SkipAll
		case err != nil:
			return err
		case d.IsDir() && d.Name() == Dot:
			if _, err := os.Lstat(filepath.Join(path, configFile)); err == nil {
				found = filepath.Dir(path)
				return fs.SkipAll
			}
		}
		return nil
	})
	return found, err
}

// makeReserve sets space aside that purge and its like give up first when the disk is full.
func (r *Repo) makeReserve(total int64) error {
	f, err := os.OpenFile(r.path("reserve"), os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	size := reserveFor(total)
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("set %d bytes aside: %w", size, err)
	}
	return nil
}

// probePrefix is how the names of probes begin.
const probePrefix = ".probe-"

// probe makes sure that files can be renamed and linked from the staging to where they are to be: that all of it is one
// file system. to[0] takes a rename, the others a link.
func (r *Repo) probe(from string, to ...string) error {
	name := probePrefix + NewID()
	for i, target := range to {
		source, dest := filepath.Join(from, name), filepath.Join(target, name)
		if err := os.WriteFile(source, nil, 0o640); err != nil {
			return err
		}
		move := os.Link
		if i == 0 {
			move = os.Rename
		}
		err := move(source, dest)
		for _, p := range []string{source, dest} {
			if rerr := os.Remove(p); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) && err == nil {
				err = rerr
			}
		}
		if err != nil {
			return fmt.Errorf("%s and %s have to be on one file system that can rename and link: %w", from, target, err)
		}
	}
	return nil
}

// ErrNoRepository is wrapped by Open where there is none.
var ErrNoRepository = errors.New("no repository here")

// Open finds the repository that a path lies in, by walking up to a directory that has .backy, and the job that the
// path stands for: "" for the base directory itself. The path need not exist: a job's directory is made by its first
// backup.
func Open(path string, world World) (*Repo, string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, "", err
	}
	for base := path; ; base = filepath.Dir(base) {
		text, err := os.ReadFile(filepath.Join(base, Dot, configFile))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			if base == filepath.Dir(base) {
				return nil, "", fmt.Errorf("%w: neither %s nor a directory above it has a %s; is its file system mounted? If there was none yet, make one with `backy init BASEDIR`", ErrNoRepository, path, Dot)
			}
			continue
		}
		if err != nil {
			return nil, "", fmt.Errorf("open the repository: %w", err)
		}
		r := &Repo{Base: base, World: world}
		if err := r.configure(text); err != nil {
			return nil, "", fmt.Errorf("%s: %w", filepath.Join(base, Dot, configFile), err)
		}
		r.pool = dir.Open(r.path())
		job, err := filepath.Rel(base, path)
		if err != nil || job == "." {
			return r, "", err
		}
		return r, job, CheckJob(job)
	}
}

// configure takes what repo.yaml says. What it does not know it refuses: a newer version may mean something by it.
func (r *Repo) configure(text []byte) error {
	c, err := keyval.Parse(text)
	if err != nil {
		return err
	}
	if format := c.Get("format"); format != "1" {
		return fmt.Errorf("format %q is not known to this version of backy (it knows 1); use a newer one", format)
	}
	for key, want := range map[string]string{"hash": "sha256", "seal": "none", "coding": "zstd", "fanout": "1024"} {
		if got := c.Get(key); got != want {
			return fmt.Errorf("%s: %q is not known to this version of backy (it knows %s); use a newer one", key, got, want)
		}
	}
	if rest := c.Without("format", "id", "hash", "seal", "coding", "fanout", "block"); len(rest) > 0 {
		return fmt.Errorf("key %q is not known to this version of backy; use a newer one", rest[0].Key)
	}
	if r.ID = c.Get("id"); CheckID(r.ID) != nil {
		return CheckID(r.ID)
	}
	if r.BlockSize, err = c.Int("block"); err != nil {
		return err
	}
	return CheckBlock(r.BlockSize)
}

// path is a path below .backy.
func (r *Repo) path(parts ...string) string {
	return filepath.Join(append([]string{r.Base, Dot}, parts...)...)
}

// Sync makes durable what is in the repository, whoever put it there.
func (r *Repo) Sync() error {
	d, err := os.Open(r.path())
	if err != nil {
		return err
	}
	defer d.Close()
	return r.Ops.FS(d)
}

// Objects reads the repository's objects.
func (r *Repo) Objects() *dir.Pool { return r.pool }

// nearest is the first directory on the way up that exists.
func nearest(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

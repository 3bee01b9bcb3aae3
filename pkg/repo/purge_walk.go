package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxRestarts = 3 // of a walk on which something vanished
	maxWalks    = 8 // until two in a row find the same
	maxLooks    = 8 // at what a walk has read, until nothing changes in between
)

// errVanished says that what was just listed is not there any more: a job may have been moved to where the walk has been.
var errVanished = errors.New("it vanished")

// walked is what a walk has found.
type walked struct {
	revisions map[string]bool // paths of .rev files
	folders   map[string]folder
}

// folder is a directory as it was when it was read.
type folder struct {
	changed time.Time
	below   map[string]bool // names of directories and .rev files
}

// everyRevision finds every .rev below the base directory, wherever it is. A job that is moved meanwhile can be missed by
// a walk, also without an error. So after a walk it looks for what came to where the walk had been, walks until two walks
// in a row find the same and nothing came, and takes what any of them found.
func (r *Repo) everyRevision(ctx context.Context) ([]Revision, error) {
	all := map[string]Revision{} // by path
	var before map[string]bool
	restarts := 0
	for range maxWalks {
		now := walked{map[string]bool{}, map[string]folder{}}
		err := r.walk(ctx, r.Base, now)
		for path := range now.revisions {
			if _, known := all[path]; err == nil && !known {
				var rev Revision
				if rev, err = r.revisionAt(path); err == nil {
					all[path] = rev
				}
			}
		}
		quiet := false
		if err == nil {
			quiet, err = now.quiet()
		}
		switch {
		case errors.Is(err, errVanished) && restarts < maxRestarts:
			restarts++
			before = nil
		case errors.Is(err, errVanished):
			return nil, again("list the revisions: %w; is something moved below %s all the time?", err, r.Base)
		case err != nil:
			return nil, fmt.Errorf("list the revisions: %w", err)
		case !quiet:
			before = nil
		case before != nil && maps.Equal(before, now.revisions):
			return slices.Collect(maps.Values(all)), nil
		default:
			before = now.revisions
		}
	}
	return nil, again("list the revisions: each time there are others; is something moved below %s all the time?", r.Base)
}

// quiet reports whether nothing new came into a directory since it was read, all of them at one moment: what is moved from one
// that was looked at second to one that was looked at first, and back, is in neither when it is looked for. So it looks until
// none has changed between two looks. A job's own directory changes with each of its revisions and states, and does not count.
func (t walked) quiet() (bool, error) {
	for range maxLooks {
		still := true
		for path, f := range t.folders {
			info, err := os.Stat(path)
			if err != nil {
				return false, vanished(path, err)
			}
			if info.ModTime().Equal(f.changed) {
				continue
			}
			entries, err := os.ReadDir(path)
			if err != nil {
				return false, vanished(path, err)
			}
			for _, e := range entries {
				if matters(e) && !f.below[e.Name()] {
					return false, nil
				}
			}
			still = still && f.isJob()
			t.folders[path] = folder{info.ModTime(), f.below}
		}
		if still {
			return true, nil
		}
	}
	return false, nil
}

func (f folder) isJob() bool {
	for name := range f.below {
		if strings.HasSuffix(name, revSuffix) {
			return true
		}
	}
	return false
}

// matters reports whether there can be a revision behind an entry.
func matters(e fs.DirEntry) bool {
	return !e.Type().IsRegular() || strings.HasSuffix(e.Name(), revSuffix)
}

// walk notes the .rev files in a directory and below. What it cannot be sure of is an error.
func (r *Repo) walk(ctx context.Context, path string, into walked) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return vanished(path, err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return vanished(path, err)
	}
	here := folder{info.ModTime(), map[string]bool{}}
	into.folders[path] = here
	for _, e := range entries {
		if matters(e) {
			here.below[e.Name()] = true
		}
		full := filepath.Join(path, e.Name())
		id, isRev := strings.CutSuffix(e.Name(), revSuffix)
		isRev = isRev && isID(id)
		if e.Name() == Dot {
			continue
		}
		mode := e.Type()
		if mode&fs.ModeSymlink != 0 {
			info, err := os.Stat(full)
			switch {
			case errors.Is(err, fs.ErrNotExist) && !isRev:
				continue // it leads nowhere
			case leadsNowhere(full, err):
				return fmt.Errorf("%s is a symbolic link that leads nowhere: put the file itself there, or remove it", full)
			case err != nil:
				return vanished(full, err)
			case info.IsDir():
				return fmt.Errorf("%s is a symbolic link to a directory, whose revisions would be missed; put the directory itself there", full)
			}
			mode = info.Mode().Type()
		}
		switch {
		case mode.IsDir() && e.Name() == "lost+found":
		case mode.IsDir():
			if err := r.walk(ctx, full, into); err != nil {
				return err
			}
		case isRev && !mode.IsRegular():
			return fmt.Errorf("%s is no regular file", full)
		case isRev:
			into.revisions[full] = true
		}
	}
	return nil
}

// revisionAt reads a .rev, without its state.
func (r *Repo) revisionAt(path string) (Revision, error) {
	text, err := readSmall(path)
	if err != nil {
		return Revision{}, vanished(path, err)
	}
	rev, err := ParseRevision(text)
	if id := strings.TrimSuffix(filepath.Base(path), revSuffix); err == nil && rev.ID != id {
		err = fmt.Errorf("it is that of %s", rev.ID)
	}
	if err != nil {
		return Revision{}, fmt.Errorf("%s: %w; what it needs cannot be known, so forget it (with --force) or repair it first", path, err)
	}
	rev.Job, _ = filepath.Rel(r.Base, filepath.Dir(path))
	return rev, nil
}

// leadsNowhere reports whether that is why there is nothing at a path: a link is there.
func leadsNowhere(path string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}

func vanished(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ESTALE) {
		return fmt.Errorf("%s: %w", path, errVanished)
	}
	return err
}

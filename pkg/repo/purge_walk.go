package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxRestarts = 3 // of a walk on which something vanished
	maxWalks    = 8 // until two in a row find the same
)

// errVanished says that what was just listed is not there any more: a job may have been moved to where the walk has been.
var errVanished = errors.New("it vanished")

// everyRevision finds every .rev below the base directory, wherever it is. A job that is moved meanwhile can be missed by
// a walk, also without an error, so it walks until two walks in a row find the same, and takes what any of them found.
func (r *Repo) everyRevision(ctx context.Context) ([]Revision, error) {
	all := map[string]Revision{} // by path
	var before map[string]bool
	restarts := 0
	for range maxWalks {
		now := map[string]bool{}
		err := r.walk(ctx, r.Base, now)
		for path := range now {
			if _, known := all[path]; err == nil && !known {
				all[path], err = r.revisionAt(path)
			}
		}
		switch {
		case errors.Is(err, errVanished) && restarts < maxRestarts:
			restarts++
			maps.DeleteFunc(all, func(_ string, v Revision) bool { return v.ID == "" })
			before = nil
			continue
		case errors.Is(err, errVanished):
			return nil, again("list the revisions: %w; is something moved below %s all the time?", err, r.Base)
		case err != nil:
			return nil, fmt.Errorf("list the revisions: %w", err)
		case before != nil && maps.Equal(before, now):
			list := make([]Revision, 0, len(all))
			for _, v := range all {
				list = append(list, v)
			}
			return list, nil
		}
		before = now
	}
	return nil, again("list the revisions: each time there are others; is something moved below %s all the time?", r.Base)
}

// walk notes the paths of the .rev files in a directory and below. What it cannot be sure of is an error.
func (r *Repo) walk(ctx context.Context, path string, into map[string]bool) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return vanished(path, err)
	}
	for _, e := range entries {
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
			into[full] = true
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

func vanished(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ESTALE) {
		return fmt.Errorf("%s: %w", path, errVanished)
	}
	return err
}

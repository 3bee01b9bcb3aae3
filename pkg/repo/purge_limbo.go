package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"backy/pkg/object"
	"backy/pkg/object/dir"
)

const (
	recordFile   = "record"
	recordFormat = "format: 1"
	recordEnd    = "end"
	writerPrefix = "writer: "
)

// epochs lists limbo, oldest first.
func (r *Repo) epochs() ([]string, error) {
	entries, err := os.ReadDir(r.path(dir.Limbo))
	if err != nil {
		return nil, fmt.Errorf("list limbo: %w", err)
	}
	var list []string
	for _, e := range entries {
		if e.IsDir() && epochNumber(e.Name()) > 0 {
			list = append(list, e.Name())
		}
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Compare(epochNumber(a), epochNumber(b)) })
	return list, nil
}

// epochNumber is 0 for what is no epoch's name.
func epochNumber(name string) uint64 {
	n, err := strconv.ParseUint(name, 10, 64)
	if err != nil || n == math.MaxUint64 || strconv.FormatUint(n, 10) != name {
		return 0
	}
	return n
}

// readRecord returns the writers that an epoch waits for. A record that is not whole is none: an empty one would read as
// if nobody had to be waited for.
func (r *Repo) readRecord(epoch string) (writers []string, whole bool, err error) {
	text, err := os.ReadFile(r.path(dir.Limbo, epoch, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	lines := strings.Split(string(text), "\n")
	n := len(lines)
	if n < 3 || lines[0] != recordFormat || lines[n-2] != recordEnd || lines[n-1] != "" {
		return nil, false, nil
	}
	for _, line := range lines[1 : n-2] {
		id, ok := strings.CutPrefix(line, writerPrefix)
		if !ok || !isID(id) {
			return nil, false, nil
		}
		writers = append(writers, id)
	}
	return writers, true, nil
}

// findRipe decides which epochs' writers have all ended. That is looked at before any listing, and not again in the pass: a
// writer that ends later may have committed a revision that the listing does not have.
func (p *purge) findRipe() error {
	p.step(StepRipe, "")
	epochs, err := p.repo.epochs()
	if err != nil {
		return err
	}
	p.ripe, p.open = nil, nil
	for _, epoch := range epochs {
		writers, whole, err := p.repo.readRecord(epoch)
		if err != nil {
			return fmt.Errorf("read the record of epoch %s: %w", epoch, err)
		}
		ended := true
		for _, id := range writers {
			_, err := os.Lstat(p.repo.path("sessions", id))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err == nil && !(p.DryRun && p.over[id]) {
				ended = false
			}
		}
		switch {
		case !whole:
			p.open = append(p.open, epoch)
		case ended:
			p.ripe = append(p.ripe, epoch)
		}
	}
	return nil
}

// free empties the ripe epochs: what is marked goes back to its place, and the rest is deleted.
func (p *purge) free(ctx context.Context, l *listing) error {
	toDelete := false
	for _, epoch := range p.ripe {
		pool := dir.Open(p.repo.path(dir.Limbo, epoch))
		if err := p.each(ctx, l, pool, func(key object.Key) error {
			listed, _, marked := l.state(key)
			switch {
			case !listed: // nobody else puts anything here
				return nil
			case marked:
				return p.back(pool, key)
			}
			toDelete = true
			return nil
		}); err != nil {
			return err
		}
	}
	if !toDelete {
		return nil
	}
	if !p.DryRun {
		p.step(StepSync, "")
		if err := p.repo.Ops.FS(p.fs); err != nil {
			return err
		}
	}
	for _, epoch := range p.ripe {
		pool := dir.Open(p.repo.path(dir.Limbo, epoch))
		if err := p.each(ctx, l, pool, func(key object.Key) error {
			if listed, _, marked := l.state(key); !listed || marked {
				return nil
			}
			return p.delete(ctx, pool, key)
		}); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for the objects of a pool that belong to the listing's part.
func (p *purge) each(ctx context.Context, l *listing, pool *dir.Pool, f func(object.Key) error) error {
	return l.folders(ctx, func(kind object.Kind, prefix int) error {
		keys, err := pool.List(kind, prefix)
		for _, key := range keys {
			if err == nil {
				err = f(key)
			}
		}
		return err
	})
}

// back gives an object its place back, unless another has it: that one may have been stored to heal this one.
func (p *purge) back(from *dir.Pool, key object.Key) error {
	size, err := size(from.Path(key))
	if err != nil {
		return err
	}
	p.report.Back.add(size)
	if p.DryRun {
		return nil
	}
	place := p.repo.pool.Path(key)
	p.step(StepBack, key.String())
	err = p.do(func() error {
		err := os.Link(from.Path(key), place)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(place), 0o750); err == nil {
				err = os.Link(from.Path(key), place)
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("put %s back: %w", key, err)
	}
	p.step(StepLeave, key.String())
	return p.do(func() error { return remove(from.Path(key)) })
}

func (p *purge) delete(ctx context.Context, from *dir.Pool, key object.Key) error {
	size, err := size(from.Path(key))
	if err != nil {
		return err
	}
	p.report.Freed.add(size)
	if p.DryRun {
		return nil
	}
	p.step(StepDelete, key.String())
	if err := p.do(func() error { return remove(from.Path(key)) }); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if !p.bad[key] {
		return nil
	}
	if there, err := p.repo.pool.Has(ctx, key); there || err != nil {
		return err
	}
	return p.repo.Unmark(key) // there is nothing left that could be bad
}

func size(path string) (int64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// move moves what was listed in place and is not marked to an epoch that has no record yet. From there it can be read, but
// no writer takes it for present.
func (p *purge) move(ctx context.Context, l *listing) error {
	return p.each(ctx, l, p.repo.pool, func(key object.Key) error {
		if listed, inPlace, marked := l.state(key); !listed || !inPlace || marked {
			p.report.Kept++
			return nil
		}
		place := p.repo.pool.Path(key)
		bytes, err := size(place)
		if err != nil {
			return err
		}
		p.report.Moved.add(bytes)
		if p.DryRun {
			return nil
		}
		if len(p.open) == 0 {
			if err := p.newEpoch(); err != nil {
				return err
			}
		}
		to := dir.Open(p.repo.path(dir.Limbo, p.open[0])).Path(key)
		p.step(StepMove, key.String())
		err = p.do(func() error {
			err := os.Rename(place, to)
			if errors.Is(err, fs.ErrNotExist) {
				if err = os.MkdirAll(filepath.Dir(to), 0o750); err == nil {
					err = os.Rename(place, to)
				}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("move %s to limbo: %w", key, err)
		}
		return nil
	})
}

// newEpoch makes an epoch under a name that nobody else has made.
func (p *purge) newEpoch() error {
	epochs, err := p.repo.epochs()
	if err != nil {
		return err
	}
	next := uint64(1)
	if len(epochs) > 0 {
		next = epochNumber(epochs[len(epochs)-1]) + 1
	}
	for ; ; next++ {
		name := strconv.FormatUint(next, 10)
		err := p.do(func() error { return os.Mkdir(p.repo.path(dir.Limbo, name), 0o750) })
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make an epoch: %w", err)
		}
		p.open = []string{name}
		return nil
	}
}

// removeEpochs removes the ripe epochs. One that is not empty stays: it is ripe the next time, too.
func (p *purge) removeEpochs() error {
	for _, epoch := range p.ripe {
		root := p.repo.path(dir.Limbo, epoch)
		for _, kind := range object.Kinds {
			folders, err := os.ReadDir(filepath.Join(root, kind.String()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, f := range folders {
				_ = os.Remove(filepath.Join(root, kind.String(), f.Name())) // what is not empty stays
			}
			_ = os.Remove(filepath.Join(root, kind.String()))
		}
		entries, err := os.ReadDir(root)
		if err != nil {
			return err
		}
		if len(entries) > 1 || len(entries) == 1 && entries[0].Name() != recordFile {
			p.Log.Warn("an epoch cannot be removed: something else lies in it", "epoch", root)
			continue
		}
		if err := p.do(func() error { return errors.Join(remove(filepath.Join(root, recordFile)), remove(root)) }); err != nil {
			return fmt.Errorf("remove epoch %s: %w", epoch, err)
		}
	}
	return nil
}

// record writes down for the epochs without a record which writers are registered now, after the last move: one that comes
// later finds nothing of what was moved. It is whole or not there.
func (p *purge) record() error {
	if len(p.open) == 0 {
		return nil
	}
	p.step(StepWriters, "")
	sessions, err := p.repo.Sessions()
	if err != nil {
		return err
	}
	text := recordFormat + "\n"
	for _, s := range sessions {
		if s.Kind == kindWriter {
			text += writerPrefix + s.ID + "\n"
		}
	}
	text += recordEnd + "\n"
	for _, epoch := range p.open {
		p.step(StepRecord, epoch)
		path := p.repo.path(dir.Limbo, epoch, recordFile)
		err := p.do(func() error {
			if err := remove(path + ".new"); err != nil {
				return err
			}
			if err := p.repo.Ops.WriteFile(path+".new", []byte(text), 0o640); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		})
		if err != nil {
			return fmt.Errorf("write the record of epoch %s, which the next purge goes on with: %w", epoch, err)
		}
	}
	return nil
}

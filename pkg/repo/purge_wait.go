package repo

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"backy/pkg/object/dir"
)

// waitsFor lists the living writers that an epoch waits for.
func (p *purge) waitsFor(epoch string) ([]SessionInfo, error) {
	writers, _, err := p.repo.readRecord(epoch)
	if err != nil {
		return nil, err
	}
	list := []SessionInfo{}
	for _, id := range writers {
		s, err := p.repo.session(id)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !s.Alive {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// limbo tells what lies in limbo, and for whom it waits.
func (p *purge) limbo(ctx context.Context) ([]LimboEpoch, error) {
	epochs, err := p.repo.epochs()
	if err != nil {
		return nil, err
	}
	list := []LimboEpoch{}
	for _, epoch := range epochs {
		e := LimboEpoch{Epoch: epoch}
		err := filepath.WalkDir(p.repo.path(dir.Limbo, epoch), func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				err = context.Cause(ctx)
			}
			if err != nil || !strings.HasSuffix(path, ".zst") {
				return err
			}
			info, err := d.Info()
			if err == nil {
				e.Amount.add(info.Size())
			}
			return err
		})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue // a dry run beside a purge
		}
		if err == nil {
			e.For, err = p.waitsFor(epoch)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// Package dir is an object store on directories: one file an object, under its key.
//
// Under its root lie the kinds' folders (chunks, maps) with the objects in place, and limbo, whose epochs hold
// objects on their way out under keys of their own. Only purge moves objects there and back. An object in limbo is not
// there for a look-up, but who reads it gets it.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"backy/pkg/object"
)

// Limbo is the folder of the epochs.
const Limbo = "limbo"

// maxFile is where Get stops to read: well over the largest frame, so that a file grown by damage costs no memory.
const maxFile = 32 << 20

// Pool reads the objects below a directory.
type Pool struct{ root string }

// Open returns the pool below root. Nothing is looked at yet.
func Open(root string) *Pool { return &Pool{root} }

// Path is where the object is kept when it is in place.
func (p *Pool) Path(key object.Key) string {
	return filepath.Join(p.root, filepath.FromSlash(key.String()))
}

// Has implements object.Haser. It looks in place alone.
func (p *Pool) Has(_ context.Context, key object.Key) (bool, error) {
	_, err := os.Lstat(p.Path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Get implements object.Getter. An object that is not in place may just be moved to limbo, or back: so it is looked
// for in place, in limbo, and in place again.
func (p *Pool) Get(_ context.Context, key object.Key, buf []byte) ([]byte, error) {
	f, err := p.open(key)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	return read(f, buf)
}

func (p *Pool) open(key object.Key) (*os.File, error) {
	f, err := os.Open(p.Path(key))
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	epochs, lerr := os.ReadDir(filepath.Join(p.root, Limbo))
	if lerr != nil && !errors.Is(lerr, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for %s in limbo: %w", key, lerr)
	}
	for _, epoch := range epochs {
		f, err := os.Open(filepath.Join(p.root, Limbo, epoch.Name(), filepath.FromSlash(key.String())))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return os.Open(p.Path(key))
}

// read reads the whole of f into buf[:0], in as few reads as its size tells.
func read(f *os.File, buf []byte) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return buf, err
	}
	if want := min(info.Size(), maxFile); int64(cap(buf)) <= want {
		buf = make([]byte, 0, want+want/8+1)
	}
	buf = buf[:0]
	for len(buf) < maxFile {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := f.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}

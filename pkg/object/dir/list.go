package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"backy/pkg/object"
)

// Prefixes is into how many folders the names of a kind are divided: by their first three hex digits.
const Prefixes = 1 << 12

// List returns the keys of the objects of a kind that are in place under one prefix, 0 to Prefixes-1, in the order of
// their names. What is no object's file is passed over.
func (p *Pool) List(kind object.Kind, prefix int) ([]object.Key, error) {
	return list(p.root, kind, prefix)
}

// ListLimbo is List for the objects in limbo, whatever the epoch. One may be told twice.
func (p *Pool) ListLimbo(kind object.Kind, prefix int) ([]object.Key, error) {
	epochs, err := os.ReadDir(filepath.Join(p.root, Limbo))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list limbo: %w", err)
	}
	var keys []object.Key
	for _, epoch := range epochs {
		more, err := list(filepath.Join(p.root, Limbo, epoch.Name()), kind, prefix)
		if err != nil && !errors.Is(err, unix.ENOTDIR) {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

func list(root string, kind object.Kind, prefix int) ([]object.Key, error) {
	folder := fmt.Sprintf("%s/%03x", kind, prefix)
	entries, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(folder)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	keys := make([]object.Key, 0, len(entries))
	for _, e := range entries {
		if key, err := object.ParseKey(folder + "/" + e.Name()); err == nil {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

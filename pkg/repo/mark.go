package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"backy/pkg/keyval"
	"backy/pkg/object"
)

// Marks are the objects known to be bad: what lies in .backy/bad, as it was when it was listed. A marked object counts
// as absent for dedup, and the next good copy replaces it.
type Marks map[object.Key]bool

// Marks lists the marks.
func (r *Repo) Marks() (Marks, error) {
	entries, err := os.ReadDir(r.path("bad"))
	if err != nil {
		return nil, fmt.Errorf("list bad objects: %w", err)
	}
	marks := Marks{}
	for _, e := range entries {
		name, err := object.ParseName(e.Name())
		if err != nil {
			continue // a mark in the making
		}
		text, err := readSmall(r.path("bad", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // healed since
		}
		if err != nil {
			return nil, fmt.Errorf("list bad objects: %w", err)
		}
		p, err := keyval.Parse(text)
		kind := object.Chunk
		if p.Get("kind") == object.Page.String() {
			kind = object.Page
		}
		if err != nil { // a mark that cannot be read marks either kind
			marks[object.Key{Kind: object.Page, Name: name}] = true
		}
		marks[object.Key{Kind: kind, Name: name}] = true
	}
	return marks, nil
}

// Mark notes that an object is bad, and what is wrong with it. It stays in place.
func (r *Repo) Mark(key object.Key, reason string) error {
	var p keyval.Pairs
	p.SetInt("format", 1)
	p.Set("kind", key.Kind.String())
	p.Set("found", r.Now().UTC().Format(time.RFC3339))
	p.Set("by", whoami())
	p.Set("what", reason)
	temp := r.path("bad", "."+NewID())
	err := r.Ops.WriteFile(temp, p.Bytes(), 0o640)
	if err == nil {
		err = os.Rename(temp, r.path("bad", key.Name.String()))
	}
	if err == nil {
		err = r.Ops.DirPath(r.path("bad"))
	}
	if err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("mark %s as bad: %w", key, err)
	}
	return nil
}

// unmark removes the mark of an object that was read back and is good.
func (r *Repo) unmark(key object.Key) error {
	if err := os.Remove(r.path("bad", key.Name.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mark of %s: %w", key, err)
	}
	return nil
}

// MarkBad marks the object that an error is about: one that does not decode to its name, or is not there. It returns
// an error with exit code 75, for the next run will read what it held from the source; any other error as it is.
func (r *Repo) MarkBad(err error, missing object.Key) error {
	var bad *object.BadError
	key := missing
	switch {
	case errors.As(err, &bad):
		key = bad.Key
	case !errors.Is(err, object.ErrNotExist):
		return err
	}
	if merr := r.Mark(key, err.Error()); merr != nil {
		return fmt.Errorf("%w; and %w", err, merr)
	}
	return again("%w; it is marked as bad, and the next run reads what it held from the source", err)
}

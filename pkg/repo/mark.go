package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"backy/pkg/keyval"
	"backy/pkg/object"
)

// Marks are the objects known to be bad: what lies in .backy/bad, as it was when it was listed. A marked object counts
// as absent for dedup, and the next good copy replaces it.
type Marks map[object.Key]bool

// Place is where a revision reaches an object.
type Place struct {
	Job      string `json:"job"`
	Revision string `json:"revision"`
	Range
}

func (p Place) String() string { return p.Job + " " + p.Revision + " " + p.Range.String() }

// maxPlaces is how many places a mark lists: enough to know where to look, and well below what such a file may have.
const maxPlaces = 1000

// Bad is what a mark says of an object.
type Bad struct {
	Key    object.Key
	Found  time.Time
	By     string      // which process found it
	Reason string      // what is wrong with it
	Got    object.Name // the hash of what is there in its place; zero where that has none
	Places []Place     // revisions and ranges that reach it, as far as they were looked for: at most 1000
	More   int64       // places that are not listed
}

// Marks lists the marks.
func (r *Repo) Marks() (Marks, error) {
	marks := Marks{}
	return marks, r.eachMark(func(b Bad, err error) error {
		marks[b.Key] = true
		if err != nil { // a mark that cannot be understood marks either kind
			marks[object.Key{Kind: object.Page, Name: b.Key.Name}] = true
		}
		return nil
	})
}

// isMarked reports whether an object is marked now.
func (r *Repo) isMarked(key object.Key) (bool, error) {
	_, err := os.Lstat(r.path("bad", key.Name.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Bads lists the marks with what they say. Of one that cannot be understood that is the key alone, as of a chunk.
func (r *Repo) Bads() ([]Bad, error) {
	var list []Bad
	return list, r.eachMark(func(b Bad, _ error) error {
		list = append(list, b)
		return nil
	})
}

// eachMark calls f for each mark, with an error where it cannot be understood.
func (r *Repo) eachMark(f func(Bad, error) error) error {
	entries, err := os.ReadDir(r.path("bad"))
	if err != nil {
		return fmt.Errorf("list bad objects: %w", err)
	}
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
			return fmt.Errorf("list bad objects: %w", err)
		}
		b, err := parseBad(name, text)
		if err := f(b, err); err != nil {
			return err
		}
	}
	return nil
}

// Mark notes that an object is bad, and what is wrong with it. It stays in place.
func (r *Repo) Mark(key object.Key, reason string) error {
	return r.NoteBad(Bad{Key: key, Reason: reason})
}

// NoteBad notes that an object is bad, in place of an older mark. It is durable when NoteBad returns. Found and By are set
// here where they are not given.
func (r *Repo) NoteBad(b Bad) error {
	if b.Found.IsZero() {
		b.Found = r.Now()
	}
	if b.By == "" {
		b.By = whoami()
	}
	temp := r.path("bad", "."+NewID())
	err := r.Ops.WriteFile(temp, b.bytes(), 0o640)
	if err == nil {
		err = os.Rename(temp, r.path("bad", b.Key.Name.String()))
	}
	if err == nil {
		err = r.Ops.DirPath(r.path("bad"))
	}
	if err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("mark %s as bad: %w", b.Key, err)
	}
	return nil
}

func (b Bad) bytes() []byte {
	var p keyval.Pairs
	p.SetInt("format", 1)
	p.Set("kind", b.Key.Kind.String())
	p.Set("found", b.Found.UTC().Format(time.RFC3339))
	p.Set("by", b.By)
	p.Set("what", b.Reason)
	p.Set("want", b.Key.Name.String())
	if !b.Got.IsZero() {
		p.Set("got", b.Got.String())
	}
	if n := len(b.Places); n > maxPlaces {
		b.Places, b.More = b.Places[:maxPlaces], b.More+int64(n-maxPlaces)
	}
	if len(b.Places) > 0 {
		list := make([]string, len(b.Places))
		for i, place := range b.Places {
			list[i] = place.String()
		}
		p.SetList("places", list)
	}
	if b.More > 0 {
		p.SetInt("more", b.More)
	}
	return p.Bytes()
}

// parseBad reads a mark. Only the kind has to be understood; what else cannot be is left out.
func parseBad(name object.Name, text []byte) (Bad, error) {
	b := Bad{Key: object.Key{Kind: object.Chunk, Name: name}}
	p, err := keyval.Parse(text)
	if err != nil {
		return b, err
	}
	switch p.Get("kind") {
	case object.Chunk.String():
	case object.Page.String():
		b.Key.Kind = object.Page
	default:
		return b, fmt.Errorf("kind: %q is not known", p.Get("kind"))
	}
	b.Found, _ = time.Parse(time.RFC3339, p.Get("found"))
	b.By, b.Reason = p.Get("by"), p.Get("what")
	b.Got, _ = object.ParseName(p.Get("got"))
	b.More, _ = p.Int("more")
	for _, text := range p.List("places") {
		if words := strings.Split(text, " "); len(words) == 3 {
			if at, err := ParseRange(words[2]); err == nil {
				b.Places = append(b.Places, Place{words[0], words[1], at})
			}
		}
	}
	return b, nil
}

// Unmark removes the mark of an object that was read back and is good. An object that has none is no error.
func (r *Repo) Unmark(key object.Key) error {
	if err := os.Remove(r.path("bad", key.Name.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mark of %s: %w", key, err)
	}
	return nil
}

// MarkBad marks the object that an error is about: one that does not decode to its name, or is not there. It returns
// an error with exit code 75, for the next run will read what it held from the source; any other error as it is.
func (r *Repo) MarkBad(err error, missing object.Key) error {
	var bad *object.BadError
	b := Bad{Key: missing, Reason: err.Error()}
	switch {
	case errors.As(err, &bad):
		b.Key, b.Got = bad.Key, bad.Got
	case !errors.Is(err, object.ErrNotExist):
		return err
	}
	if merr := r.NoteBad(b); merr != nil {
		return fmt.Errorf("%w; and %w", err, merr)
	}
	return again("%w; it is marked as bad, and the next run reads what it held from the source", err)
}

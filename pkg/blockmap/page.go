// Package blockmap is the map from a disk's block numbers to chunk names: a tree of pages in an object store.
//
// A page is text: up to 1024 lines, each the name of a chunk (lowest level) or of a page (above), or "-" where all is
// zero. It is canonical, so that equal maps have equal roots: the height is the least h ≥ 1 with 1024^h ≥ blocks,
// trailing "-" lines are dropped, and a page that would be empty is "-" in its parent. As the root it is no page at
// all: the zero name. Two maps differ exactly where page names differ.
package blockmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"backy/pkg/object"
)

// Fanout is the number of lines of a page.
const Fanout = 1024

// MaxPage is the most bytes that a page has.
const MaxPage = Fanout * (2*len(object.Name{}) + 1)

// maxHeight is enough for every disk: 1024^5 blocks of 256 KiB are more than 2^63 bytes.
const maxHeight = 5

// Map is a block map: the tree below a root, for a disk of Size bytes in blocks of BlockSize bytes.
type Map struct {
	Root      object.Name // zero: the whole disk is zero
	Size      int64
	BlockSize int64
}

// Blocks is the number of blocks, the last of which may be padded.
func (m Map) Blocks() int64 {
	n := m.Size / m.BlockSize
	if m.Size%m.BlockSize > 0 {
		n++
	}
	return n
}

// Height is the number of levels, 1 for up to 1024 blocks.
func (m Map) Height() int {
	h := 1
	for span(h) < m.Blocks() {
		h++
	}
	return h
}

// Range is the bytes of the disk that the blocks from, up to but not with to, hold.
func (m Map) Range(from, to int64) (offset, length int64) {
	offset = from * m.BlockSize
	return offset, min(to*m.BlockSize, m.Size) - offset
}

// span is the number of blocks below a page of this level, 1 for level 0.
func span(level int) int64 { return 1 << (10 * level) }

// Lines are a page's lines, without trailing zero names. They are not to be changed: pages are shared.
type Lines []object.Name

func (l Lines) at(i int64) object.Name {
	if i < int64(len(l)) {
		return l[i]
	}
	return object.Name{}
}

func trim(l Lines) Lines {
	for len(l) > 0 && l[len(l)-1].IsZero() {
		l = l[:len(l)-1]
	}
	return l
}

// Text is the page's content.
func (l Lines) Text() []byte {
	text := make([]byte, 0, len(l)*(2*len(object.Name{})+1))
	for _, name := range l {
		if name.IsZero() {
			text = append(text, '-')
		} else {
			text = fmt.Appendf(text, "%x", name[:])
		}
		text = append(text, '\n')
	}
	return text
}

// ParsePage reads a page's content and refuses a form that Text would not write.
func ParsePage(text []byte) (Lines, error) {
	if len(text) == 0 || text[len(text)-1] != '\n' {
		return nil, errors.New("a page's last line is cut off")
	}
	lines := make(Lines, 0, bytes.Count(text, []byte("\n")))
	if cap(lines) > Fanout {
		return nil, fmt.Errorf("a page has %d lines, more than %d", cap(lines), Fanout)
	}
	for line := range bytes.Lines(text) {
		line = line[:len(line)-1]
		if string(line) == "-" {
			lines = append(lines, object.Name{})
			continue
		}
		name, err := object.ParseName(string(line))
		if err == nil && name.IsZero() {
			err = errors.New("a zero name is written -")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of a page: %w", len(lines)+1, err)
		}
		lines = append(lines, name)
	}
	if lines[len(lines)-1].IsZero() {
		return nil, errors.New("a page ends in an empty line, which is left out")
	}
	return lines, nil
}

// Pages reads pages from a store. It is for one goroutine.
type Pages struct {
	store   object.Getter
	dec     *object.Decoder
	frame   []byte
	content []byte
}

// NewPages returns a reader of pages.
func NewPages(store object.Getter) (*Pages, error) {
	dec, err := object.NewDecoder(MaxPage)
	return &Pages{store: store, dec: dec, content: make([]byte, 0, MaxPage)}, err
}

// Get reads one page. One that is damaged, or in a form that is not canonical, is an *object.BadError, a missing one
// object.ErrNotExist.
func (p *Pages) Get(ctx context.Context, name object.Name) (Lines, error) {
	key := object.Key{Kind: object.Page, Name: name}
	content, frame, err := object.Fetch(ctx, p.store, p.dec, key, p.frame, p.content)
	p.frame, p.content = frame, content
	if err != nil {
		return nil, err
	}
	lines, err := ParsePage(content)
	if err != nil {
		return nil, &object.BadError{Key: key, Reason: err.Error()}
	}
	return lines, nil
}

// Package object holds what a repository is made of: chunks and pages, each named by the SHA-256 of its content and
// kept as one zstd frame; the Store that keeps them; and the tar stream that carries them.
package object

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Name is the SHA-256 of an object's uncompressed content. The zero Name names nothing: an all-zero block.
type Name [sha256.Size]byte

// Sum is the name of this content.
func Sum(content []byte) Name { return sha256.Sum256(content) }

// ParseName reads 64 lower-case hex digits.
func ParseName(s string) (Name, error) {
	var n Name
	if len(s) != 2*len(n) || strings.ToLower(s) != s {
		return n, fmt.Errorf("%.80q is no object name: want 64 lower-case hex digits", s)
	}
	if _, err := hex.Decode(n[:], []byte(s)); err != nil {
		return Name{}, fmt.Errorf("%.80q is no object name: %w", s, err)
	}
	return n, nil
}

func (n Name) String() string { return hex.EncodeToString(n[:]) }

// IsZero reports whether the name names nothing.
func (n Name) IsZero() bool { return n == Name{} }

// Kind tells a chunk from a page.
type Kind uint8

// The kinds of objects.
const (
	Chunk Kind = iota // a block's content
	Page              // a piece of a block map
)

// Kinds are all kinds, in the order in which they become visible: a page comes after what it names.
var Kinds = []Kind{Chunk, Page}

// String is the kind's folder in a repository and in a stream.
func (k Kind) String() string {
	if k == Page {
		return "maps"
	}
	return "chunks"
}

// Key is where an object is kept: chunks/3fa/3fa9….zst.
type Key struct {
	Kind Kind
	Name Name
}

const suffix = ".zst"

func (k Key) String() string {
	hex := k.Name.String()
	return k.Kind.String() + "/" + hex[:3] + "/" + hex + suffix
}

// ParseKey reads what String writes, and nothing else.
func ParseKey(s string) (Key, error) {
	for _, kind := range Kinds {
		rest, ok := strings.CutPrefix(s, kind.String()+"/")
		if !ok {
			continue
		}
		_, file, _ := strings.Cut(rest, "/")
		name, err := ParseName(strings.TrimSuffix(file, suffix))
		if key := (Key{kind, name}); err == nil && key.String() == s {
			return key, nil
		}
	}
	return Key{}, fmt.Errorf("%.120q is no object key", s)
}

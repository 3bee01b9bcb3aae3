package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"backy/pkg/object"
	"backy/pkg/object/dir"
)

// listing is what was in place, and in the ripe epochs, when a purge looked, with a mark for each object: of the chunks
// under the prefixes from, up to but not with to, and, in the first part, of all pages to be moved or freed. The pages are
// in each part, for their marks also say which of them were read.
//
// A chunk takes 8 bytes here, beside its prefix: where two have those in common, a mark of one keeps the other, too. A page
// has its whole name: one that is taken for another would not be read.
type listing struct {
	from, to int
	chunks   []bucket[uint64] // by prefix less from
	pages    []bucket[object.Name]

	mu   sync.Mutex
	late map[object.Name]bool // pages that are not listed and were read
}

// bucket holds the objects under one prefix, sorted.
type bucket[K any] struct {
	keys    []K
	inPlace []uint64 // bits
	marked  []uint64
}

// lister lists the objects under a prefix: those in place, and those in ripe epochs.
type lister func(kind object.Kind, prefix int) (inPlace, limbo []object.Key, err error)

// list lists the pages, and as many chunks as fit into the memory, but those of one prefix at least.
func list(ctx context.Context, from int, memory int64, source lister) (*listing, error) {
	least := memory / 4
	l := &listing{from: from, to: from, pages: make([]bucket[object.Name], dir.Prefixes), late: map[object.Name]bool{}}
	for prefix := range l.pages {
		inPlace, limbo, err := source(object.Page, prefix)
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		l.pages[prefix] = bucketOf(inPlace, limbo, full, compareNames)
		memory -= int64(len(l.pages[prefix].keys)) * int64(len(object.Name{}))
	}
	memory = max(memory, least) // else many pages would make many parts, each of which reads them all
	for l.to < dir.Prefixes && (memory > 0 || l.to == from) {
		inPlace, limbo, err := source(object.Chunk, l.to)
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		b := bucketOf(inPlace, limbo, short, compareShort)
		memory -= int64(len(b.keys)) * 8
		l.chunks = append(l.chunks, b)
		l.to++
	}
	return l, nil
}

func full(n object.Name) object.Name { return n }

// short is what tells the chunks of one prefix apart: bits of the name behind the prefix.
func short(n object.Name) uint64 { return binary.BigEndian.Uint64(n[2:]) }

func compareNames(a, b object.Name) int { return bytes.Compare(a[:], b[:]) }

func compareShort(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// prefix is the number of the folder that an object of this name lies in.
func prefix(n object.Name) int { return int(n[0])<<4 | int(n[1])>>4 }

func bucketOf[K comparable](inPlace, limbo []object.Key, key func(object.Name) K, compare func(a, b K) int) bucket[K] {
	if len(inPlace)+len(limbo) == 0 {
		return bucket[K]{}
	}
	b := bucket[K]{keys: make([]K, 0, len(inPlace)+len(limbo))}
	for _, list := range [][]object.Key{inPlace, limbo} {
		for _, k := range list {
			b.keys = append(b.keys, key(k.Name))
		}
	}
	slices.SortFunc(b.keys, compare)
	b.keys = slices.Compact(b.keys)
	words := (len(b.keys) + 63) / 64
	b.inPlace, b.marked = make([]uint64, words), make([]uint64, words)
	for _, k := range inPlace {
		i, _ := slices.BinarySearchFunc(b.keys, key(k.Name), compare)
		b.inPlace[i/64] |= 1 << (i % 64)
	}
	return b
}

// mark marks a key and reports whether it is listed, and whether it was marked before. Safe for concurrent use.
func (b *bucket[K]) mark(key K, compare func(a, b K) int) (listed, before bool) {
	i, ok := slices.BinarySearchFunc(b.keys, key, compare)
	if !ok {
		return false, false
	}
	bit := uint64(1) << (i % 64)
	return true, atomic.OrUint64(&b.marked[i/64], bit)&bit != 0
}

// state reports what is known of a key.
func (b *bucket[K]) state(key K, compare func(a, b K) int) (listed, inPlace, marked bool) {
	i, ok := slices.BinarySearchFunc(b.keys, key, compare)
	if !ok {
		return false, false, false
	}
	bit := uint64(1) << (i % 64)
	return true, b.inPlace[i/64]&bit != 0, atomic.LoadUint64(&b.marked[i/64])&bit != 0
}

// markChunk marks a chunk, if it belongs to this part. Safe for concurrent use.
func (l *listing) markChunk(n object.Name) {
	if at := prefix(n); at >= l.from && at < l.to {
		l.chunks[at-l.from].mark(short(n), compareShort)
	}
}

// markPage marks a page and reports whether it was marked before. Safe for concurrent use.
func (l *listing) markPage(n object.Name) (before bool) {
	listed, before := l.pages[prefix(n)].mark(n, compareNames)
	if listed {
		return before
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.late[n]
	l.late[n] = true
	return before
}

// state reports what is known of an object: what is not listed is left alone.
func (l *listing) state(key object.Key) (listed, inPlace, marked bool) {
	at := prefix(key.Name)
	if key.Kind == object.Page {
		return l.pages[at].state(key.Name, compareNames)
	}
	if at < l.from || at >= l.to {
		return false, false, false
	}
	return l.chunks[at-l.from].state(short(key.Name), compareShort)
}

// folders calls f for each folder of this part: those of the chunks, and in the first part those of the pages, too.
func (l *listing) folders(ctx context.Context, f func(kind object.Kind, prefix int) error) error {
	for _, kind := range []object.Kind{object.Page, object.Chunk} {
		from, to := l.from, l.to
		if kind == object.Page {
			from, to = 0, dir.Prefixes
			if l.from > 0 {
				continue
			}
		}
		for at := from; at < to; at++ {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := f(kind, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// count is how many objects of this part were in place, and how many of these are not marked.
func (l *listing) count() (all, unreached int64) {
	add := func(inPlace, marked []uint64) {
		for i := range inPlace {
			all += int64(bits.OnesCount64(inPlace[i]))
			unreached += int64(bits.OnesCount64(inPlace[i] &^ marked[i]))
		}
	}
	for _, b := range l.chunks {
		add(b.inPlace, b.marked)
	}
	if l.from == 0 {
		for _, b := range l.pages {
			add(b.inPlace, b.marked)
		}
	}
	return all, unreached
}

// pageCount is how many pages are listed.
func (l *listing) pageCount() (n int64) {
	for _, b := range l.pages {
		n += int64(len(b.keys))
	}
	return n
}

package repo

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"

	"backy/pkg/object"
	"backy/pkg/object/dir"
)

// synthetic lists objects that are nowhere: so many under each prefix, the same each time.
func synthetic(chunks, pages int) lister {
	return func(kind object.Kind, prefix int) (inPlace, limbo []object.Key, err error) {
		n := chunks
		if kind == object.Page {
			n = pages
		}
		rnd := rand.New(rand.NewPCG(uint64(prefix), uint64(kind)))
		keys := make([]object.Key, n)
		for i := range keys {
			keys[i].Kind = kind
			for at := 0; at < len(keys[i].Name); at += 8 {
				binary.BigEndian.PutUint64(keys[i].Name[at:], rnd.Uint64())
			}
			keys[i].Name[0] = byte(prefix >> 4)
			keys[i].Name[1] = byte(prefix<<4) | keys[i].Name[1]&0xf
		}
		return keys, nil, nil
	}
}

// TestSoakListingOfManyObjects goes through 100 million objects, one in 50 of them a page, as purge does: with
// BACKY_SOAK=full; else through a hundredth of them with a hundredth of the memory.
func TestSoakListingOfManyObjects(t *testing.T) {
	const chunks, pages = 24000, 500 // under each prefix: 98 and 2 million
	scale, limit := 100, uint64(48<<20)
	if os.Getenv("BACKY_SOAK") == "full" {
		scale, limit = 1, 1<<30
	}
	source := synthetic(chunks/scale, pages/scale)
	var most uint64
	var all, unreached int64
	parts := 0
	for from := 0; from < dir.Prefixes; parts++ {
		l, err := list(ctx, from, purgeMemory/int64(scale), source)
		if err != nil {
			t.Fatal(err)
		}
		// Every second object is reached, in no order.
		for prefix := range dir.Prefixes {
			for _, kind := range object.Kinds {
				keys, _, _ := source(kind, prefix)
				for _, key := range keys {
					if key.Name[31]&1 == 0 {
						continue
					}
					if kind == object.Page {
						l.markPage(key.Name)
					} else {
						l.markChunk(key.Name)
					}
				}
			}
			if prefix%512 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapSys-m.HeapReleased)
			}
		}
		n, gone := l.count()
		all, unreached = all+n, unreached+gone
		if len(l.late) > 0 {
			t.Errorf("%d pages were not listed", len(l.late))
		}
		from = l.to
	}
	if want := int64(dir.Prefixes * (chunks/scale + pages/scale)); all != want || unreached*100 < want*49 || unreached*100 > want*51 {
		t.Errorf("%d of %d objects are not reached; want about half of %d", unreached, all, want)
	}
	if parts < 2 || most > limit {
		t.Errorf("%d parts took %d MiB", parts, most>>20)
	}
	t.Logf("%d objects in %d parts, with at most %d MiB", all, parts, most>>20)
}

// What is marked, and what is in place, is right for each object, also for those that two lists have.
func TestListing(t *testing.T) {
	source := synthetic(40, 3)
	both := func(kind object.Kind, prefix int) (inPlace, limbo []object.Key, err error) {
		keys, _, _ := source(kind, prefix)
		n := len(keys)
		return keys[:n*2/3], keys[n/3:], nil
	}
	l, err := list(ctx, 0, 1<<30, both)
	if err != nil {
		t.Fatal(err)
	}
	keys, _, _ := source(object.Chunk, 0xabc)
	pages, _, _ := source(object.Page, 0xabc)
	l.markChunk(keys[7].Name)
	if l.markPage(pages[0].Name) || !l.markPage(pages[0].Name) {
		t.Error("a page was marked before, or not afterwards")
	}
	unknown := object.Sum([]byte("unknown"))
	if l.markPage(unknown) || !l.markPage(unknown) {
		t.Error("a page that is not listed was marked before, or not afterwards")
	}
	for i, key := range keys {
		listed, inPlace, marked := l.state(key)
		if !listed || inPlace != (i < len(keys)*2/3) || marked != (i == 7) {
			t.Errorf("chunk %d: %v, %v, %v", i, listed, inPlace, marked)
		}
	}
	if listed, _, _ := l.state(object.Key{Name: unknown}); listed {
		t.Error("an unknown chunk is listed")
	}
	all, unreached := l.count()
	if want := int64(dir.Prefixes * (40*2/3 + 2)); all != want || unreached != want-2 {
		t.Errorf("%d, %d", all, unreached)
	}
	if !slices.IsSorted(l.chunks[0xabc].keys) {
		t.Error("not sorted")
	}
}

package blockmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"backy/pkg/object"
	"backy/pkg/object/mem"
)

const blockSize = 1 << 18

var ctx = context.Background()

func chunk(s string) object.Name { return object.Sum([]byte(s)) }

// world is a store with maps, and beside each the plain truth about it.
type world struct {
	t       testing.TB
	store   *mem.Store
	emitted int
}

func newWorld(t testing.TB) *world { return &world{t: t, store: new(mem.Store)} }

func (w *world) cursor(m Map) *Cursor {
	w.t.Helper()
	pages, err := NewPages(w.store)
	if err != nil {
		w.t.Fatal(err)
	}
	return NewCursor(pages, m)
}

func (w *world) emit(name object.Name, text []byte) error {
	w.emitted++
	e, err := object.NewEncoder()
	if err != nil {
		return err
	}
	frame, err := e.Encode(nil, text)
	if err != nil {
		return err
	}
	if lines, err := ParsePage(text); err != nil || !bytes.Equal(lines.Text(), text) || object.Sum(text) != name {
		w.t.Errorf("a page that is none: %v", err)
	}
	return w.store.Put(ctx, object.Key{Kind: object.Page, Name: name}, frame)
}

// edit sets these blocks, zero names by runs, and makes a map of the given number of blocks.
func (w *world) edit(base Map, blocks int64, changes map[int64]object.Name) Map {
	w.t.Helper()
	e := NewEditor(w.cursor(base), blocks*blockSize, w.emit)
	for _, b := range slices.Sorted(maps.Keys(changes)) {
		if err := e.Set(ctx, b, changes[b]); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := e.Finish(ctx); err != nil {
		w.t.Fatal(err)
	}
	return e.Map
}

func (w *world) content(m Map) map[int64]object.Name {
	w.t.Helper()
	got := map[int64]object.Name{}
	c := w.cursor(m)
	for b := int64(0); ; b++ {
		next, name, err := c.Next(ctx, b)
		if err != nil {
			w.t.Fatal(err)
		}
		if next == m.Blocks() {
			break
		}
		if at, err := c.At(ctx, next); err != nil || at != name || next < b {
			w.t.Fatalf("block %d after %d: next says %s, at says %s, %v", next, b, name, at, err)
		}
		got[next], b = name, next
	}
	return got
}

func TestPageForm(t *testing.T) {
	a := chunk("a").String()
	for _, bad := range []string{
		"", "-\n", a, a + "\n-\n", a + "\n\n", "\n", a + "\r\n", a + " \n", a[1:] + "\n", "-\n-\n", object.Name{}.String() + "\n",
		string(bytes.Repeat([]byte("-\n"), 1024)) + a + "\n",
	} {
		if _, err := ParsePage([]byte(bad)); err == nil {
			t.Errorf("%.70q was taken", bad)
		}
	}
	for _, good := range []string{a + "\n", "-\n" + a + "\n", string(bytes.Repeat([]byte("-\n"), 1023)) + a + "\n"} {
		if lines, err := ParsePage([]byte(good)); err != nil || string(lines.Text()) != good {
			t.Errorf("%.70q: %v", good, err)
		}
	}
}

func TestGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/page.golden")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	m := w.edit(Map{BlockSize: blockSize}, 5, map[int64]object.Name{0: chunk("zero"), 2: chunk("two")})
	if m.Root != object.Sum(text) {
		t.Errorf("root %s, golden %s", m.Root, object.Sum(text))
	}
}

func TestHeight(t *testing.T) {
	for blocks, want := range map[int64]int{0: 1, 1: 1, 1024: 1, 1025: 2, 1 << 20: 2, 1<<20 + 1: 3, 1 << 44: 5} {
		if got := (Map{Size: blocks * blockSize, BlockSize: blockSize}).Height(); got != want {
			t.Errorf("%d blocks: height %d, want %d", blocks, got, want)
		}
	}
}

// A map edited from a base is the same map as one made from nothing, whatever the sizes.
func TestEditIsCanonical(t *testing.T) {
	w, r := newWorld(t), rand.New(rand.NewPCG(1, 2))
	sizes := []int64{0, 1, 5, 1023, 1024, 1025, 3000, 1 << 20, 1<<20 + 7, 3 << 20}
	base, truth := Map{BlockSize: blockSize}, map[int64]object.Name{}
	for round := range 300 {
		blocks := sizes[r.IntN(len(sizes))]
		maps.DeleteFunc(truth, func(b int64, _ object.Name) bool { return b >= blocks })
		e := NewEditor(w.cursor(base), blocks*blockSize, w.emit)
		for b := int64(0); b < blocks; b += 1 + r.Int64N(max(1, blocks/8)) {
			if r.IntN(3) == 0 {
				to := min(blocks, b+r.Int64N(blocks))
				if err := e.Zero(ctx, b, to); err != nil {
					t.Fatal(err)
				}
				maps.DeleteFunc(truth, func(k int64, _ object.Name) bool { return k >= b && k < to })
				b = max(b, to-1)
				continue
			}
			truth[b] = chunk(fmt.Sprint(r.IntN(50)))
			if err := e.Set(ctx, b, truth[b]); err != nil {
				t.Fatal(err)
			}
		}
		root, err := e.Finish(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.content(e.Map); !maps.Equal(got, truth) {
			t.Fatalf("round %d, %d blocks: %d names, want %d", round, blocks, len(got), len(truth))
		}
		if fresh := w.edit(Map{BlockSize: blockSize}, blocks, truth); fresh.Root != root {
			t.Fatalf("round %d, %d blocks: root differs from that of a fresh map", round, blocks)
		}
		compare(t, w, base, e.Map)
		base = e.Map
	}
}

// compare checks Compare against the contents.
func compare(t *testing.T, w *world, old, new Map) {
	t.Helper()
	before, after := w.content(old), w.content(new)
	last := int64(-1)
	err := Compare(ctx, w.cursor(old), w.cursor(new), Visitor{Block: func(b int64, from, to object.Name) error {
		if b <= last || before[b] != from || after[b] != to || from == to {
			t.Fatalf("block %d after %d: %s to %s", b, last, from, to)
		}
		delete(before, b)
		delete(after, b)
		last = b
		return nil
	}})
	maps.DeleteFunc(before, func(b int64, _ object.Name) bool { return b >= new.Blocks() })
	if err != nil || !maps.Equal(before, after) {
		t.Fatalf("compare left %d and %d names: %v", len(before), len(after), err)
	}
}

func TestCostFollowsChange(t *testing.T) {
	w := newWorld(t)
	big := w.edit(Map{BlockSize: blockSize}, 100<<20, map[int64]object.Name{5: chunk("a"), 50 << 20: chunk("b"), 99 << 20: chunk("c")})
	w.emitted = 0
	next := w.edit(big, 100<<20, map[int64]object.Name{50<<20 + 1: chunk("d")})
	if w.emitted != 3 {
		t.Errorf("one changed block made %d pages, want one a level: 3", w.emitted)
	}
	e := NewEditor(w.cursor(next), 100<<20*blockSize, w.emit)
	if err := e.Zero(ctx, 0, 100<<20); err != nil {
		t.Fatal(err)
	}
	if root, err := e.Finish(ctx); err != nil || !root.IsZero() {
		t.Errorf("all zero: %s, %v", root, err)
	}
	same := w.edit(next, 100<<20, map[int64]object.Name{5: chunk("a")})
	if w.emitted != 3 || same.Root != next.Root {
		t.Errorf("a block set to what it was made %d pages", w.emitted-3)
	}
}

func TestOutOfOrder(t *testing.T) {
	w := newWorld(t)
	e := NewEditor(w.cursor(Map{BlockSize: blockSize}), 10*blockSize, w.emit)
	if err := e.Set(ctx, 5, chunk("x")); err != nil {
		t.Fatal(err)
	}
	for _, b := range []int64{5, 4, 10} {
		if e.Set(ctx, b, chunk("y")) == nil {
			t.Errorf("block %d after 5 of 10 was taken", b)
		}
	}
}

// A base whose page is lost can still be built on if all below the page is set anew.
func TestLostPage(t *testing.T) {
	w := newWorld(t)
	truth := map[int64]object.Name{}
	for b := int64(0); b < 3000; b += 100 {
		truth[b] = chunk(fmt.Sprint(b))
	}
	m := w.edit(Map{BlockSize: blockSize}, 3000, truth)
	var second object.Name
	if err := Walk(ctx, w.cursor(m).pages, m, Visitor{Page: func(level int, name object.Name) (bool, error) {
		if level == 1 && second.IsZero() {
			second = name
		}
		return true, nil
	}}); err != nil {
		t.Fatal(err)
	}
	w.store.Delete(object.Key{Kind: object.Page, Name: second})

	var lost []PageError
	seen := 0
	if err := Walk(ctx, w.cursor(m).pages, m, Visitor{
		Block: func(int64, object.Name, object.Name) error { seen++; return nil },
		Lost:  func(e *PageError) error { lost = append(lost, *e); return nil },
	}); err != nil || len(lost) != 1 || lost[0].From != 0 || lost[0].To != 1024 || seen != 30-11 {
		t.Errorf("walk: %v, lost %v, seen %d", err, lost, seen)
	}
	if _, _, err := w.cursor(m).Next(ctx, 0); !errors.As(err, new(*PageError)) {
		t.Errorf("next: %v", err)
	}
	if b, _, err := w.cursor(m).Next(ctx, 1024); err != nil || b != 1100 {
		t.Errorf("next behind it: %d, %v", b, err)
	}
	e := NewEditor(w.cursor(m), 3000*blockSize, w.emit)
	if err := e.Set(ctx, 7, chunk("new")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Finish(ctx); !errors.As(err, new(*PageError)) {
		t.Errorf("a part of a lost page: %v", err)
	}
	e = NewEditor(w.cursor(m), 3000*blockSize, w.emit)
	for b := range int64(1024) {
		if err := e.Set(ctx, b, truth[b]); err != nil {
			t.Fatal(err)
		}
	}
	if root, err := e.Finish(ctx); err != nil || root != m.Root {
		t.Errorf("all of a lost page: %v", err)
	}
	if got := w.content(m); !maps.Equal(got, truth) {
		t.Error("the page did not come back")
	}
}

// FuzzPage: a page that is taken is written back to the byte.
func FuzzPage(f *testing.F) {
	f.Add([]byte(chunk("a").String() + "\n"))
	f.Add([]byte("-\n" + chunk("b").String() + "\n"))
	f.Add([]byte("-\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines, err := ParsePage(text)
		if err == nil && !bytes.Equal(lines.Text(), text) {
			t.Errorf("%q came back as %q", text, lines.Text())
		}
	})
}

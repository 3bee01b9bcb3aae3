package restore_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backy/pkg/blockmap"
	"backy/pkg/disk/file"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/restore"
)

// harm is what can happen to an object's file.
var harm = map[string]struct {
	do   func(t *testing.T, path string)
	says string
}{
	"flipped": {func(t *testing.T, path string) {
		b := read(t, path)
		b[len(b)/2] ^= 0x10
		must(t, os.WriteFile(path, b, 0o640))
	}, "is damaged: "},
	"shortened": {func(t *testing.T, path string) { must(t, os.Truncate(path, 50)) }, "is damaged: does not decode"},
	"emptied":   {func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, "is damaged: "},
	"missing":   {func(t *testing.T, path string) { must(t, os.Remove(path)) }, "is missing"},
	"grown": {func(t *testing.T, path string) {
		must(t, os.WriteFile(path, append(read(t, path), "and more"...), 0o640))
	}, "is damaged: does not decode"},
	"another object": {func(t *testing.T, path string) {
		e, err := object.NewEncoder()
		must(t, err)
		frame, err := e.Encode(nil, bytes.Repeat([]byte("another"), 1000))
		must(t, err)
		must(t, os.WriteFile(path, frame, 0o640))
	}, "is damaged: hash is "},
	"too large": {func(t *testing.T, path string) {
		e, err := object.NewEncoder()
		must(t, err)
		frame, err := e.Encode(nil, make([]byte, repo.MaxBlock+1))
		must(t, err)
		must(t, os.WriteFile(path, frame, 0o640))
	}, "is damaged: "},
}

// pages are the names of a revision's pages by level, first block first.
func (s *shop) pages(rev repo.Revision) map[int][]object.Key {
	p, err := blockmap.NewPages(s.Objects())
	must(s.t, err)
	keys := map[int][]object.Key{}
	must(s.t, blockmap.Walk(ctx, p, rev.Map(), blockmap.Visitor{Page: func(level int, name object.Name) (bool, error) {
		keys[level] = append(keys[level], object.Key{Kind: object.Page, Name: name})
		return true, nil
	}}))
	return keys
}

// One object of a disk is harmed, in each way. What is lost is as expected, and all else comes back.
func TestDamage(t *testing.T) {
	c := word("axxA-bxc").cut(1000)
	for name, tt := range map[string]struct {
		harmed func(s *shop, rev repo.Revision) object.Key
		lost   []repo.Range
	}{
		"chunk": {func(*shop, repo.Revision) object.Key { return key(object.Chunk, c.block(1)) },
			[]repo.Range{{Offset: block, Length: 2 * block}, {Offset: 6 * block, Length: block}}},
		"last chunk": {func(*shop, repo.Revision) object.Key { return key(object.Chunk, c.block(7)) },
			[]repo.Range{{Offset: 7 * block, Length: block - 1000}}},
		"page": {func(s *shop, rev repo.Revision) object.Key { return s.pages(rev)[1][0] },
			[]repo.Range{{Offset: 0, Length: c.size}}},
	} {
		for how, h := range harm {
			t.Run(name+" "+how, func(t *testing.T) {
				s := newShop(t)
				rev := s.backup(c, block)
				k := tt.harmed(s, rev)
				h.do(t, s.Objects().Path(k))
				expectDamage(t, s, rev, c.bytes(), tt.lost, k.String()+" "+h.says)
			})
		}
	}
}

// A page maps 1024 blocks; the next page is not touched by its loss.
func TestDamagedPageOfSeveral(t *testing.T) {
	c := content{1030*block - 1000, map[int64]rune{0: 'a', 1023: 'b', 1024: 'c', 1029: 'd'}}
	for page, lost := range []repo.Range{{Offset: 0, Length: 1024 * block}, {Offset: 1024 * block, Length: 6*block - 1000}} {
		s := newShop(t)
		rev := s.backup(c, block)
		k := s.pages(rev)[1][page]
		must(t, os.Remove(s.Objects().Path(k)))
		if page > 0 {
			expectDamage(t, s, rev, c.bytes(), []repo.Range{lost}, k.String()+" is missing")
			continue
		}
		var b bytes.Buffer
		r, err := s.run(rev, restore.Options{Diff: &b, Keep: true})
		if err != nil || len(r.Damage) != 1 || r.Damage[0].Range != lost {
			t.Errorf("%+v, %v", r, err)
		}
		got, _, err := apply(t, nil, &b)
		must(t, err)
		same(t, "disk", got, filled(c.bytes(), []repo.Range{lost}, 0))
	}
}

// filled is a disk with its lost ranges filled with a byte.
func filled(disk []byte, lost []repo.Range, with byte) []byte {
	b := bytes.Clone(disk)
	for _, r := range lost {
		copy(b[r.Offset:r.Offset+r.Length], bytes.Repeat([]byte{with}, int(r.Length)))
	}
	return b
}

func expectDamage(t *testing.T, s *shop, rev repo.Revision, disk []byte, lost []repo.Range, says string) {
	zeroed, kept := filled(disk, lost, 0), filled(disk, lost, 0xff)
	expect := func(what string, o restore.Options) {
		t.Helper()
		r, err := s.run(rev, o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		ok, sum := len(r.Damage) == len(lost), int64(0)
		for i := range min(len(r.Damage), len(lost)) {
			ok = ok && r.Damage[i].Range == lost[i] && strings.HasPrefix(r.Damage[i].Reason, says)
			sum += lost[i].Length
		}
		if !ok || r.Lost() != sum {
			t.Errorf("%s: damage %+v, want %v: %s", what, r.Damage, lost, says)
		}
	}
	expect("check", restore.Options{})

	path := filepath.Join(t.TempDir(), "new.img")
	w, err := file.Create(path, rev.Size)
	must(t, err)
	defer w.Close()
	expect("new file", restore.Options{Target: w})
	same(t, "new file", read(t, path), zeroed)

	path = ones(t, rev.Size)
	expect("target", restore.Options{Target: target(t, path, rev.Size)})
	same(t, "target", read(t, path), zeroed)

	path = ones(t, rev.Size)
	expect("target, keep", restore.Options{Target: target(t, path, rev.Size), Keep: true})
	same(t, "target, keep", read(t, path), kept)

	var b bytes.Buffer
	expect("stream", restore.Options{Stream: &b})
	same(t, "stream", b.Bytes(), zeroed)

	b.Reset()
	expect("extents, keep", restore.Options{Diff: &b, Keep: true})
	got, _, err := apply(t, nil, &b)
	must(t, err)
	same(t, "extents, keep", got, zeroed)

	b.Reset()
	_, err = s.run(rev, restore.Options{Diff: &b})
	var again *repo.AgainError
	if err == nil || !strings.Contains(err.Error(), says) || errors.As(err, &again) {
		t.Errorf("extents: %v", err)
	}
	if _, _, err := apply(t, nil, &b); !errors.Is(err, extent.ErrTruncated) {
		t.Errorf("the stream after damage: %v", err)
	}
}

// A chunk whose name is right, but that is no block.
func TestChunkOfAnotherLength(t *testing.T) {
	s := newShop(t)
	rev := s.backup(word("ab"), 2*block)
	rev.Block, rev.Size = 4*block, 4*block
	r, err := s.run(rev, restore.Options{})
	if err != nil || len(r.Damage) != 1 || !strings.HasSuffix(r.Damage[0].Reason, "holds 524288 bytes, and a block has 1048576") {
		t.Errorf("%+v, %v", r, err)
	}
}

// An object that cannot be read may be as good as ever: that is no damage, and nothing may be made of it.
func TestIOErrorIsNoDamage(t *testing.T) {
	c := word("abc")
	for name, harmed := range map[string]func(s *shop, rev repo.Revision) object.Key{
		"chunk": func(*shop, repo.Revision) object.Key { return key(object.Chunk, c.block(1)) },
		"page":  func(s *shop, rev repo.Revision) object.Key { return s.pages(rev)[1][0] },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			rev := s.backup(c, block)
			path := s.Objects().Path(harmed(s, rev))
			must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o750))) // reading it is an error
			dir := t.TempDir()
			w, err := file.Create(filepath.Join(dir, "new.img"), rev.Size)
			must(t, err)
			_, err = s.run(rev, restore.Options{Target: w})
			w.Close()
			if left, _ := os.ReadDir(dir); !errors.Is(err, unix.EISDIR) || len(left) != 0 {
				t.Errorf("%v; left %v", err, left)
			}
		})
	}
}

var changes = map[string][2]content{
	"nothing":                   {word("ab-c"), word("ab-c")},
	"blocks":                    {word("ab-cd"), word("aB--e")},
	"all zero":                  {word("abc"), word("---")},
	"from zero":                 {word("---"), word("abc")},
	"grows in its last block":   {word("abc").cut(5000), word("abd")},
	"grows by zeroes":           {word("abc").cut(5000), content{9 * block, map[int64]rune{0: 'a', 1: 'b'}}},
	"grows":                     {word("ab"), word("ab-c-").cut(3)},
	"shrinks in its last block": {word("abc"), word("abc").cut(100_000)},
	"shrinks":                   {word("abcdef"), word("ab-").cut(7)},
	"grows over a level":        {word("ab"), content{1030 * block, map[int64]rune{0: 'a', 1: 'c', 1029: 'd'}}},
	"shrinks under a level":     {content{1030 * block, map[int64]rune{0: 'a', 1: 'c', 1023: 'e', 1029: 'd'}}, word("ab").cut(1)},
}

// The old disk and what differs make the new disk.
func TestDiff(t *testing.T) {
	for name, tt := range changes {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			old, now := s.backup(tt[0], block), s.backup(tt[1], block)
			other := s.backup(tt[0], 2*block)
			diff := func(from repo.Revision) []byte {
				t.Helper()
				var b bytes.Buffer
				r, err := s.run(now, restore.Options{Diff: &b, From: &from})
				if err != nil || len(r.Damage) != 0 {
					t.Fatalf("%+v, %v", r, err)
				}
				stream := bytes.Clone(b.Bytes())
				got, h, err := apply(t, tt[0].bytes(), &b)
				must(t, err)
				same(t, "disk", got, tt[1].bytes())
				if h.From != repo.SnapshotName(from.ID) || h.To != repo.SnapshotName(now.ID) {
					t.Errorf("header %+v", h)
				}
				return stream
			}
			if n := len(diff(old)); name == "nothing" && n > 100 {
				t.Errorf("%d bytes", n)
			}
			diff(other) // blocks of another size: all of the disk

			// Without the old map, all of the disk again; never less than what differs.
			pages := s.pages(old)
			for level := 1; level <= 2; level++ {
				for _, k := range pages[level] {
					os.Remove(s.Objects().Path(k))
				}
				r, err := s.run(now, restore.Options{Diff: io.Discard})
				if err == nil && len(r.Damage) == 0 { // the two share no page
					diff(old)
				}
			}
		})
	}
}

// A page of the old map is lost that has data where the new map has none.
func TestDiffFromLostPage(t *testing.T) {
	s := newShop(t)
	before := content{1030 * block, map[int64]rune{5: 'a', 700: 'b', 1029: 'c'}}
	after := content{1030 * block, map[int64]rune{5: 'a', 1029: 'd'}}
	old, now := s.backup(before, block), s.backup(after, block)
	must(t, os.Remove(s.Objects().Path(s.pages(old)[1][0])))
	var b bytes.Buffer
	_, err := s.run(now, restore.Options{Diff: &b, From: &old})
	must(t, err)
	got, _, err := apply(t, before.bytes(), &b)
	must(t, err)
	same(t, "disk", got, after.bytes())
}

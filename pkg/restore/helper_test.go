package restore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/disk"
	"backy/pkg/disk/file"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/restore"
)

const block = repo.MinBlock

var (
	ctx   = context.Background()
	quiet = slog.New(slog.DiscardHandler)
	start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
)

// content is what a disk holds: its size in bytes, and its blocks that are not all zero, each told by a letter. A small
// letter is random data; a capital one has 128 KiB of zeroes in its middle.
type content struct {
	size   int64
	blocks map[int64]rune
}

// word is a disk of whole blocks, one a letter, "-" for zero.
func word(s string) content {
	c := content{int64(len(s)) * block, map[int64]rune{}}
	for i, letter := range s {
		if letter != '-' {
			c.blocks[int64(i)] = letter
		}
	}
	return c
}

// cut makes a disk shorter by some bytes of its last block.
func (c content) cut(n int64) content { return content{c.size - n, c.blocks} }

// block is a block's bytes, with the padding.
func (c content) block(i int64) []byte {
	b := make([]byte, block)
	letter, ok := c.blocks[i]
	if !ok {
		return b
	}
	n := max(0, min(block, c.size-i*block))
	rand.NewChaCha8([32]byte{byte(letter)}).Read(b[:n])
	if letter < 'a' {
		clear(b[min(n, 64<<10):min(n, 192<<10)])
	}
	return b
}

// bytes is the whole disk.
func (c content) bytes() []byte {
	var b []byte
	for i := int64(0); i*block < c.size; i++ {
		b = append(b, c.block(i)...)
	}
	return b[:c.size]
}

// shop is a repository with one job.
type shop struct {
	*repo.Repo
	job *repo.Job
	t   testing.TB
}

func newShop(t testing.TB) *shop {
	t.Helper()
	r, err := repo.Init(t.TempDir(), block, repo.World{Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.Job("vm1")
	if err != nil {
		t.Fatal(err)
	}
	return &shop{r, j, t}
}

// key is where the object with this content is kept.
func key(kind object.Kind, content []byte) object.Key {
	return object.Key{Kind: kind, Name: object.Sum(content)}
}

// backup makes a revision, as the stages would. size is that of its blocks, and a multiple of block.
func (s *shop) backup(c content, size int64) repo.Revision {
	s.t.Helper()
	w, err := s.job.NewWriter(repo.WriterOptions{})
	must(s.t, err)
	defer w.Close()
	must(s.t, w.Begin("", object.Name{}, size))
	enc, err := object.NewEncoder()
	must(s.t, err)
	put := func(k object.Key, content []byte) error {
		frame, err := enc.Encode(nil, content)
		return errors.Join(err, w.Put(ctx, k, frame))
	}
	e := blockmap.NewEditor(blockmap.NewCursor(nil, blockmap.Map{BlockSize: size}), c.size, func(n object.Name, text []byte) error {
		return put(object.Key{Kind: object.Page, Name: n}, text)
	})
	each := size / block // of the letters' blocks in one of the revision's
	var last int64 = -1
	for _, i := range slices.Sorted(maps.Keys(c.blocks)) {
		if i/each == last {
			continue
		}
		last = i / each
		var b []byte
		for j := last * each; j < (last+1)*each; j++ {
			b = append(b, c.block(j)...)
		}
		must(s.t, put(key(object.Chunk, b), b))
		must(s.t, e.Set(ctx, last, object.Sum(b)))
	}
	root, err := e.Finish(ctx)
	must(s.t, err)
	rev, err := w.Commit(ctx, repo.Revision{ID: repo.NewID(), Time: start, Size: c.size, Block: size, Root: root, Read: repo.ReadFull}, nil, quiet)
	must(s.t, err)
	return rev
}

// run restores with what the options leave open filled in.
func (s *shop) run(rev repo.Revision, o restore.Options) (restore.Report, error) {
	o.Repo, o.Revision = s.Repo, rev
	if o.Log == nil {
		o.Log = quiet
	}
	return restore.Run(ctx, o)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d (block %d) is %#x, want %#x", what, i, i/block, got[i], want[i])
		}
	}
}

// ones makes an image file of 0xff.
func ones(t testing.TB, size int64) string {
	path := filepath.Join(t.TempDir(), "target.img")
	must(t, os.WriteFile(path, bytes.Repeat([]byte{0xff}, int(size)), 0o600))
	return path
}

// loop makes a block device of an image file.
func loop(t testing.TB, path string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no loop devices")
	}
	out, err := exec.Command("losetup", "-f", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop devices here: losetup: %v", err)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "-d", dev).Run() })
	return dev
}

func target(t testing.TB, path string, size int64) disk.Writer {
	t.Helper()
	w, err := file.OpenTarget(path, size)
	must(t, err)
	t.Cleanup(func() { w.Close() })
	return w
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// apply does to a disk what a stream of extents says.
func apply(t testing.TB, old []byte, in io.Reader) (disk []byte, h extent.Header, err error) {
	t.Helper()
	r, err := extent.NewReader(in)
	if err != nil {
		return nil, h, err
	}
	disk = make([]byte, r.Header().Size)
	if r.Header().From != "" {
		copy(disk, old)
	}
	for {
		e, err := r.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return disk, r.Header(), err
		}
		p := disk[e.Offset : e.Offset+e.Length]
		if e.Zero {
			clear(p)
		} else if _, err := io.ReadFull(r, p); err != nil {
			return disk, r.Header(), err
		}
	}
}

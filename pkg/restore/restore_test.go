package restore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/disk/file"
	"backy/pkg/event"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/restore"
)

var disks = map[string]content{
	"empty":             {},
	"one byte":          word("a").cut(block - 1),
	"zero":              word("---"),
	"blocks":            word("ab-cA-aad"),
	"short last block":  word("a-Bc").cut(1000),
	"zero at the end":   word("ab--").cut(77),
	"more than a page":  {1025*block - 5, map[int64]rune{0: 'a', 700: 'b', 1023: 'C', 1024: 'd'}},
	"page without data": {1030 * block, map[int64]rune{1027: 'b'}},
}

// Each way gives the same disk.
func TestRestore(t *testing.T) {
	for name, c := range disks {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			rev := s.backup(c, block)
			want := c.bytes()
			ways := map[string]func(t *testing.T, o restore.Options) (restore.Report, error){
				"new file": func(t *testing.T, o restore.Options) (restore.Report, error) {
					path := filepath.Join(t.TempDir(), "new.img")
					w, err := file.Create(path, rev.Size)
					must(t, err)
					defer w.Close()
					o.Target = w
					r, err := s.run(rev, o)
					same(t, "file", read(t, path), want)
					return r, err
				},
				"larger file": func(t *testing.T, o restore.Options) (restore.Report, error) {
					path := ones(t, rev.Size+5000)
					o.Target = target(t, path, rev.Size)
					r, err := s.run(rev, o)
					same(t, "file", read(t, path), want)
					return r, err
				},
				"zeroed file": func(t *testing.T, o restore.Options) (restore.Report, error) {
					path := filepath.Join(t.TempDir(), "zero.img")
					must(t, errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, rev.Size)))
					o.Target, o.Sparse = target(t, path, rev.Size), true
					r, err := s.run(rev, o)
					same(t, "file", read(t, path), want)
					return r, err
				},
				"block device": func(t *testing.T, o restore.Options) (restore.Report, error) {
					sectors := (rev.Size + 511) / 512 * 512
					if sectors == 0 {
						t.Skip("there are no empty devices")
					}
					path := loop(t, ones(t, sectors))
					o.Target = target(t, path, rev.Size)
					r, err := s.run(rev, o)
					same(t, "device", read(t, path), append(want[:rev.Size:rev.Size], bytes.Repeat([]byte{0xff}, int(sectors-rev.Size))...))
					return r, err
				},
				"bytes": func(t *testing.T, o restore.Options) (restore.Report, error) {
					var b bytes.Buffer
					o.Stream = &b
					r, err := s.run(rev, o)
					same(t, "stream", b.Bytes(), want)
					return r, err
				},
				"extents": func(t *testing.T, o restore.Options) (restore.Report, error) {
					var b bytes.Buffer
					o.Diff = &b
					r, err := s.run(rev, o)
					got, h, e := apply(t, nil, &b)
					must(t, e)
					same(t, "extents", got, want)
					if h.From != "" || h.To != repo.SnapshotName(rev.ID) {
						t.Errorf("header %+v", h)
					}
					return r, err
				},
				"check": func(_ *testing.T, o restore.Options) (restore.Report, error) { return s.run(rev, o) },
			}
			for name, restored := range ways {
				t.Run(name, func(t *testing.T) {
					for _, o := range []restore.Options{{}, {Workers: 1, Memory: 1}, {Workers: 7}} {
						if o.Workers > 0 && c.size > 1<<28 {
							continue // large
						}
						r, err := restored(t, o)
						if err != nil || len(r.Damage) != 0 || r.Size != rev.Size || r.Revision != rev.ID || r.Job != "vm1" || (r.Data > 0) != (len(c.blocks) > 0) {
							t.Errorf("%+v, %v", r, err)
						}
					}
				})
			}
		})
	}
}

// A new file takes no space for zeroes, also within a block. The cost of a disk is that of its data.
func TestSparse(t *testing.T) {
	s := newShop(t)
	for name, tt := range map[string]struct {
		c    content
		most int64 // bytes
	}{
		"holes in a block": {word("A-B"), 2*(block-128<<10) + 64<<10},
		"15 TiB":           {content{15 << 40, map[int64]rune{0: 'a', 1 << 25: 'b', 15<<22 - 1: 'c'}}, 3*block + 64<<10},
	} {
		t.Run(name, func(t *testing.T) {
			rev := s.backup(tt.c, block)
			path := filepath.Join(t.TempDir(), "new.img")
			w, err := file.Create(path, rev.Size)
			if err != nil {
				t.Skip(err) // a file system for smaller files
			}
			defer w.Close()
			r, err := s.run(rev, restore.Options{Target: w})
			must(t, err)
			var st unix.Stat_t
			must(t, unix.Stat(path, &st))
			if st.Size != rev.Size || st.Blocks*512 > tt.most || r.Data != int64(len(tt.c.blocks))*block {
				t.Errorf("size %d, %d bytes in use, want at most %d; %+v", st.Size, st.Blocks*512, tt.most, r)
			}
			f, err := os.Open(path)
			must(t, err)
			defer f.Close()
			for i := range tt.c.blocks {
				got := make([]byte, block)
				_, err := f.ReadAt(got, i*block)
				must(t, err)
				same(t, "block", got, tt.c.block(i))
			}
		})
	}
}

// hook is a stream that calls something at the first write.
type hook struct {
	io.Writer
	call func()
}

func (h *hook) Write(p []byte) (int, error) {
	if h.call != nil {
		h.call()
		h.call = nil
	}
	return h.Writer.Write(p)
}

func TestCancelled(t *testing.T) {
	s := newShop(t)
	rev := s.backup(word("abcdefghijklmnopqrstuvwxyz"), block)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(ctx)
	_, err := restore.Run(ctx, restore.Options{Repo: s.Repo, Revision: rev, Log: quiet, Stream: &hook{io.Discard, func() { cancel(why) }}})
	if !errors.Is(err, why) {
		t.Errorf("in the middle: %v", err)
	}
	dir := t.TempDir()
	w, err := file.Create(filepath.Join(dir, "new.img"), rev.Size)
	must(t, err)
	_, err = restore.Run(ctx, restore.Options{Repo: s.Repo, Revision: rev, Log: quiet, Target: w})
	w.Close()
	if left, _ := os.ReadDir(dir); !errors.Is(err, why) || len(left) != 0 {
		t.Errorf("before it began: %v; left %v", err, left)
	}
	// Zeroes have no end of their own on a stream.
	all, cancelled := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancelled()
	rev = s.backup(content{size: 15 << 40}, block)
	if _, err = restore.Run(all, restore.Options{Repo: s.Repo, Revision: rev, Log: quiet, Stream: io.Discard}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("within 15 TiB of zeroes: %v", err)
	}
}

// mount makes a small file system.
func mount(t *testing.T, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: nothing can be mounted")
	}
	image, dir := filepath.Join(t.TempDir(), "fs.img"), t.TempDir()
	must(t, errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)))
	if out, err := exec.Command("mkfs.ext4", "-q", "-m0", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	return dir
}

func TestTargetDiskFull(t *testing.T) {
	dir := mount(t, 8<<20)
	s := newShop(t)
	rev := s.backup(word(strings.Repeat("abcdefghijklmnopqrstuvwxyz", 2)), block) // 13 MiB
	w, err := file.Create(filepath.Join(dir, "new.img"), rev.Size)
	must(t, err)
	_, err = s.run(rev, restore.Options{Target: w})
	w.Close()
	left, _ := filepath.Glob(dir + "/new*")
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "new.img.partial at byte ") || len(left) != 0 {
		t.Errorf("%v; left %v", err, left)
	}
}

// While it runs, a purge sees which revisions it reads; afterwards that it is over.
func TestSessions(t *testing.T) {
	s := newShop(t)
	c := word("ab")
	from, rev := s.backup(word("aa"), block), s.backup(c, block)
	sessions := filepath.Join(s.Base, repo.Dot, "sessions")
	before, err := os.ReadDir(sessions)
	must(t, err)
	alive := func() (n int) {
		list, err := os.ReadDir(sessions)
		must(t, err)
		for _, e := range list {
			if over, err := s.Ended(e.Name()); err == nil && !over {
				n++
			}
		}
		return n
	}
	during := 0
	_, err = s.run(rev, restore.Options{Diff: &hook{io.Discard, func() { during = alive() }}, From: &from})
	must(t, err)
	after, _ := os.ReadDir(sessions)
	if during != 2 || alive() != 0 || len(after) != len(before)+2 {
		t.Errorf("%d sessions during the restore, %d after it; %d registrations, %d before", during, alive(), len(after), len(before))
	}

	// A repository in which nothing can be registered can be restored from.
	var said bytes.Buffer
	must(t, os.Rename(filepath.Join(s.Base, repo.Dot, "tmp"), filepath.Join(s.Base, repo.Dot, "away")))
	_, err = s.run(rev, restore.Options{Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil || !strings.Contains(said.String(), "does not know of this session") {
		t.Errorf("%v; said %s", err, &said)
	}
	must(t, os.Rename(filepath.Join(s.Base, repo.Dot, "away"), filepath.Join(s.Base, repo.Dot, "tmp")))

	// What is missing after a purge has ended the session is no damage.
	var again *repo.AgainError
	_, err = s.run(rev, restore.Options{Diff: &hook{io.Discard, func() {
		list, _ := filepath.Glob(sessions + "/*")
		for _, path := range list {
			os.Remove(path)
		}
		os.Remove(s.Objects().Path(key(object.Chunk, c.block(1))))
	}}})
	if !errors.As(err, &again) || !errors.Is(err, repo.ErrSessionEnded) {
		t.Errorf("session ended by a purge: %v", err)
	}
	must(t, os.Remove(filepath.Join(s.job.Dir(), rev.ID+".rev")))
	if _, err := s.run(rev, restore.Options{}); !errors.As(err, &again) {
		t.Errorf("revision forgotten: %v", err)
	}
}

func TestReadOnlyRepository(t *testing.T) {
	s := newShop(t)
	c := word("a-B")
	rev := s.backup(c, block)
	if err := unix.Mount(s.Base, s.Base, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("nothing can be mounted: %v", err)
	}
	defer unix.Unmount(s.Base, 0)
	must(t, unix.Mount("", s.Base, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	var b, said bytes.Buffer
	_, err := s.run(rev, restore.Options{Stream: &b, Log: slog.New(slog.NewTextHandler(&said, nil))})
	must(t, err)
	same(t, "stream", b.Bytes(), c.bytes())
	if !strings.Contains(said.String(), "read-only file system") {
		t.Errorf("said %s", &said)
	}
}

func TestEvents(t *testing.T) {
	s := newShop(t)
	c := word("ab--")
	rev := s.backup(c, block)
	must(t, os.Remove(s.Objects().Path(key(object.Chunk, c.block(1)))))
	var got []event.Event
	w := event.NewFunc(func(e event.Event) error { got = append(got, e); return nil }, event.Event{}, time.Now)
	_, err := s.run(rev, restore.Options{Events: w, Stream: io.Discard})
	must(t, err)
	w.Flush()
	first, last := got[0], got[len(got)-1]
	damaged := 0
	for _, e := range got {
		if e.Kind == event.Damaged {
			damaged++
		}
	}
	if first.Kind != event.Started || first.Total != rev.Size || first.Revision != rev.ID || first.Job != "vm1" ||
		last.Kind != event.Progress || last.Done != rev.Size || last.Total != rev.Size || last.Read == 0 || damaged != 1 {
		t.Errorf("%+v", got)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestStreamBreaks(t *testing.T) {
	s := newShop(t)
	for _, c := range []content{word("a"), word("-")} {
		rev := s.backup(c, block)
		if _, err := s.run(rev, restore.Options{Stream: full{}}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("bytes: %v", err)
		}
		if _, err := s.run(rev, restore.Options{Diff: full{}}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("extents: %v", err)
		}
	}
}

// What takes the name of a new file meanwhile is not replaced.
func TestNameTakenMeanwhile(t *testing.T) {
	s := newShop(t)
	rev := s.backup(word("a"), block)
	path := filepath.Join(t.TempDir(), "new.img")
	w, err := file.Create(path, rev.Size)
	must(t, err)
	defer w.Close()
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := s.run(rev, restore.Options{Target: w}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
}

package fault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/chunk"
	"backy/pkg/durable"
	"backy/pkg/object"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/restore"
	"backy/pkg/store"
)

// block is the block size of the repositories here, the smallest there is, in bytes.
const block = repo.MinBlock

var (
	ctx   = context.Background()
	quiet = slog.New(slog.DiscardHandler)
)

func world(ops durable.Ops) repo.World { return repo.World{Now: time.Now, Ops: ops} }

// image is a disk in memory.
type image struct{ *bytes.Reader }

func (image) Close() error { return nil }

// newDisk makes a disk of n blocks and half a one: random ones, text (which makes small objects), and zeroes.
func newDisk(rnd *rand.Rand, n int) []byte {
	disk := make([]byte, n*block+block/2)
	for i := range n {
		fill(rnd, disk[i*block:(i+1)*block])
	}
	fill(rnd, disk[n*block:])
	return disk
}

// distinct makes a disk of n blocks, none of them zero and no two alike, which make small objects.
func distinct(rnd *rand.Rand, n int) []byte {
	disk := make([]byte, n*block)
	for i := range n {
		words(rnd, disk[i*block:(i+1)*block])
	}
	return disk
}

// change returns a copy of a disk with some blocks, about one of nth, anew.
func change(rnd *rand.Rand, disk []byte, nth int) []byte {
	disk = bytes.Clone(disk)
	for off := 0; off < len(disk); off += block {
		if rnd.IntN(nth) == 0 {
			fill(rnd, disk[off:min(off+block, len(disk))])
		}
	}
	return disk
}

func fill(rnd *rand.Rand, p []byte) {
	switch rnd.IntN(5) {
	case 0:
		clear(p)
	case 1, 2:
		random(rnd, p)
	default:
		words(rnd, p)
	}
}

func words(rnd *rand.Rand, p []byte) {
	text := fmt.Appendf(nil, "%d ", rnd.Uint64())
	for n := 0; n < len(p); {
		n += copy(p[n:], text)
	}
}

func random(rnd *rand.Rand, p []byte) {
	seed := [32]byte{}
	for i := range seed {
		seed[i] = byte(rnd.Uint32())
	}
	rand.NewChaCha8(seed).Read(p)
}

// stream is what backy-read and backy-chunk make of a disk, for a job and on its last revision.
func stream(r *repo.Repo, job, source string, disk []byte, to *io.PipeWriter) {
	extents, out := io.Pipe()
	go func() {
		out.CloseWithError(read.Run(ctx, read.Options{Out: out, Disk: image{bytes.NewReader(disk)}, Source: source, Repo: r, Job: job, Base: "last", Now: r.Now, Log: quiet}))
	}()
	err := chunk.Run(ctx, chunk.Options{In: extents, Out: to, Repo: r, Job: job, Now: r.Now, Log: quiet})
	extents.CloseWithError(err) // so that the reader ends, too
	to.CloseWithError(err)
}

// backup runs the three stages in this process, joined as the commands are. The error is that of the writer, which
// wraps that of a stage before it.
func backup(r *repo.Repo, job, source string, disk []byte) (repo.Revision, error) {
	return backupThrough(r, job, source, disk, func(in io.Reader) io.Reader { return in })
}

// backupThrough is backup with something between the stages and the writer.
func backupThrough(r *repo.Repo, job, source string, disk []byte, through func(io.Reader) io.Reader) (repo.Revision, error) {
	j, err := r.Job(job)
	if err != nil {
		return repo.Revision{}, err
	}
	objects, out := io.Pipe()
	done := make(chan struct{})
	go func() { stream(r, job, source, disk, out); close(done) }()
	rev, err := store.Run(ctx, store.Options{In: through(objects), Job: j, Tags: []string{"test"}, Repo: r, BootID: chunk.BootID(), Log: quiet})
	objects.CloseWithError(cmpErr(err, io.ErrClosedPipe))
	<-done
	return rev, err
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// restored restores a revision, and fails unless what comes is this disk.
func restored(r *repo.Repo, rev repo.Revision, disk []byte) error {
	sum := sha256.New()
	report, err := restore.Run(ctx, restore.Options{Repo: r, Revision: rev, Stream: sum, Log: quiet})
	if err != nil {
		return err
	}
	if len(report.Damage) > 0 {
		return fmt.Errorf("revision %s of %s is damaged: %v", rev.ID, rev.Job, report.Damage)
	}
	if want := sha256.Sum256(disk); !bytes.Equal(sum.Sum(nil), want[:]) {
		return fmt.Errorf("revision %s of %s is not the disk that was backed up", rev.ID, rev.Job)
	}
	return nil
}

// allWhole fails unless all that is visible in a repository is whole: no object in place that does not decode to its
// name, no .rev or .state that cannot be read, and each revision restores to the disk that it is known to be of.
func allWhole(r *repo.Repo, disk func(repo.Revision) []byte) error {
	if err := objectsWhole(r); err != nil {
		return err
	}
	return eachRevision(r, func(rev repo.Revision) error {
		if rev.StateErr != nil {
			return rev.StateErr
		}
		return restored(r, rev, disk(rev))
	})
}

// eachRevision calls f for all revisions of all jobs, and fails where one cannot be read.
func eachRevision(r *repo.Repo, f func(repo.Revision) error) error {
	for job, err := range r.Jobs(ctx) {
		if err != nil {
			return err
		}
		list, broken, err := job.List()
		if err != nil {
			return err
		}
		if len(broken) > 0 {
			return fmt.Errorf("%s: %w", broken[0].Path, broken[0].Err)
		}
		for _, rev := range list {
			if err := f(rev); err != nil {
				return err
			}
		}
	}
	return nil
}

// objectsWhole decodes every object in place.
func objectsWhole(r *repo.Repo) error {
	for kind, limit := range map[object.Kind]int{object.Chunk: block, object.Page: blockmap.MaxPage} {
		dec, err := object.NewDecoder(limit)
		if err != nil {
			return err
		}
		err = eachFile(pool(r, kind), func(path string, _ fs.FileInfo) error {
			name, err := filepath.Rel(filepath.Join(r.Base, repo.Dot), path)
			if err != nil {
				return err
			}
			key, err := object.ParseKey(filepath.ToSlash(name))
			if err != nil {
				return err
			}
			_, _, err = object.Fetch(ctx, r.Objects(), dec, key, nil, nil)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func pool(r *repo.Repo, kind object.Kind) string {
	return filepath.Join(r.Base, repo.Dot, kind.String())
}

func eachFile(dir string, f func(path string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return f(path, info)
	})
}

// poolSize is the number of bytes of all objects in place.
func poolSize(t *testing.T, r *repo.Repo) (n int64) {
	t.Helper()
	for _, kind := range object.Kinds {
		if err := eachFile(pool(r, kind), func(_ string, info fs.FileInfo) error { n += info.Size(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// listed reports whether a job has a revision of this id.
func listed(r *repo.Repo, job, id string) bool {
	j, err := r.Job(job)
	if err == nil {
		_, err = j.Get(id)
	}
	return err == nil
}

// needRoot skips where there are no real file systems to be had.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	if _, err := os.Stat("/dev/loop-control"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("there are no loop devices here")
	}
}

// soak is how often something random is tried: now and then, or long.
func soak(short, full int) int {
	if os.Getenv("BACKY_SOAK") == "full" {
		return full
	}
	return short
}

// random source of a test: another one each time in the soak, where the seed is told.
func newRandom(t *testing.T) *rand.Rand {
	seed := uint64(1)
	if soak(0, 1) == 1 {
		seed = rand.Uint64()
		t.Logf("seed %d", seed)
	}
	return rand.New(rand.NewPCG(seed, 0))
}

package fault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"backy/pkg/durable"
	"backy/pkg/repo"
)

// failing is a file system on a disk that can be made to refuse writes.
type failing struct {
	t        *testing.T
	dir, mnt string
}

func newFailing(t *testing.T, fs string) *failing {
	dir := filepath.Join(t.TempDir(), "rig")
	f := &failing{t, dir, filepath.Join(dir, "mnt")}
	t.Cleanup(func() { rig(t, "io-error-rig", "stop", dir) })
	t.Cleanup(f.heal)
	rig(t, "io-error-rig", "start", dir, fs)
	return f
}

func (f *failing) inject() { rig(f.t, "io-error-rig", "inject", f.dir) }
func (f *failing) heal()   { rig(f.t, "io-error-rig", "heal", f.dir) }

// remount is what the operator does once the disk is well again. Many file systems give up at a write that fails.
func (f *failing) remount() {
	f.t.Helper()
	loop, err := os.ReadFile(filepath.Join(f.dir, "loop"))
	if err != nil {
		f.t.Fatal(err)
	}
	run(f.t, "umount", f.mnt)
	run(f.t, "mount", strings.TrimSpace(string(loop)), f.mnt)
}

// objects is the stream of objects of a disk, for a job on its last revision.
func objects(r *repo.Repo, job, source string, disk []byte) ([]byte, error) {
	in, out := io.Pipe()
	go stream(r, job, source, disk, out)
	return io.ReadAll(in)
}

// feed runs backy-store on a stream, and does something when it has read so much of it. It returns the command, which
// has ended, and what it answered.
func feed(t *testing.T, r *repo.Repo, job string, stream []byte, at int, do func()) (c *exec.Cmd, answer string) {
	t.Helper()
	c = command(t, "backy-store", "-b", filepath.Join(r.Base, job), "-t", "test", "--min-free", "0")
	var out bytes.Buffer
	c.Stdin, c.Stdout = io.MultiReader(bytes.NewReader(stream[:at]), &once{do}, bytes.NewReader(stream[at:])), &out
	_ = c.Run() // how it ended is the caller's to judge
	return c, out.String()
}

// once is an empty stream that does something when it is read.
type once struct{ do func() }

func (o *once) Read([]byte) (int, error) { o.do(); return 0, io.EOF }

// TestSoakIOErrors has the disk refuse all writes from some point of a backup on. The backup says so and fails, what was
// there is still there when the disk is well again, and backups go on.
func TestSoakIOErrors(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		j := newAiling(t, fs)
		must(t, j.backup("first"))
		j.whole()
		points := map[string]float64{"from the start": 0, "in the middle": .5, "near the end": .99}
		for i := range soak(0, 10) {
			points[fmt.Sprintf("somewhere %d", i)] = j.rnd.Float64()
		}
		for name, share := range points {
			j.inStream(name, share)
		}
		j.inCommit("after syncfs", durable.Ops{Syncfs: func(f *os.File) error {
			err := kernel.FS(f)
			j.inject()
			return err
		}})
		j.inCommit("after the link", durable.Ops{FsyncDir: func(f *os.File) error {
			j.inject()
			return kernel.Dir(f)
		}})
	})
}

// ailing is a job on a failing disk.
type ailing struct {
	*failing
	rnd   *rand.Rand
	repo  *repo.Repo
	disks map[string][]byte // by source
	acked map[string]bool   // ids
}

func newAiling(t *testing.T, fs string) *ailing {
	j := &ailing{failing: newFailing(t, fs), rnd: newRandom(t), disks: map[string][]byte{}, acked: map[string]bool{}}
	var err error
	if j.repo, err = repo.Init(filepath.Join(j.mnt, "srv"), block, world(durable.Ops{})); err != nil {
		t.Fatal(err)
	}
	return j
}

// backup makes the next backup of a new disk.
func (j *ailing) backup(source string) error {
	j.disks[source] = newDisk(j.rnd, 8)
	rev, err := backup(j.repo, "vm1", source, j.disks[source])
	if err == nil {
		j.acked[rev.ID] = true
	}
	return err
}

// whole fails the test unless all that was acknowledged is there, and all that is there is whole.
func (j *ailing) whole() {
	j.t.Helper()
	must(j.t, allWhole(j.repo, func(rev repo.Revision) []byte { return j.disks[rev.Source] }))
	for id := range j.acked {
		if !listed(j.repo, "vm1", id) {
			j.t.Errorf("revision %s was acknowledged and is not there", id)
		}
	}
}

// inStream has the disk fail when backy-store has read a share of its stream.
func (j *ailing) inStream(name string, share float64) {
	j.t.Helper()
	j.disks[name] = newDisk(j.rnd, 24)
	stream, err := objects(j.repo, "vm1", name, j.disks[name])
	must(j.t, err)
	store, answer := feed(j.t, j.repo, "vm1", stream, int(share*float64(len(stream))), j.inject)
	oneLine(j.t, store, 1)
	if answer != "" {
		j.t.Errorf("%s: it answers all the same: %s", name, answer)
	}
	j.recover(name)
}

// inCommit has the disk fail at a sync of a backup in this process.
func (j *ailing) inCommit(name string, ops durable.Ops) {
	j.t.Helper()
	j.repo.Ops = ops
	if err := j.backup(name); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EROFS) {
		j.t.Errorf("%s: the backup ended with %v", name, err)
	}
	j.repo.Ops = durable.Ops{}
	j.recover(name)
}

// recover goes on when the disk is well again. Until it is mounted anew, the next backup works or fails, as it says.
func (j *ailing) recover(name string) {
	j.t.Helper()
	j.heal()
	_ = j.backup("after " + name)
	j.remount()
	j.whole()
	must(j.t, j.backup("remounted after "+name))
	j.whole()
}

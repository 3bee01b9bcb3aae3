//go:build ceph

package ceph

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/pkg/disk/rbd/rbdtest"
	"backy/pkg/repo"
)

var (
	walkSeed   = flag.Uint64("seed", 0, "of the walk; 0 is 1, or, in the soak, a random one")
	walkRounds = flag.Int("rounds", 0, "of the walk; 0 is as many as BACKY_SOAK says")
)

// TestSoakWalk uses an image in all ways there are, at random, and backs it up after each step, in any way there is. Each
// revision is what rbd export says the snapshot is: by scrub, and restored to a file, to a new image and over an old one.
// How it was read is what the step before allows. Of the snapshots, those that are needed and those of others stay.
func TestSoakWalk(t *testing.T) {
	rounds := *walkRounds
	if rounds == 0 {
		rounds = soak(40, 400)
	}
	seed := *walkSeed
	if seed == 0 {
		seed = 1
		if soak(0, 1) == 1 {
			seed = rand.Uint64()
		}
	}
	t.Logf("-seed %d -rounds %d", seed, rounds)
	w := newWalk(t, rand.New(rand.NewPCG(seed, 0)))
	for w.round = range rounds {
		w.did = nil
		w.step()
		w.backup()
		if t.Failed() {
			t.Fatalf("in round %d of -seed %d: %s", w.round, seed, strings.Join(w.did, "; "))
		}
	}
	t.Logf("backups: %v", w.ways)
	for _, mode := range []string{repo.ReadFull, repo.ReadCompare, repo.ReadMap, repo.ReadForeign} {
		if rounds >= 40 && w.ways[mode] == 0 {
			t.Errorf("of %d backups none was read as %s, so this shows little", rounds, mode)
		}
	}
}

// soak is how often something random is tried: now and then, or long.
func soak(short, full int) int {
	if os.Getenv("BACKY_SOAK") == "full" {
		return full
	}
	return short
}

// largest is the most that the image has, in bytes.
const largest = 256 << 20

// walk is an image on its way, with what is known to be true of it.
type walk struct {
	*vm
	*job
	t          *testing.T
	round      int
	did        []string            // in this round
	ways       map[string]int      // how often it was read how
	others     []string            // snapshots that somebody made
	own        map[string][]string // snapshots that were made for a job's revisions, by job
	last       repo.Revision       // of the job; no id is none
	from       string              // the snapshot that the last revision is of, as long as it is there
	proved     string              // the id of the last revision that was proved to be right
	file       string              // to be restored to
	targetSize int64               // of the image that was restored to; 0: there is none yet
}

func newWalk(t *testing.T, rnd *rand.Rand) *walk {
	w := &walk{t: t, vm: newVM(t, rnd, "walk", 40<<20+rnd.Int64N(40<<20), 20+rnd.Uint64N(4)), job: newJob(t)}
	w.ways, w.own = map[string]int{}, map[string][]string{}
	w.file = filepath.Join(t.TempDir(), "restored")
	t.Cleanup(func() {
		if w.targetSize > 0 {
			rbdtest.RBD(t, "rm", "--no-progress", pool+"/restored")
		}
	})
	return w
}

func (w *walk) say(format string, args ...any) { w.did = append(w.did, fmt.Sprintf(format, args...)) }

// chance is true once in n times.
func (w *walk) chance(n int) bool { return w.rnd.IntN(n) == 0 }

// step changes the image, and what is around it.
func (w *walk) step() {
	w.t.Helper()
	if w.chance(20) {
		w.anew()
	}
	for range w.rnd.IntN(12) {
		w.say("%s", w.use())
		if w.chance(12) {
			w.changeSize()
		}
		if w.chance(12) {
			w.somebodys(repo.SnapshotName(repo.NewID())) // as another repository's
		}
	}
	if w.chance(6) {
		on := !w.mapped()
		w.features(on, "object-map", "fast-diff")
		w.say("object-map %v", on)
		if on && w.chance(2) {
			w.rebuild()
			w.say("rebuilt")
		}
	}
	if len(w.others) > 0 && w.chance(4) {
		i := w.rnd.IntN(len(w.others))
		w.say("remove %s", w.others[i])
		w.removeSnapshot(w.others[i])
		w.gone(w.others[i])
		w.others = slices.Delete(w.others, i, i+1)
	}
	if own := w.own[w.name()]; len(own) > 0 && w.chance(12) {
		s := own[w.rnd.IntN(len(own))]
		w.say("remove our %s", s)
		w.removeSnapshot(s)
		w.gone(s)
		w.own[w.name()] = slices.DeleteFunc(own, func(o string) bool { return o == s })
	}
	if w.chance(20) { // a job of its own, as after a move: what the one before made stays
		w.job.name, w.last, w.from = fmt.Sprintf("vm%d", w.round+2), repo.Revision{}, ""
		w.say("job %s", w.name())
	}
}

func (w *walk) name() string { return w.job.name }

// gone notes that a snapshot is not there any more.
func (w *walk) gone(snapshot string) {
	if w.from == snapshot {
		w.from = ""
	}
}

// anew deletes the image and makes another one of its name.
func (w *walk) anew() {
	w.t.Helper()
	w.remove()
	order := 20 + w.rnd.Uint64N(4)
	w.spread = 0
	if w.chance(3) {
		w.spread = 2 + w.rnd.Uint64N(4)
	}
	w.create(1+w.rnd.Int64N(100<<20), order)
	w.others, w.from = nil, ""
	clear(w.own)
	w.say("anew, order %d, over %d, %d bytes", order, w.spread, w.size)
}

func (w *walk) changeSize() {
	w.t.Helper()
	size := w.size
	switch w.rnd.IntN(3) {
	case 0: // and back: what was there before is zero now
		less := 1 + w.rnd.Int64N(size)
		w.resize(less)
		w.say("resize %d", less)
	case 1:
		size = min(max(1, size+w.rnd.Int64N(64<<20)-32<<20), largest)
	default:
		size = 1 + w.rnd.Int64N(largest)
	}
	w.resize(size)
	w.say("resize %d", size)
}

// somebodys makes a snapshot that is none of ours.
func (w *walk) somebodys(s string) string {
	w.t.Helper()
	w.snapshot(s)
	w.others = append(w.others, s)
	w.say("snapshot %s", s)
	return s
}

// backup backs the image up in some way, and looks at all that has come of it.
func (w *walk) backup() {
	w.t.Helper()
	begin := time.Now()
	var rev repo.Revision
	var want, way string
	switch w.rnd.IntN(10) {
	case 0:
		way = "stream"
		rev, want = w.byStream()
	case 1, 2:
		way = "map"
		rev, want = w.byMap()
	default:
		way = "native"
		rev, want = w.native()
	}
	if w.t.Failed() {
		return
	}
	w.ways[rev.Read]++
	if rev.Read != want {
		w.t.Errorf("revision %s was read as %s, want %s", rev.ID, rev.Read, want)
	}
	if rev.Size != w.size {
		w.t.Errorf("revision %s has %d bytes, want %d", rev.ID, rev.Size, w.size)
	}
	w.last = rev
	w.prove(rev)
	w.t.Logf("round %d: %s %s, %d bytes, objects of %d KiB, blocks of %d KiB; read %d, changed %d; %d things in %v", w.round, way, rev.Read, rev.Size,
		w.object>>10, rev.Block>>10, rev.ReadBytes, rev.Changed, len(w.did), time.Since(begin).Round(time.Millisecond))
}

// blocks are the arguments that choose a block size, if one is to be chosen, and that size in bytes.
func (w *walk) blocks() (args []string, size int64) {
	if w.last.ID != "" && !w.chance(15) {
		return nil, w.last.Block
	}
	size = repo.MinBlock << w.rnd.IntN(7)
	return []string{"--block", fmt.Sprint(size)}, size
}

// native has backy-read make a snapshot, and find out what has changed since the one before. In some rounds the image is
// written to meanwhile.
func (w *walk) native() (repo.Revision, string) {
	w.t.Helper()
	args, block := w.blocks()
	want := repo.ReadCompare
	switch mine := w.own[w.name()]; {
	case w.last.ID == "" || w.last.Block != block:
		want = repo.ReadFull
	case w.from != "" && slices.Contains(mine, w.from) && w.from == repo.SnapshotName(w.last.ID):
		want = repo.ReadMap
	}
	more := slices.Clone(args)
	stays := true
	switch {
	case w.chance(15):
		more, stays, want = append(more, "--full"), false, repo.ReadFull
	case w.chance(15):
		more = append(more, "--compare")
		if want == repo.ReadMap {
			want = repo.ReadCompare
		}
	}
	w.say("backy-read %s", strings.Join(more, " "))
	quiet := func() {}
	if w.chance(3) {
		quiet = w.busy()
	}
	stages := []*exec.Cmd{w.job.read(append(more, w.url())...), w.chunk(args...), w.store()}
	front := len(more) == 0 && w.chance(4)
	if front { // which does all of that, and more
		stages = []*exec.Cmd{command(w.t, "backy", "backup", "-b", w.dir(), "-t", "test", w.url())}
		w.say("by backy backup")
	}
	rev := w.pipe(stages...)
	quiet()
	snapshot := repo.SnapshotName(rev.ID)
	if rev.Source != w.url() || rev.Snapshot != map[bool]string{true: snapshot}[stays] {
		w.t.Errorf("revision %s is of %s@%s", rev.ID, rev.Source, rev.Snapshot)
	}
	// The sweep before has left what the last revision needed, and backy has seen to that, too.
	kept := slices.DeleteFunc(w.own[w.name()], func(s string) bool { return front || s != repo.SnapshotName(w.last.ID) })
	w.own[w.name()] = append(kept, snapshot)
	w.from = snapshot
	w.look()
	if stays && w.chance(2) || !stays {
		w.prove(rev) // while it is there
		sweep := command(w.t, "backy-read", "-b", w.dir(), "--sweep", w.url())
		out, err := output(sweep)
		must(w.t, err)
		if out != "" {
			w.t.Errorf("a sweep writes %q", out)
		}
		w.own[w.name()] = nil
		if stays {
			w.own[w.name()] = []string{snapshot}
		} else {
			w.from = ""
		}
		w.look()
	}
	return rev, want
}

// look fails the test unless the snapshots that are there are those that should be.
func (w *walk) look() {
	w.t.Helper()
	want := slices.Clone(w.others)
	for _, list := range w.own {
		want = append(want, list...)
	}
	w.wantSnapshots(want...)
}

// busy writes to the image until the function that it returns is called.
func (w *walk) busy() (quiet func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	var did []string
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				did = append(did, "meanwhile "+w.use())
			}
		}
	}()
	return func() {
		close(stop)
		<-done
		w.did = append(w.did, did...)
	}
}

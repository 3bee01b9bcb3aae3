package fault

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"backy/pkg/durable"
)

// kernel makes the calls as they are.
var kernel durable.Ops

// except is a call that does nothing for some files, and says that it did.
func except(call func(*os.File) error, lies func(base string) bool) func(*os.File) error {
	return func(f *os.File) error {
		if lies(filepath.Base(f.Name())) {
			return nil
		}
		return call(f)
	}
}

// trial is one backup in a repository of its own, and the moments at which the power may be cut.
type trial struct {
	*history
	published int // when all objects have their names in the pool, and somebody else's work was made durable
	acked     int // when the backup was acknowledged
}

func newTrial(r *recorder, fs, name string, ops durable.Ops, disk []byte) trial {
	t := trial{}
	ops.Syncfs = func(f *os.File) error {
		somebodyElse(r, fs, name)
		t.published = r.mark()
		return kernel.FS(f)
	}
	t.history = newHistory(r, name, ops)
	t.backup("vm1", disk)
	t.acked = r.mark()
	return t
}

// somebodyElse does what makes the file system commit what its journal has, without writing out the files of others.
func somebodyElse(r *recorder, fs, name string) {
	path := filepath.Join(r.mnt, "other-"+name)
	if fs == "btrfs" {
		run(r.t, "btrfs", "subvolume", "create", path)
		return
	}
	if err := kernel.WriteFile(path, []byte("something"), 0o640); err != nil {
		r.t.Error(err)
	}
}

// TestSyncsAreNeeded takes out one after the other of the calls that make something durable. A power cut at the moment
// named then loses what was promised; where all calls are made, it does not. (For syncfs, see TestNamesAreDurable.)
func TestSyncsAreNeeded(t *testing.T) {
	made, published, acked := func(t trial) int { return t.made }, func(t trial) int { return t.published }, func(t trial) int { return t.acked }
	cases := []struct {
		call string // "": all are made
		ops  durable.Ops
		when func(trial) int
	}{
		{"", durable.Ops{}, made},
		{"", durable.Ops{}, published},
		{"", durable.Ops{}, acked},
		{"fdatasync of repo.yaml", durable.Ops{Fdatasync: except(kernel.File, func(base string) bool { return base == "repo.yaml" })}, made},
		// An object has its name in the pool long before the syncfs that ends the backup. If anything else is committed
		// on that file system meanwhile, the name goes with it, but not the content, which is in memory yet.
		{"fdatasync of objects", durable.Ops{Fdatasync: except(kernel.File, func(base string) bool {
			_, err := strconv.Atoi(base)
			return err == nil
		})}, published},
		// The .rev is written after the syncfs, and the fsync of the directory makes only its name durable.
		{"fdatasync of the .rev", durable.Ops{Fdatasync: except(kernel.File, func(base string) bool { return base == "rev" })}, acked},
		// The link of the .rev is the last thing that is done.
		{"fsync of the job's directory", durable.Ops{FsyncDir: except(kernel.Dir, func(base string) bool { return base == "vm1" })}, acked},
	}
	needed := map[string]bool{"": true}
	fileSystems(t, func(t *testing.T, fs string) {
		rnd, r := newRandom(t), newRecorder(t, fs)
		trials := make([]trial, len(cases))
		for i, c := range cases {
			trials[i] = newTrial(r, fs, strconv.Itoa(i), c.ops, distinct(rnd, 8))
		}
		r.stop()
		for i, c := range cases {
			n := c.when(trials[i])
			r.cut(n, 0, func(mnt string) {
				_, err := trials[i].kept(mnt, n)
				if c.call == "" && err != nil {
					t.Errorf("with all calls made: %v", err)
				} else if c.call != "" {
					t.Logf("without %s: %v", c.call, err)
					needed[c.call] = needed[c.call] || err != nil
				}
			})
		}
	})
	for _, c := range cases {
		if !needed[c.call] {
			t.Errorf("nothing is lost without %s, so this test does not show what that is for", c.call)
		}
	}
}

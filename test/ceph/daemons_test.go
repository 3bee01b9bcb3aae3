//go:build ceph

package ceph

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk/rbd/rbdtest"
	"backy/pkg/repo"
)

// newRandom is the random source of a test.
func newRandom() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

// slowly makes a read of a full image of 32 MiB take a while, so that something can happen meanwhile.
var slowly = []string{"--limit-rate", "16M", "--no-holes"}

// dies kills a daemon, and returns what starts it again.
func dies(t *testing.T, daemon string) (again func()) {
	t.Helper()
	rbdtest.Rig(t, "kill", daemon)
	t.Cleanup(func() { rbdtest.Rig(t, "up") })
	return func() { t.Helper(); rbdtest.Rig(t, "up") }
}

// A daemon that is killed while a backup reads delays it, if anything: the monitor is not needed any more, and without the osd
// nothing is answered until it is there again.
func TestDaemonDiesDuringBackup(t *testing.T) {
	v := newVM(t, newRandom(), "daemons", 32<<20, 22)
	j := newJob(t)
	for _, daemon := range []string{"mon", "osd"} {
		v.fill()
		stages := j.stages(append(slices.Clone(slowly), "--full", v.url())...)
		j.underWay(stages...)
		again := dies(t, daemon)
		if daemon == "osd" {
			again()
		}
		must(t, wait(stages...))
		if daemon == "mon" {
			again()
		}
		rev := j.last()
		j.want(rev, v.snap(repo.SnapshotName(rev.ID)))
	}
	if n := len(j.list()); n != 2 {
		t.Errorf("%d revisions", n)
	}
}

// The osd dies while an image is written; what is there in the end is the revision.
func TestOSDDiesDuringRestore(t *testing.T) {
	v := newVM(t, newRandom(), "before", 64<<20, 22)
	v.fill()
	j := newJob(t)
	rev, _ := j.backup(v.url())
	const target = "after"
	restore := command(t, "backy-restore", "-b", j.dir(), "rbd:"+pool+"/"+target)
	must(t, restore.Start())
	until(t, func() bool {
		img, err := rbd.OpenImageReadOnly(v.io, target+".partial", rbd.NoSnapshot)
		if err == nil {
			must(t, img.Close())
		}
		return err == nil
	})
	again := dies(t, "osd")
	again()
	must(t, failed(restore, restore.Wait()))
	j.want(rev, pool+"/"+target)
	rbdtest.RBD(t, "rm", "--no-progress", pool+"/"+target)
}

// Without a monitor nothing begins; that is said in a line. When it is there again, all is well.
func TestNoMonitor(t *testing.T) {
	v := newVM(t, newRandom(), "nomon", 4<<20, 22)
	v.fill()
	j := newJob(t)
	first, _ := j.backup(v.url())
	again := dies(t, "mon")
	stages := j.stages(v.url())
	stages[0].Env = append(os.Environ(), "CEPH_ARGS=--id backup --client_mount_timeout 2")
	start(t, stages...)
	if err := wait(stages...); err == nil {
		t.Error("a backup without a monitor succeeds")
	}
	oneLine(t, stages[0], 1, "no monitor of the cluster has answered within 2 s", "is it up?")
	if list := j.list(); len(list) != 1 {
		t.Errorf("%d revisions", len(list))
	}
	again()
	rev, _ := j.backup(v.url())
	if rev.Read != repo.ReadMap || rev.Base != first.ID {
		t.Errorf("then it was read as %s on %s", rev.Read, rev.Base)
	}
	j.want(rev, v.snap(repo.SnapshotName(rev.ID)))
}

// A cluster without space takes no snapshot. Nothing is committed, and what was begun is noted; when there is space again,
// all is well.
func TestFull(t *testing.T) {
	v, j, base := newBackup(t, "space", 4<<20)
	full := func(share string) {
		for _, kind := range []string{"nearfull", "backfillfull", "full"} {
			rbdtest.Tool(t, nil, "ceph", "osd", "set-"+kind+"-ratio", share)
		}
	}
	is := func(full bool) bool {
		return strings.Contains(rbdtest.Tool(t, nil, "ceph", "health"), "pool(s) full") == full
	}
	t.Cleanup(func() { full("0.95"); until(t, func() bool { return is(false) }) }) // before the image is removed
	full("0.0000001")
	until(t, func() bool { return is(true) })
	stages := j.stages(v.url())
	stages[0].Env = append(os.Environ(), "CEPH_ARGS=--id backup --rados_osd_op_timeout 3")
	start(t, stages...)
	if err := wait(stages...); err == nil {
		t.Error("a backup without space for a snapshot succeeds")
	}
	oneLine(t, stages[0], 1, "make a snapshot of "+v.url(), "the cluster has not answered in time", "has it space?")
	v.wantSnapshots("foreign", ours(base))
	if list := j.list(); len(list) != 1 {
		t.Errorf("%d revisions", len(list))
	}

	full("0.95")
	until(t, func() bool { return is(false) })
	rev, _ := j.backup(v.url())
	if rev.Read != repo.ReadMap || rev.Base != base.ID {
		t.Errorf("then it was read as %s on %s", rev.Read, rev.Base)
	}
	j.want(rev, v.snap(ours(rev)))
	v.wantSnapshots("foreign", ours(base), ours(rev))
}

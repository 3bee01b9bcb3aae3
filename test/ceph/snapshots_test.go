//go:build ceph

package ceph

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"backy/pkg/disk/rbd/rbdtest"
	"backy/pkg/repo"
)

// newBackup is an image, a snapshot of somebody else's, and a job with one revision of the image.
func newBackup(t *testing.T, name string, size int64) (*vm, *job, repo.Revision) {
	v := newVM(t, newRandom(), name, size, 22)
	v.fill()
	v.snapshot("foreign")
	j := newJob(t)
	rev, _ := j.backup(v.url())
	if rev.Read != repo.ReadFull {
		t.Errorf("the first backup was read as %s", rev.Read)
	}
	return v, j, rev
}

func ours(rev repo.Revision) string { return repo.SnapshotName(rev.ID) }

// What was to be compared with is gone: somebody removed the snapshot, or there is another image of that name. Everything
// is compared, and that is said.
func TestBaseSnapshotIsGone(t *testing.T) {
	for name, gone := range map[string]func(*vm, repo.Revision) []string{
		"removed": func(v *vm, base repo.Revision) []string {
			v.removeSnapshot(ours(base))
			return []string{"foreign"}
		},
		"another image": func(v *vm, base repo.Revision) []string {
			v.remove()
			v.create(v.size+1000, 21)
			return nil
		},
		"another image, with a snapshot of that name": func(v *vm, base repo.Revision) []string {
			v.remove()
			v.create(v.size+1000, 21)
			v.snapshot(ours(base))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, j, base := newBackup(t, "gone", 10<<20)
			stay := gone(v, base)
			v.use()
			rev, read := j.backup(v.url())
			if rev.Read != repo.ReadCompare || rev.Base != base.ID {
				t.Errorf("read as %s, on %s", rev.Read, rev.Base)
			}
			says(t, read, ours(base), "compared")
			j.want(rev, v.snap(ours(rev)))
			sweep(t, j, v)
			v.wantSnapshots(append(stay, ours(rev))...)
		})
	}
}

// sweep removes what nobody needs any more.
func sweep(t *testing.T, j *job, v *vm) {
	t.Helper()
	_, err := output(command(t, "backy-read", "-b", j.dir(), "--sweep", v.url()))
	must(t, err)
}

// The snapshot that is read goes away: what comes then may be of any time, so nothing is committed.
func TestSnapshotRemovedWhileRead(t *testing.T) {
	v, j, base := newBackup(t, "reading", 32<<20)
	v.fill()
	stages := j.stages(append(slices.Clone(slowly), v.url())...)
	j.underWay(stages...)
	v.removeSnapshot(theirs(t, v, "foreign", ours(base)))
	v.fill()
	if err := wait(stages...); err == nil {
		t.Error("it succeeds all the same")
	}
	oneLine(t, stages[0], 1, "the image has no snapshot backy-")
	if n := len(j.list()); n != 1 {
		t.Errorf("%d revisions", n)
	}
	rev, _ := j.backup(v.url())
	if rev.Read != repo.ReadMap || rev.Base != base.ID {
		t.Errorf("then it was read as %s, on %s", rev.Read, rev.Base)
	}
	j.want(rev, v.snap(ours(rev)))
	v.wantSnapshots("foreign", ours(base), ours(rev))
}

// theirs is the one snapshot that is there beside these.
func theirs(t *testing.T, v *vm, known ...string) string {
	t.Helper()
	var found []string
	for _, s := range v.snapshots() {
		if !slices.Contains(known, s) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("beside %v there is %v", known, found)
	}
	return found[0]
}

// A reader that is killed leaves its snapshot behind, which is noted; the next run removes it, and nothing else. One that
// cannot go on because another stage was killed removes it itself.
func TestKilled(t *testing.T) {
	for i, stage := range []string{"backy-read", "backy-chunk", "backy-store"} {
		t.Run(stage, func(t *testing.T) {
			v, j, base := newBackup(t, "killed", 32<<20)
			v.fill()
			stages := j.stages(append(slices.Clone(slowly), v.url())...)
			j.underWay(stages...)
			left := theirs(t, v, "foreign", ours(base))
			must(t, stages[i].Process.Kill())
			if err := wait(stages...); err == nil {
				t.Error("it succeeds all the same")
			}
			id, _ := repo.SnapshotID(left)
			note, err := j.repo.ReadNote(id)
			if i == 0 {
				v.wantSnapshots("foreign", ours(base), left)
				if err != nil || note.Snapshot != left {
					t.Errorf("the note is %+v, %v", note, err)
				}
			} else {
				v.wantSnapshots("foreign", ours(base))
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the note is %+v, %v", note, err)
				}
			}
			v.use()
			rev, _ := j.backup(v.url())
			if rev.Read != repo.ReadMap || rev.Base != base.ID {
				t.Errorf("then it was read as %s, on %s", rev.Read, rev.Base)
			}
			j.want(rev, v.snap(ours(rev)))
			v.wantSnapshots("foreign", ours(base), ours(rev))
			if _, err := j.repo.ReadNote(id); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the note is there still: %v", err)
			}
		})
	}
}

// A job that is not there any more leaves nothing on the image, once that is said.
func TestJobIsGone(t *testing.T) {
	v, j, base := newBackup(t, "jobless", 4<<20)
	v.wantSnapshots("foreign", ours(base))
	must(t, os.RemoveAll(j.dir()))
	sweep(t, j, v)
	v.wantSnapshots("foreign")
	notes, err := filepath.Glob(filepath.Join(j.repo.Base, repo.Dot, "reads", "*"))
	must(t, err)
	if len(notes) > 0 {
		t.Errorf("there is still %v", notes)
	}
}

// Who may not make snapshots is told so in a line; what is there can be read by who may read.
func TestMayNotSnapshot(t *testing.T) {
	v, j, base := newBackup(t, "caps", 4<<20)
	keyring := filepath.Join(t.TempDir(), "keyring")
	key := rbdtest.Tool(t, nil, "ceph", "auth", "get-or-create", "client.reader", "mon", "profile rbd", "osd", "profile rbd-read-only pool="+pool)
	must(t, os.WriteFile(keyring, []byte(key), 0o600))
	t.Cleanup(func() { rbdtest.Tool(t, nil, "ceph", "auth", "rm", "client.reader") })
	v.use()

	stages := j.stages(v.url())
	stages[0].Env = append(os.Environ(), "CEPH_ARGS=--id reader --keyring "+keyring)
	start(t, stages...)
	if err := wait(stages...); err == nil {
		t.Error("it succeeds all the same")
	}
	oneLine(t, stages[0], 1, "not permitted", "client.reader", "`profile rbd`")
	v.wantSnapshots("foreign", ours(base))

	stages = j.stages("rbd:" + v.snap("foreign"))
	stages[0].Env = append(os.Environ(), "CEPH_ARGS=--id reader --keyring "+keyring)
	rev := j.pipe(stages...)
	j.want(rev, v.snap("foreign"))
}

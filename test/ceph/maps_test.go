//go:build ceph

package ceph

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"backy/pkg/repo"
)

// objectMap is the name of the object that is the image's map of its objects, or of a snapshot of it.
func (v *vm) objectMap(snapshot string) string {
	v.t.Helper()
	id, err := v.img.GetId()
	must(v.t, err)
	name := "rbd_object_map." + id
	if snapshot == "" {
		return name
	}
	n, err := v.img.GetSnapID(snapshot)
	must(v.t, err)
	return fmt.Sprintf("%s.%016x", name, n)
}

// lie makes the cluster say that nothing has changed since a snapshot after which nothing had been written: its map of
// objects becomes the image's.
func (v *vm) lie(quiet string) {
	v.t.Helper()
	from, to := v.objectMap(quiet), v.objectMap("")
	v.close() // or who has the image open keeps the map in memory
	p := make([]byte, 1<<20)
	n, err := v.io.Read(from, p, 0)
	must(v.t, err)
	must(v.t, v.io.WriteFull(to, p[:n]))
	v.open()
}

// trust is what a job says of its revisions, oldest first.
func (j *job) trust() (list []string) {
	j.t.Helper()
	for _, rev := range j.list() {
		must(j.t, rev.StateErr)
		list = append(list, string(rev.State.Trust))
	}
	return list
}

// reports is what the scrubs and the checks of maps have left as evidence.
func (j *job) reports() string {
	j.t.Helper()
	out, err := output(command(j.t, "backy-scrub", "reports", "list", "-b", j.repo.Base))
	must(j.t, err)
	return out
}

// A map of the cluster's that leaves out what has changed is found out by the blocks that are read all the same. Then
// everything is read and compared with the newest revision that no map has made; those that a map has made are distrusted.
func TestFastDiffLies(t *testing.T) {
	v, j, full := newBackup(t, "lies", 64<<20)
	v.snapshot("clean") // of an image in which nothing has changed since the one before
	v.write(noise(v.rnd, 1000), 20<<20)
	honest, _ := j.backup(v.url())
	if honest.Read != repo.ReadMap || honest.Base != full.ID {
		t.Fatalf("with a true map it was read as %s, on %s", honest.Read, honest.Base)
	}
	for off := int64(0); off < v.size; off += 4 << 20 {
		v.write(noise(v.rnd, 1<<20), off)
	}
	v.lie("clean")

	events := filepath.Join(t.TempDir(), "events")
	rev, read := j.backup("--events", events, "--check", "200", v.url())
	says(t, read, "map", "wrong")
	if rev.Read != repo.ReadCompare || rev.Base != full.ID {
		t.Errorf("then it was read as %s, on %s", rev.Read, rev.Base)
	}
	if got := j.trust(); !slices.Equal(got, []string{"trusted", "distrusted", "trusted"}) {
		t.Errorf("the revisions are %v", got)
	}
	told, err := os.ReadFile(events)
	must(t, err)
	if !strings.Contains(string(told), `"distrusted"`) || !strings.Contains(string(told), honest.ID) {
		t.Errorf("the events do not tell of it: %s", told)
	}
	if got := j.reports(); !strings.Contains(got, honest.ID[:8]) && !strings.Contains(got, j.name) {
		t.Errorf("there is no evidence: %s", got)
	}
	j.want(rev, v.snap(ours(rev)))
	j.want(full, v.snap("clean"))

	// The next one builds on what was compared.
	v.use()
	next, _ := j.backup(v.url())
	if next.Base != rev.ID {
		t.Errorf("the next one is on %s", next.Base)
	}
	j.want(next, v.snap(ours(next)))
}

// One that is not found out makes a wrong revision: as a file it is not checked if that is not wanted. A scrub against the
// source sees it, and the next compare makes it right.
func TestFastDiffLiesUnseen(t *testing.T) {
	v, j, full := newBackup(t, "unseen", 16<<20)
	v.snapshot("clean")
	v.write(noise(v.rnd, 1<<20), 3<<20)
	v.lie("clean")
	v.snapshot("by-hand")
	lie, err := output(command(t, "rbd", "diff", "--whole-object", "--format=json", "--from-snap", ours(full), v.snap("by-hand")))
	must(t, err)
	path := filepath.Join(t.TempDir(), "map.json")
	must(t, os.WriteFile(path, []byte(lie), 0o600))
	wrong, _ := j.backup("--map", path, "--check", "0", "rbd:"+v.snap("by-hand"))
	if wrong.Read != repo.ReadMap || wrong.Changed != 0 {
		t.Fatalf("it was read as %s, %d bytes changed", wrong.Read, wrong.Changed)
	}
	scrub := command(t, "backy-scrub", "-b", j.dir(), "-r", wrong.ID, "-s", "rbd:"+v.snap("by-hand"))
	if _, err := output(scrub); err == nil || scrub.ProcessState.ExitCode() != 3 {
		t.Errorf("the scrub says %v", err)
	}
	if got := j.trust(); !slices.Equal(got, []string{"trusted", "distrusted"}) {
		t.Errorf("the revisions are %v", got)
	}
	rev, _ := j.backup("--compare", v.url())
	if rev.Read != repo.ReadCompare || rev.Base != full.ID {
		t.Errorf("then it was read as %s, on %s", rev.Read, rev.Base)
	}
	j.want(rev, v.snap(ours(rev)))
	j.want(full, v.snap("clean"))
}

// An object of the image is lost, without the image's map knowing. What was stored of it before is not harmed, and a
// compare sees what is there now.
func TestObjectLost(t *testing.T) {
	v, j, full := newBackup(t, "lost", 16<<20)
	before, _, err := hash(command(t, "backy-restore", "-b", j.dir(), "-r", full.ID, "-"), 0)
	must(t, err)
	must(t, v.io.Delete(v.prefix()+".0000000000000002"))

	unseen, _ := j.backup("--check", "0", v.url())
	if unseen.Read != repo.ReadMap || unseen.Changed != 0 {
		t.Errorf("by map it was read as %s, %d bytes changed", unseen.Read, unseen.Changed)
	}
	seen, read := j.backup("--check", "64", v.url()) // all of them
	says(t, read, "map", "wrong")
	if seen.Read != repo.ReadCompare || seen.Base != full.ID || seen.Changed != 4<<20 {
		t.Errorf("with a check it was read as %s, on %s, %d bytes changed", seen.Read, seen.Base, seen.Changed)
	}
	j.want(seen, v.snap(ours(seen)))
	if got := j.trust(); !slices.Equal(got, []string{"trusted", "distrusted", "trusted"}) {
		t.Errorf("the revisions are %v", got)
	}
	_, err = output(command(t, "backy-scrub", "-b", j.dir(), "-r", seen.ID, "-s", "rbd:"+v.snap(ours(seen))))
	must(t, err)

	after, _, err := hash(command(t, "backy-restore", "-b", j.dir(), "-r", full.ID, "-"), 0)
	must(t, err)
	if before != after {
		t.Error("what was stored before is another now")
	}
	_, err = output(command(t, "backy-scrub", "-b", j.dir(), "-r", full.ID))
	must(t, err)
}

// Features come and go, and maps of objects with them. A backup is right all the same, and reads what has changed.
func TestMapsComeAndGo(t *testing.T) {
	v, j, base := newBackup(t, "features", 32<<20)
	remove := func(snapshot string) {
		name := v.objectMap(snapshot)
		v.close() // or who has the image open writes it again
		must(t, v.io.Delete(name))
		v.open()
	}
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"object-map off", func() { v.features(false, "object-map", "fast-diff") }},
		{"exclusive-lock off", func() { v.features(false, "exclusive-lock") }},
		{"exclusive-lock on", func() { v.features(true, "exclusive-lock") }},
		{"object-map on, and not built", func() { v.features(true, "object-map", "fast-diff") }},
		{"built anew", v.rebuild},
		{"deep-flatten off", func() { v.features(false, "deep-flatten") }},
		{"lost for the base", func() { remove(ours(base)) }},
		{"lost for the image", func() { remove("") }},
		{"lost for both", func() { remove(ours(base)); remove("") }},
		{"built once more", v.rebuild},
	} {
		c.do()
		v.write(noise(v.rnd, 1000), 4<<20-500)
		v.discard(16<<20, 4<<20)
		rev, read := j.backup("--check", "0", v.url())
		j.want(rev, v.snap(ours(rev)))
		if rev.Base != base.ID || rev.Read != repo.ReadMap {
			t.Errorf("%s: read as %s, on %s: %s", c.name, rev.Read, rev.Base, said(read))
		}
		t.Logf("%s: %d bytes read", c.name, rev.ReadBytes)
		v.write(noise(v.rnd, 4<<20), 16<<20)
		base = rev
	}
	sweep(t, j, v)
	v.wantSnapshots("foreign", ours(base))
}

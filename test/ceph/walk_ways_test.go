//go:build ceph

package ceph

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"backy/pkg/disk/rbd/rbdtest"
	"backy/pkg/repo"
)

// byMap reads a snapshot of the image by the map that rbd diff makes, or, if there is nothing to compare with, without.
func (w *walk) byMap() (repo.Revision, string) {
	w.t.Helper()
	snapshot := w.somebodys(fmt.Sprint("by-hand-", w.round))
	args, block := w.blocks()
	read, want := slices.Clone(args), repo.ReadCompare
	if w.from != "" {
		out, err := output(command(w.t, "rbd", "diff", "--format=json", "--from-snap", w.from, w.snap(snapshot)))
		must(w.t, err)
		path := filepath.Join(filepath.Dir(w.file), "map.json")
		must(w.t, os.WriteFile(path, []byte(out), 0o600))
		read, want = append(read, "--map", path), repo.ReadMap
	}
	if w.last.ID == "" || w.last.Block != block {
		want = repo.ReadFull
	}
	w.say("backy-read %s @%s", strings.Join(read, " "), snapshot)
	rev := w.pipe(w.job.read(append(read, "rbd:"+w.snap(snapshot))...), w.chunk(args...), w.store())
	w.from = snapshot
	return rev, want
}

// byStream has rbd export-diff do what backy-read does.
func (w *walk) byStream() (repo.Revision, string) {
	w.t.Helper()
	snapshot := w.somebodys(fmt.Sprint("by-hand-", w.round))
	export := []string{"export-diff", "--no-progress"}
	var args []string
	if w.from != "" {
		export = append(export, "--from-snap", w.from)
		args = []string{"--base", "last"}
	} else {
		args, _ = w.blocks()
	}
	w.say("rbd export-diff from %q to %s", w.from, snapshot)
	rev := w.pipe(command(w.t, "rbd", append(export, w.snap(snapshot), "-")...), w.chunk(args...), w.store())
	w.from = snapshot
	return rev, repo.ReadForeign
}

// prove fails the test unless a revision is the snapshot that it was made of, by every way there is to see it.
func (w *walk) prove(rev repo.Revision) {
	w.t.Helper()
	if w.proved == rev.ID || w.t.Failed() {
		return
	}
	w.proved = rev.ID
	snapshot, revision := w.snap(w.from), []string{"-b", w.dir(), "-r", rev.ID}
	export := func(image string) *exec.Cmd { return command(w.t, "rbd", "export", "--no-progress", image, "-") }
	restore := func(to ...string) *exec.Cmd {
		return command(w.t, "backy-restore", append(slices.Clone(revision), to...)...)
	}
	target, over := w.restoreTo(rev.Size)
	var want, file, image string
	var size, fileSize, imageSize int64
	must(w.t, together(
		func() (err error) {
			want, size, err = hash(export(snapshot), 0)
			return err
		},
		func() error {
			_, err := output(command(w.t, "backy-scrub", append(slices.Clone(revision), "-s", "rbd:"+snapshot)...))
			return err
		},
		func() error {
			_ = os.Remove(w.file) // there is none at first
			if _, err := output(restore(w.file)); err != nil {
				return err
			}
			return opened(w.file, func(f *os.File) (err error) {
				file, fileSize, err = hashOf(f, 0)
				return err
			})
		},
		func() error {
			if _, err := output(restore(over, "rbd:"+target)); err != nil {
				return err
			}
			var err error
			image, imageSize, err = hash(export(target), rev.Size)
			return err
		}))
	if size != rev.Size || file != want || fileSize != size {
		w.t.Errorf("restored to a file, revision %s is not %s; %d bytes", rev.ID, snapshot, fileSize)
	}
	if image != want || imageSize != w.targetSize {
		w.t.Errorf("restored to an image, %s, revision %s is not %s; %d bytes", over, rev.ID, snapshot, imageSize)
	}
}

// restoreTo is an image to restore to: a new one, or one with something else in it that is at least as large.
func (w *walk) restoreTo(size int64) (image, over string) {
	w.t.Helper()
	image = pool + "/restored"
	if size <= w.targetSize && !w.chance(3) {
		return image, "--force"
	}
	if w.targetSize > 0 {
		rbdtest.RBD(w.t, "rm", "--no-progress", image)
	}
	w.targetSize = size
	return image, "--force=false"
}

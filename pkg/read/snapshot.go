package read

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"backy/pkg/disk"
	"backy/pkg/extent"
	"backy/pkg/freeze"
	"backy/pkg/repo"
)

// fixed tells of a disk whether it never changes.
func fixed(d disk.Disk) bool {
	f, ok := d.(disk.Fixed)
	return ok && f.Fixed()
}

// Sweep removes what earlier reads of this disk by this job have left and nobody needs any more: their notes, with the
// snapshots that these name. left is how many could not be removed, which was told.
func Sweep(ctx context.Context, job *repo.Job, d disk.Disk, source string, log *slog.Logger) (left int, err error) {
	var remove func(string) error
	if image, ok := d.(disk.Snapshotter); ok {
		remove = func(name string) error { return image.RemoveSnapshot(ctx, name) }
	}
	return job.SweepReads(ctx, source, remove, log)
}

// frozenLimit is how long the making of a snapshot may take while something is frozen for it. Where somebody who had the lock
// of an image of Ceph was killed, it takes half a minute; where the cluster is silent, much longer.
const frozenLimit = time.Minute

func (s *stage) sweep(ctx context.Context) error {
	if s.job == nil {
		return nil
	}
	_, err := Sweep(ctx, s.job, s.Disk, s.Source, s.Log)
	return err
}

// snapshot makes a snapshot of our own, if there is to be one. It is noted already. From here on it is what is read.
func (s *stage) snapshot(ctx context.Context) error {
	if s.image == nil {
		return nil
	}
	s.asked = true
	name := repo.SnapshotName(s.id)
	make := func(ctx context.Context) error {
		if s.Freeze != nil {
			var done context.CancelFunc
			ctx, done = context.WithTimeoutCause(ctx, frozenLimit, fmt.Errorf("it was not there after %s, and nothing is to stay frozen for longer than that", frozenLimit))
			defer done()
		}
		err := s.image.Snapshot(ctx, name)
		s.made, s.refused = err == nil, errors.Is(err, fs.ErrPermission) && !s.others
		return err
	}
	there := func(ctx context.Context) (bool, error) {
		s.others = true
		d, err := s.image.OpenSnapshot(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err == nil {
			err = d.Close()
		}
		return err == nil, err
	}
	var err error
	if s.Freeze != nil {
		err = s.Freeze.Around(ctx, freeze.Snapshot{Name: name, Make: make, There: there})
	} else {
		err = make(ctx)
	}
	if err == nil { // opened only now: nothing is frozen any more
		s.snap, err = s.image.OpenSnapshot(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("make a snapshot of %s: %w", s.Source, err)
	}
	s.made, s.Disk, s.Size = true, s.snap, s.snap.Size()
	if err := repo.CheckSize(s.Size); err != nil {
		return fmt.Errorf("%s@%s: %w", s.Source, name, err)
	}
	return nil
}

// removeLimit is how long it may take to remove the snapshot of a read that failed: it may have failed because the
// cluster is silent, and who interrupted it waits.
const removeLimit = 3 * time.Second

// unsnap removes the snapshot of a read that failed, and then its note. Where that does not work now, or it may be made yet
// by who was asked to, the note stays, and the job's next read of this disk does it. Of one that we may not make only the note
// goes.
func (s *stage) unsnap(ctx context.Context) {
	if !s.asked {
		return
	}
	if s.snap != nil {
		_ = s.snap.Close()
		s.snap = nil
	}
	if s.refused {
		if err := s.Repo.ForgetRead(s.id); err != nil {
			s.Log.Warn("the note of the read that failed stays until the job's next read of this disk", "read", s.id, "error", err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
	defer cancel()
	name := repo.SnapshotName(s.id)
	err := s.image.RemoveSnapshot(ctx, name)
	if !s.made {
		return
	}
	if err == nil {
		err = s.Repo.ForgetRead(s.id)
	}
	if err != nil {
		s.Log.Warn("the snapshot of the read that failed stays until the job's next read of this disk", "snapshot", name, "error", err)
	}
}

// close ends what is open.
func (s *stage) close() {
	if s.snap != nil {
		_ = s.snap.Close() // all was read, or that failed
	}
	for _, session := range s.sessions {
		session.Close()
	}
}

// askDisk asks the snapshot what has changed since the base's, if that is one of ours of the same disk. Where it cannot
// tell, everything is read and compared.
func (s *stage) askDisk(ctx context.Context) error {
	if s.snap == nil || s.base == nil || s.Compare {
		return nil
	}
	differ, ok := s.snap.(disk.Differ)
	from := repo.SnapshotName(s.base.ID)
	if !ok || s.base.Snapshot != from || s.base.Source != s.Source {
		s.Log.Info("the base was not read from a snapshot of this disk that was kept; everything is read and compared", "base", s.base.ID)
		return nil
	}
	change, err := differ.Changes(ctx, from, s.block)
	if errors.As(err, &s.doubt) {
		err = nil
	}
	if err == nil {
		change, err = extent.NewMap(change, s.Size)
	}
	if err == nil {
		err = s.sameAsBase(ctx, from)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		s.change, s.mode = change, repo.ReadMap
	case errors.Is(err, fs.ErrNotExist):
		s.Log.Info("the base's snapshot is gone; everything is read and compared", "snapshot", from)
	default:
		s.Log.Warn("what has changed cannot be told; everything is read and compared", "snapshot", from, "error", err)
	}
	return nil
}

// sameAsBase looks, after it was used, whether the base's snapshot is still there, and the one that was read: somebody may
// have removed it and made another of its name. What has changed in between no map would tell.
func (s *stage) sameAsBase(ctx context.Context, name string) error {
	d, err := s.image.OpenSnapshot(ctx, name)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Size() != s.base.Size {
		return fmt.Errorf("it has %d bytes, and the base has %d", d.Size(), s.base.Size)
	}
	note, err := s.Repo.ReadNote(s.base.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // of an imported revision
	}
	dated, ok := d.(disk.Stater)
	if err != nil || note.Made.IsZero() || !ok {
		return err
	}
	now, err := dated.Stat()
	if err == nil && !now.Modified.Equal(note.Made) {
		err = fmt.Errorf("it is not the one that the base was read from, but another of its name, made at %s", now.Modified.UTC().Format(time.RFC3339))
	}
	return err
}

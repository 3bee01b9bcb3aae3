package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/blockmap"
	"backy/pkg/object"
)

// aheadOfClock is how far the newest revision may be ahead of the clock before its age counts as unknown.
const aheadOfClock = 5 * time.Minute

// Commit makes the revision: all that it reaches is in place and durable before the name that makes it visible is, and
// that name is durable when Commit returns. The revision's Time, Base, Stored and Duration are set here; the rest is
// the caller's, a State that is distrusted already too. Where the id is there with the same content, that is returned.
func (w *Writer) Commit(ctx context.Context, rev Revision, tags []string, log *slog.Logger) (Revision, error) {
	rev, err := w.commit(ctx, rev, tags, log)
	return rev, w.explain(err)
}

func (w *Writer) commit(ctx context.Context, rev Revision, tags []string, log *slog.Logger) (Revision, error) {
	if err := w.pool.Publish(ctx); err != nil {
		return rev, err
	}
	if err := w.remark(); err != nil {
		return rev, err
	}
	if err := w.heal(ctx); err != nil {
		return rev, err
	}
	if err := w.closed(ctx, rev.Map()); err != nil {
		return rev, err
	}
	rev.State.Tags = tags
	if rev.State.Trust != Distrusted { // as an imported one may come
		rev.State.Trust = Trusted
	}
	var err error
	if rev.State.Damage, err = w.inherited(ctx, rev.Map()); err != nil {
		return rev, err
	}
	if len(rev.State.Damage) > 0 && rev.State.Trust != Distrusted {
		rev.State.Trust, rev.State.Why = Distrusted, WhyDamage
	}
	if w.base != nil {
		rev.Base = w.base.ID
		if rev.WholeRead().IsZero() {
			rev.Compared = w.base.WholeRead()
		}
		w.inheritDoubt(&rev)
	}
	rev.Stored, rev.Job = w.stored, w.job.Name
	begun := rev.Time
	if rev.Time, err = w.after(ctx, begun, log); err != nil {
		return rev, err
	}

	// What cannot be read back would be lost as soon as it is made.
	if _, err := ParseRevision(rev.Bytes()); err != nil {
		return rev, fmt.Errorf("the new revision: %w", err)
	}
	if _, err := ParseState(rev.State.Bytes()); err != nil {
		return rev, fmt.Errorf("the new revision's state: %w", err)
	}

	directory, err := w.jobDir()
	if err != nil {
		return rev, err
	}
	defer directory.Close()
	if err := w.placeState(rev); err != nil {
		return rev, err
	}
	// From here on no look-up counts: what was found is made durable together with what was stored.
	if err := w.job.repo.Ops.FS(w.fs); err != nil {
		return rev, fmt.Errorf("make the objects durable: %w", err)
	}
	if err := w.unmark(); err != nil {
		return rev, err
	}
	if !w.Import {
		rev.Duration = min(max(0, w.job.repo.Now().Sub(begun)), maxDuration).Round(time.Millisecond)
	}
	return w.link(directory, rev)
}

// remark learns of what was marked since the start. What this session stored of it counts as a good copy, and is read back.
func (w *Writer) remark() error {
	marks, err := w.job.repo.Marks()
	if err != nil {
		return err
	}
	others := map[object.Key]bool{}
	for key := range marks {
		if !w.marks[key] {
			others[key] = true
		}
	}
	since := maps.Clone(others)
	if err := w.sent.strike(others); err != nil {
		return err
	}
	for key := range since {
		if !others[key] {
			w.healed = append(w.healed, key)
		}
	}
	w.marks = marks
	return nil
}

// heal makes sure that what replaced a bad object is good.
func (w *Writer) heal(ctx context.Context) error {
	for _, key := range w.healed {
		if _, _, err := object.Fetch(ctx, w.pool, w.check[key.Kind], key, nil, nil); err != nil {
			return fmt.Errorf("read back what was to replace a bad object: %w", err)
		}
		delete(w.marks, key)
	}
	return nil
}

// unmark takes the marks of what is healed away, once it is durable: without its mark, an object that is bad again after
// a power cut would be reused.
func (w *Writer) unmark() error {
	for _, key := range w.healed {
		if err := w.job.repo.Unmark(key); err != nil {
			return err
		}
	}
	return nil
}

// closed makes sure that everything the new map reaches is there: inherited from the base's page at the same place, or
// stored by this session, or in place and not bad. A page in place does not vouch for what it names.
func (w *Writer) closed(ctx context.Context, m blockmap.Map) error {
	pages, err := blockmap.NewPages(w.pool)
	if err != nil {
		return err
	}
	old := blockmap.Map{Size: m.Size, BlockSize: m.BlockSize}
	if w.base != nil {
		old = w.base.Map()
	}
	missing := map[object.Key]bool{}
	look := func(key object.Key) error {
		if key.Name.IsZero() {
			return nil
		}
		w.job.repo.step(StepCheck, key.String())
		there, err := w.pool.Has(ctx, key)
		if err != nil {
			return fmt.Errorf("look for %s: %w", key, err)
		}
		if !there || w.marks[key] {
			missing[key] = true
		}
		if len(missing) >= 1<<20 {
			return w.strike(missing)
		}
		return nil
	}
	err = blockmap.Compare(ctx, blockmap.NewCursor(pages, old), blockmap.NewCursor(pages, m), blockmap.Visitor{
		Page: func(_ int, name object.Name) (bool, error) {
			return true, look(object.Key{Kind: object.Page, Name: name})
		},
		Block: func(_ int64, _, name object.Name) error {
			return look(object.Key{Kind: object.Chunk, Name: name})
		},
		OldLost: func(*blockmap.PageError) error { return nil }, // nothing is inherited from a page that cannot be read
	})
	if err == nil {
		err = blockmap.NewCursor(pages, m).Trimmed(ctx)
		if page := (*blockmap.PageError)(nil); errors.As(err, &page) && w.marks[object.Key{Kind: object.Page, Name: page.Name}] {
			err = nil // inherited, and known
		}
	}
	if err != nil {
		return w.unclosed(ctx, err)
	}
	return w.strike(missing)
}

// unclosed says what it means that the new map cannot be read: that of a page that is missing, or is damaged in place and
// so was not sent, the next run makes good. One that came as it is and is no page is refused.
func (w *Writer) unclosed(ctx context.Context, err error) error {
	var page *blockmap.PageError
	if !errors.As(err, &page) {
		return fmt.Errorf("check the new revision: %w", err)
	}
	key := object.Key{Kind: object.Page, Name: page.Name}
	_, _, ferr := object.Fetch(ctx, w.pool, w.check[key.Kind], key, nil, nil)
	switch bad := (*object.BadError)(nil); {
	case errors.Is(err, object.ErrNotExist):
		return again("page %s of the new revision is missing: %w", page.Name, err)
	case errors.As(ferr, &bad):
		return w.job.repo.MarkBad(ferr, key)
	}
	return fmt.Errorf("check the new revision: %w", err)
}

// strike fails when one of the objects was not stored by this session, and empties the set.
func (w *Writer) strike(missing map[object.Key]bool) error {
	if err := w.sent.strike(missing); err != nil {
		return err
	}
	for key := range missing {
		return again("%s, and %d more objects of the new revision, are not in the repository: they were purged meanwhile, or the stream lacks them", key, len(missing)-1)
	}
	return nil
}

// inherited lists where the new map reaches objects that are marked as bad.
func (w *Writer) inherited(ctx context.Context, m blockmap.Map) ([]Range, error) {
	if len(w.marks) == 0 {
		return nil, nil
	}
	pages, err := blockmap.NewPages(w.pool)
	if err != nil {
		return nil, err
	}
	var damage []Range
	err = blockmap.Walk(ctx, pages, m, blockmap.Visitor{
		Block: func(block int64, _, name object.Name) error {
			if w.marks[object.Key{Kind: object.Chunk, Name: name}] {
				offset, length := m.Range(block, block+1)
				damage = AddRange(damage, offset, length)
			}
			return nil
		},
		Lost: func(e *blockmap.PageError) error {
			offset, length := m.Range(e.From, e.To)
			damage = AddRange(damage, offset, length)
			return nil
		},
	})
	return damage, err
}

// inheritDoubt distrusts the revision where its base was distrusted meanwhile: what it did not read may differ too.
func (w *Writer) inheritDoubt(rev *Revision) {
	if base, err := w.job.Get(w.base.ID); err == nil && w.base.FitBase() && !base.FitBase() && base.StateErr == nil {
		rev.State.Trust, rev.State.Why = base.State.Trust, base.State.Why
	}
}

// after is the revision's time: when the read began, but later than the newest revision's. One that is imported keeps its
// place in history.
func (w *Writer) after(ctx context.Context, begun time.Time, log *slog.Logger) (time.Time, error) {
	begun = begun.UTC().Truncate(time.Microsecond)
	list, _, err := w.job.List()
	if err != nil || len(list) == 0 {
		return begun, err
	}
	if w.Import {
		for slices.ContainsFunc(list, func(r Revision) bool { return r.Time.Equal(begun) }) {
			begun = begun.Add(time.Microsecond)
		}
		return begun, nil
	}
	newest := list[len(list)-1]
	if newest.Time.After(w.job.repo.Now().Add(aheadOfClock)) {
		log.WarnContext(ctx, "the newest revision is ahead of the clock, so its age is unknown", "revision", newest.ID, "time", newest.Time)
	}
	if !begun.After(newest.Time) {
		begun = newest.Time.Add(time.Microsecond)
	}
	return begun, nil
}

// jobDir opens the job's directory. One that was there at the start has to be there still; otherwise it is made, and so
// that it stays, each directory on the way is made durable in the one above.
func (w *Writer) jobDir() (*os.File, error) {
	if !w.existed {
		if err := w.job.repo.Ops.MkdirAll(w.job.Dir(), 0o750); err != nil {
			return nil, fmt.Errorf("make the job's directory: %w", err)
		}
	}
	d, err := os.Open(w.job.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the job's directory %s was removed or renamed during the backup", w.job.Dir())
	}
	return d, err
}

// placeState puts the state where the revision will be. The syncfs to come makes it durable, its name too; without the
// .rev it means nothing.
func (w *Writer) placeState(rev Revision) error {
	temp := w.staging("state")
	if err := os.WriteFile(temp, rev.State.Bytes(), 0o640); err != nil {
		return err
	}
	path := w.job.file(rev.ID + stateSuffix)
	if _, err := os.Lstat(w.job.file(rev.ID + revSuffix)); err == nil {
		return nil // committed before; its state is its own
	}
	return os.Rename(temp, path)
}

// link makes the revision visible: the .rev is durable in the staging directory first, and is linked from there by its
// path, so that a purge that took the session for over has taken this away too.
func (w *Writer) link(directory *os.File, rev Revision) (Revision, error) {
	ops := w.job.repo.Ops
	if err := ops.WriteFile(w.staging("rev"), rev.Bytes(), 0o640); err != nil {
		return rev, err
	}
	w.job.repo.step(StepCommit, rev.ID)
	err := unix.Linkat(unix.AT_FDCWD, w.staging("rev"), int(directory.Fd()), rev.ID+revSuffix, 0)
	if errors.Is(err, fs.ErrExist) {
		there, err := w.job.Get(rev.ID)
		if err != nil {
			return rev, err
		}
		if there.Root != rev.Root || there.Size != rev.Size || there.Block != rev.Block {
			return rev, fmt.Errorf("revision %s is there already, with another content", rev.ID)
		}
		rev = there
	} else if err != nil {
		return rev, &os.LinkError{Op: "link", Old: w.staging("rev"), New: w.job.file(rev.ID + revSuffix), Err: err}
	}
	if err := ops.Dir(directory); err != nil {
		return rev, fmt.Errorf("the revision may not survive a power cut: %w", err)
	}
	return rev, nil
}

package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/object/dir"
)

// WriterOptions say how a writer goes about it.
type WriterOptions struct {
	MinFree float64 // share of the disk that stays free: below it nothing more is stored; 0 for no limit
	Import  bool    // the revision was made elsewhere, and keeps its time and duration
	Verify  bool    // objects are unpacked and checked against their names before they are stored

	// Revision is the id of the revision to be, where it is known before Begin: then the note of its read is let alone.
	Revision string
}

// Writer is the one session that stores a revision of a job. Its life: NewWriter, Begin, Put, Commit, Close.
type Writer struct {
	WriterOptions
	job     *Job
	id      string
	staged  bool // the staging directory was made
	lock    *Lock
	session *Session
	fs      *os.File // for syncfs, opened before the first write
	pool    *dir.Writer
	sent    *sentLog
	marks   Marks
	healed  []object.Key
	base    *Revision // nil: none
	block   int64     // of the new revision, bytes
	existed bool      // the job's directory, at the start
	check   map[object.Kind]*object.Decoder
	content []byte
	stored  int64
	toCheck int64 // bytes until the next look at the free space
}

// freeEvery is how much is stored between two looks at the free space, bytes, at most.
const freeEvery = 64 << 20

// NewWriter takes the job's backup lock, makes the session's staging directory, once, and makes sure that it works.
func (j *Job) NewWriter(o WriterOptions) (*Writer, error) {
	r := j.repo
	if err := checkMount(r.Base); err != nil {
		return nil, err
	}
	if err := j.refuseLinks(); err != nil {
		return nil, err
	}
	lock, err := r.lock(lockName(j.Name, "backup"), "the backup of "+j.Name)
	if err != nil {
		return nil, err
	}
	w := &Writer{WriterOptions: o, job: j, id: NewID(), lock: lock}
	if err := w.prepare(); err != nil {
		over := w.staged && gone(w.staging())
		err = fmt.Errorf("start a session in %s: %w", r.Base, w.explain(err))
		w.Close()
		if over { // a purge took it for left over, for nothing in it was locked yet: once more, as another session
			return j.NewWriter(o)
		}
		return nil, err
	}
	return w, nil
}

func (w *Writer) prepare() (err error) {
	r := w.job.repo
	if w.fs, err = os.Open(r.path()); err != nil {
		return err
	}
	r.step(StepStage, w.id)
	if err := os.Mkdir(w.staging(), 0o750); err != nil {
		return err
	}
	w.staged = true
	home := nearest(w.job.Dir())
	sweepProbes(r.path("chunks"))
	sweepProbes(home)
	if err := r.probe(w.staging(), r.path("chunks"), home); err != nil {
		return err
	}
	switch _, err := os.Lstat(w.job.Dir()); {
	case err == nil:
		w.existed = true
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if w.marks, err = r.Marks(); err != nil {
		return err
	}
	if w.sent, err = newSentLog(w.staging("sent")); err != nil {
		return err
	}
	if _, err := tryLock(w.sent.file); err != nil { // so that a purge does not take the staging for left over
		return err
	}
	if gone(w.staging()) {
		return ErrSessionEnded
	}
	w.check = map[object.Kind]*object.Decoder{}
	for kind, limit := range map[object.Kind]int{object.Chunk: MaxBlock, object.Page: blockmap.MaxPage} {
		if w.check[kind], err = object.NewDecoder(limit); err != nil {
			return err
		}
	}
	w.pool = r.pool.Writer(w.staging(), r.Ops)
	return w.room()
}

// sweepProbes removes what probes that were killed have left in a directory. One that is under way does not mind.
func sweepProbes(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), probePrefix) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // an empty file that nobody looks at; the next one tries again
		}
	}
}

// staging is a path in the session's directory. It is always named by path: after a fence there is nothing there.
func (w *Writer) staging(parts ...string) string {
	return w.job.repo.path(append([]string{"tmp", w.id}, parts...)...)
}

// Stored is how many bytes the objects put so far have added to the repository.
func (w *Writer) Stored() int64 { return w.stored }

// Begin registers the session for a revision with blocks of this size, with the base that it builds on and the root it
// is thought to have, if any ("" for none), and makes sure that the base is there. It comes before any look-up.
func (w *Writer) Begin(baseID string, root object.Name, block int64) error {
	if baseID == "" {
		root = object.Name{}
	}
	w.block = block
	var err error
	if w.session, err = w.job.repo.register(w.id, kindWriter, root, w.Revision); err != nil {
		return w.explain(err)
	}
	if baseID != "" {
		w.job.repo.step(StepBase, baseID)
		base, err := w.job.Get(baseID)
		if errors.Is(err, ErrNoRevision) {
			return again("the base %s was forgotten meanwhile", baseID)
		}
		if err != nil {
			return fmt.Errorf("the base: %w", err)
		}
		if base.Root != root || base.Block != block {
			return fmt.Errorf("the stream builds on %s with another root or block size than the revision has; is it from another repository?", baseID)
		}
		if !base.FitBase() {
			return again("the base %s was distrusted meanwhile", baseID)
		}
		w.base = &base
	}
	w.job.repo.step(StepAlive, w.id)
	return w.session.Alive()
}

// Put stores an object unless it is in place and good as far as is known. The frame is the caller's again afterwards.
func (w *Writer) Put(ctx context.Context, key object.Key, frame []byte) error {
	if w.Verify {
		content, err := w.check[key.Kind].Decode(key, w.content, frame)
		if err != nil {
			return fmt.Errorf("the stream: %w", err)
		}
		w.content = content
		if key.Kind == object.Chunk && int64(len(content)) != w.block {
			return fmt.Errorf("the stream: %s holds %d bytes, and a block has %d", key, len(content), w.block)
		}
	}
	w.job.repo.step(StepPublish, key.String())
	bad := w.marks[key]
	if !bad {
		there, err := w.pool.Has(ctx, key)
		if there && err == nil { // whoever sends it may have read it since, and marked it
			bad, err = w.job.repo.isMarked(key)
		}
		if err != nil || there && !bad {
			return err
		}
	}
	if bad {
		w.marks[key] = true
		w.healed = append(w.healed, key)
	}
	if w.toCheck -= int64(len(frame)); w.toCheck < 0 {
		if err := w.room(); err != nil {
			return err
		}
	}
	if err := w.pool.Put(ctx, key, frame); err != nil {
		return w.explain(err)
	}
	w.stored += int64(len(frame))
	return w.sent.add(key)
}

// room refuses to fill the disk for everybody. The less there is to spare, the sooner it is to be asked again.
func (w *Writer) room() error {
	w.toCheck = freeEvery
	if w.MinFree <= 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(w.job.repo.Base, &st); err != nil {
		return fmt.Errorf("look at the free space: %w", err)
	}
	free := float64(st.Bavail) / float64(max(st.Blocks, 1))
	if spare := (free - w.MinFree) * float64(st.Blocks) * float64(st.Bsize); spare/2 < freeEvery {
		w.toCheck = int64(spare / 2)
	}
	if free < w.MinFree {
		return fmt.Errorf("only %.1f %% of the disk under %s is free, and %.1f %% have to stay so; forget revisions and purge, or give a lower --min-free", 100*free, w.job.repo.Base, 100*w.MinFree)
	}
	return nil
}

// explain says in the operator's words what a failure means.
func (w *Writer) explain(err error) error {
	if again := (*AgainError)(nil); err == nil || errors.As(err, &again) {
		return err
	}
	if NoSpace(err) {
		return fmt.Errorf("the disk under %s is full: %w; forget revisions and purge", w.job.repo.Base, err)
	}
	if _, gone := os.Lstat(w.staging()); w.pool != nil && errors.Is(err, fs.ErrNotExist) && errors.Is(gone, fs.ErrNotExist) {
		return again("%w: %w", ErrSessionEnded, err)
	}
	return err
}

// Close ends the session, and removes its staging with all that was not published. The registration stays: purge
// removes it.
func (w *Writer) Close() {
	if w.pool != nil {
		w.pool.Close()
	}
	if w.sent != nil {
		w.sent.close()
	}
	_ = os.RemoveAll(w.staging()) // what is left is purge's
	w.session.Close()
	if w.fs != nil {
		w.fs.Close()
	}
	w.lock.Unlock()
}

// refuseLinks refuses a job's directory that is reached through a symbolic link: purge does not follow it, and would
// not see the job's revisions.
func (j *Job) refuseLinks() error {
	for path := j.Dir(); path != j.repo.Base; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is no directory; a job's directory may be no symbolic link either", path)
		}
	}
	return nil
}

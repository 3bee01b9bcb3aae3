package repo

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/object/dir"
	"backy/pkg/object/objecttest"
)

// The rows of the table of what is necessary in purge, replayed against a real repository: actors are stopped at steps
// that bear the names of the model's, in the order of a trace by which something would be lost without the word in
// question. The model shows that it would; here nothing may be lost.

// stage is a repository with actors, and two disks as in the model: A has a block x, B a block z, too, under a page of its
// own.
type stage struct {
	t    *testing.T
	base string
	jobs [2]*Job
}

var (
	diskA = append(content{"x"}, make(content, blockmap.Fanout)...)
	diskB = append(append(content{"x"}, make(content, blockmap.Fanout-1)...), "z")
)

// unsent is a disk whose stream leaves out what words name: the chunker found it.
func unsent(disk content) content {
	left := make(content, len(disk))
	for i, word := range disk {
		if left[i] = word; word != "" {
			left[i] = "unsent " + word
		}
	}
	return left
}

func newStage(t *testing.T) *stage {
	t.Helper()
	j := newJob(t)
	other, err := j.repo.Job("vm2")
	if err != nil {
		t.Fatal(err)
	}
	return &stage{t, j.repo.Base, [2]*Job{j, other}}
}

// store stores a revision while nothing else happens.
func (s *stage) store(disk content) Revision { return stored(s.t, s.jobs[0], "", disk) }

// actor is somebody at work in a process of its own, as far as a repository can tell.
type actor struct {
	*stage
	repo    *Repo
	reached chan bool   // it came to where it is to stop; closed when it has ended
	resume  chan func() // what to do before it goes on
	stop    func(step Step, what string) bool
	err     error
}

// actor starts f, which comes to its first stop when it is told to.
func (s *stage) actor(f func(r *Repo) error) *actor {
	s.t.Helper()
	a := &actor{stage: s, reached: make(chan bool), resume: make(chan func())}
	r, _, err := Open(s.base, World{Now: s.jobs[0].repo.Now, Step: func(step Step, what string) {
		if a.stop != nil && a.stop(step, what) {
			a.reached <- true
			(<-a.resume)()
		}
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	a.repo = r
	go func() {
		defer close(a.reached)
		(<-a.resume)()
		a.err = f(r)
	}()
	return a
}

// to lets it go on until just before a step (about what is named, if anything is).
func (a *actor) to(step Step, what ...string) {
	a.t.Helper()
	a.stop = func(s Step, w string) bool { return s == step && strings.Contains(w, strings.Join(what, "")) }
	a.resume <- func() {}
	if !<-a.reached {
		a.t.Fatalf("it ended before it came to %s %s: %v", step, what, a.err)
	}
}

// finish lets it go on to its end.
func (a *actor) finish() error {
	a.stop = nil
	a.resume <- func() {}
	<-a.reached
	return a.err
}

// kill ends it where it is.
func (a *actor) kill() {
	a.resume <- runtime.Goexit
	<-a.reached
}

// purge is an actor that purges.
func (s *stage) purge(o PurgeOptions) *actor {
	return s.actor(func(r *Repo) error {
		o.Force = true
		_, err := r.Purge(ctx, o)
		return err
	})
}

// purgeNow purges while all others stand still.
func (s *stage) purgeNow() {
	s.t.Helper()
	if err := s.startPurge().finish(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) startPurge() *actor { return s.purge(PurgeOptions{}) }

// writer is an actor that stores a disk as a revision, in a job of its own for each number.
type writer struct {
	*actor
	w   *Writer
	rev Revision
}

func (s *stage) writer(job int, base *Revision, disk content) *writer {
	w := &writer{}
	w.actor = s.actor(func(r *Repo) error {
		j := &Job{s.jobs[job].Name, r}
		var err error
		if w.w, err = j.NewWriter(WriterOptions{}); err != nil {
			return err
		}
		defer w.w.Close()
		w.rev, err = send(s.t, w.w, base, disk)
		return err
	})
	return w
}

// committed lets the writer go on to its end, which is that of a commit.
func (w *writer) committed() Revision {
	w.t.Helper()
	err := w.finish()
	return must(w.t, w.rev, err)
}

// send sends a disk to a writer. What begins with "unsent" is what the chunker found.
func send(t *testing.T, w *Writer, base *Revision, disk content) (Revision, error) {
	m, id := blockmap.Map{BlockSize: MinBlock}, ""
	if base != nil {
		m, id = base.Map(), base.ID
	}
	if err := w.Begin(id, m.Root, MinBlock); err != nil {
		return Revision{}, err
	}
	pages, err := blockmap.NewPages(w.job.repo.pool)
	if err != nil {
		return Revision{}, err
	}
	enc, err := object.NewEncoder()
	if err != nil {
		return Revision{}, err
	}
	found := false
	e := blockmap.NewEditor(blockmap.NewCursor(pages, m), int64(len(disk))*MinBlock, func(name object.Name, text []byte) error {
		if found {
			return nil
		}
		frame, err := enc.Encode(nil, text)
		if err != nil {
			return err
		}
		return w.Put(ctx, object.Key{Kind: object.Page, Name: name}, frame)
	})
	for i, word := range disk {
		var name object.Name
		if word != "" {
			word, found = strings.CutPrefix(word, "unsent ")
			key, frame := objecttest.Object(t, object.Chunk, word, MinBlock)
			if name = key.Name; !found {
				if err := w.Put(ctx, key, frame); err != nil {
					return Revision{}, err
				}
			}
		}
		if err := e.Set(ctx, int64(i), name); err != nil {
			return Revision{}, err
		}
	}
	root, err := e.Finish(ctx)
	if err != nil {
		return Revision{}, err
	}
	return w.Commit(ctx, Revision{ID: NewID(), Time: start, Source: "test", Size: e.Size, Block: MinBlock, Root: root, Read: ReadFull}, []string{}, quiet)
}

// again fails unless an error says to run it again, and nothing of the revision is there.
func (s *stage) again(err error) {
	s.t.Helper()
	if more := (*AgainError)(nil); !errors.As(err, &more) {
		s.t.Errorf("%v; want one that says to run it again", err)
	}
}

func (s *stage) forget(r Revision) { forgotten(s.t, &Job{r.Job, s.jobs[0].repo}, r.ID) }

// whole fails unless all that a revision reaches can be read.
func (s *stage) whole(r Revision) { s.t.Helper(); whole(s.t, s.jobs[0], r) }

// over fails unless the revisions are those that are there, and whole, and purge leaves them and nothing else.
func (s *stage) over(want ...Revision) {
	s.t.Helper()
	r := s.jobs[0].repo
	check := func() {
		list, err := r.everyRevision(ctx)
		if err != nil || len(list) != len(want) {
			s.t.Errorf("there are %d revisions, want %d; %v", len(list), len(want), err)
		}
		for _, rev := range want {
			s.whole(rev)
		}
	}
	check()
	s.purgeNow()
	s.purgeNow()
	check()
	if report := purged(s.t, r, PurgeOptions{DryRun: true}); report.Moved.Objects != 0 || report.Back.Objects != 0 {
		s.t.Errorf("after purges: %+v", report)
	}
	empty(s.t, r, "limbo", "tmp", "sessions")
}

// inPlace reports whether the chunk of a word is where a writer finds it.
func (s *stage) inPlace(word string) bool {
	return !gone(s.jobs[0].repo.pool.Path(object.Key{Kind: object.Chunk, Name: s.chunk(word)}))
}

func (s *stage) chunk(word string) object.Name {
	key, _ := objecttest.Object(s.t, object.Chunk, word, MinBlock)
	return key.Name
}

// garbage stores a disk and forgets it, so that its objects are in place and nobody needs them.
func (s *stage) garbage(disk content) { s.forget(s.store(disk)) }

func TestRow01TheStoreLooksForWhatTheStreamLeavesOut(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskA)
	s.garbage(diskB)
	w := s.writer(0, &r0, unsent(diskB))
	w.to(StepCheck)
	s.purgeNow() // moves z
	s.again(w.finish())
	s.over(r0)
}

func TestRow02APageInPlaceDoesNotVouch(t *testing.T) {
	s := newStage(t)
	r0 := s.store(content{"other"})
	// The first writer publishes the root of B, and is killed before it publishes the page over x.
	j := s.jobs[1]
	w1, err := j.NewWriter(WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w1.Begin("", object.Name{}, MinBlock); err != nil {
		t.Fatal(err)
	}
	enc, err := object.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	z, frame := objecttest.Object(t, object.Chunk, "z", MinBlock)
	put := func(key object.Key, frame []byte) {
		if err := w1.Put(ctx, key, frame); err != nil {
			t.Fatal(err)
		}
	}
	put(z, frame)
	for _, text := range pagesOf(t, diskB)[1:] { // the first is that over x
		frame, err := enc.Encode(nil, text)
		if err != nil {
			t.Fatal(err)
		}
		put(object.Key{Kind: object.Page, Name: object.Sum(text)}, frame)
	}
	if err := w1.pool.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	w1.session.Close()
	w2 := s.writer(0, nil, unsent(diskB))
	s.again(w2.finish())
	w1.Close()
	s.over(r0)
}

// pagesOf are the texts of a disk's pages, the root last.
func pagesOf(t *testing.T, disk content) (pages [][]byte) {
	t.Helper()
	e := blockmap.NewEditor(blockmap.NewCursor(nil, blockmap.Map{BlockSize: MinBlock}), int64(len(disk))*MinBlock, func(_ object.Name, text []byte) error {
		pages = append(pages, text)
		return nil
	})
	for i, word := range disk {
		if word == "" {
			continue
		}
		key, _ := objecttest.Object(t, object.Chunk, word, MinBlock)
		if err := e.Set(ctx, int64(i), key.Name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	return pages
}

func TestRow03AnObjectInLimboIsNotPresent(t *testing.T) {
	for _, sent := range []bool{false, true} {
		s := newStage(t)
		s.garbage(diskA)
		purge := s.startPurge()
		purge.to(StepRecord) // all is moved, and the writers are listed
		disk := unsent(diskA)
		if sent {
			disk = diskA
		}
		w := s.writer(1, nil, disk)
		err := w.finish()
		if err := purge.finish(); err != nil {
			t.Fatal(err)
		}
		if sent {
			s.over(must(t, w.rev, err)) // it was stored anew
		} else {
			s.again(err)
			s.over()
		}
	}
}

func TestRow04TheBaseIsLookedForAfterRegistering(t *testing.T) {
	for _, kind := range []string{"writer", "reader"} {
		s := newStage(t)
		r0 := s.store(diskA)
		w := s.writer(0, &r0, unsent(diskA))
		if kind == "reader" {
			w.actor = s.actor(func(r *Repo) error { _, _, err := r.Read(r0); return err })
		}
		w.to(StepRegister)
		s.forget(r0)
		killed := s.startPurge()
		killed.to(StepRecord) // all is moved
		killed.kill()
		s.purgeNow()
		s.again(w.finish())
		s.over()
	}
}

// Rows 5 and 6: a chain of revisions, each built on the one before and committed when the revisions have been listed, each
// base forgotten. What holds the objects is the registration of a session that has ended.
func TestRow05And06RegistrationsOutliveTheirSessions(t *testing.T) {
	s := newStage(t)
	last := s.store(diskA)
	for range 3 {
		w := s.writer(0, &last, unsent(diskA))
		w.to(StepCommit)
		s.forget(last)
		purge := s.startPurge()
		purge.to(StepRegistrations)
		last = w.committed()
		purge.to(StepMark) // the listings are made
		if gone(purge.repo.path("sessions", w.w.id)) {
			t.Error("the registration was removed between the listings")
		}
		if err := purge.finish(); err != nil {
			t.Fatal(err)
		}
		if !s.inPlace("x") {
			t.Error("x was moved")
		}
		s.whole(last)
	}
	s.over(last)
}

func TestRow07And08And16RegistrationsOfReadersKeepWhatTheirRootsReach(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskB)
	var session *Session
	reader := s.actor(func(r *Repo) (err error) { session, _, err = r.Read(r0); return err })
	reader.to(StepAlive) // it has seen that the revision is there
	purge := s.startPurge()
	purge.to(StepRevisions)
	s.forget(r0)
	purge.to(StepRegistrations)
	if err := reader.finish(); err != nil {
		t.Fatal(err)
	}
	if err := purge.finish(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.purgeNow()
		s.whole(r0)
	}
	session.Close()
	s.over()
}

func TestRow07RegistrationsAreListedAfterTheRevisions(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskB)
	s.garbage(diskA)
	w := s.writer(0, &r0, unsent(diskA))
	w.to(StepCommit)
	first := s.startPurge()
	first.to(StepRegistrations)
	rev := w.committed()
	first.to(StepRecord) // the root of A is moved
	first.to(StepFence)  // of the next pass
	first.kill()
	purge := s.startPurge()
	purge.to(StepRevisions)
	var session *Session
	reader := s.actor(func(r *Repo) (err error) { session, _, err = r.Read(rev); return err })
	reader.to(StepAlive)
	s.forget(rev)
	if err := purge.finish(); err != nil {
		t.Fatal(err)
	}
	if err := reader.finish(); err != nil {
		t.Fatal(err)
	}
	s.whole(rev)
	session.Close()
	s.over(r0)
}

func TestRow16RegistrationsOfWritersKeepWhatTheirRootsReach(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskA)
	w := s.writer(0, &r0, diskB)
	w.to(StepPublish)
	s.forget(r0)
	s.purgeNow()
	s.purgeNow()
	s.over(w.committed())
}

func TestRow09TheRecordIsTakenAfterTheMoves(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskA)
	s.garbage(diskB)
	purge := s.startPurge()
	purge.to(StepMove) // the record is still to be taken
	w := s.writer(0, &r0, unsent(diskB))
	w.to(StepCommit) // it has found z in place
	if err := purge.finish(); err != nil {
		t.Fatal(err)
	}
	s.purgeNow() // z waits for the writer
	if s.inPlace("z") {
		t.Error("z was not moved")
	}
	s.over(r0, w.committed())
}

func TestRow10WhichEpochsAreRipeIsDecidedBeforeTheListings(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskA)
	s.garbage(diskB)
	w := s.writer(0, &r0, unsent(diskB))
	w.to(StepCommit)
	s.purgeNow() // moves z, which waits for the writer
	purge := s.startPurge()
	purge.to(StepRegistrations)
	rev := w.committed()
	if err := purge.finish(); err != nil {
		t.Fatal(err)
	}
	s.over(r0, rev)
}

func TestRow11AnEpochWithoutARecordIsNotRipe(t *testing.T) {
	for _, at := range []Step{StepWriters, StepRecord} {
		s := newStage(t)
		r0 := s.store(diskA)
		s.garbage(diskB)
		w := s.writer(0, &r0, unsent(diskB))
		w.to(StepCommit)
		killed := s.startPurge()
		killed.to(at)
		killed.kill()
		for name, text := range map[string]string{"record.new": "", "record": recordFormat + "\n"} { // as a full disk leaves it
			write(t, s.jobs[0].repo.path(dir.Limbo, "1", name), text)
		}
		purge := s.startPurge()
		purge.to(StepRegistrations)
		rev := w.committed()
		if err := purge.finish(); err != nil {
			t.Fatal(err)
		}
		s.over(r0, rev)
	}
}

func TestRow12MarksFreeOnlyWhatWasRipeBeforeThem(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskA)
	w := s.writer(0, &r0, diskB)
	w.to(StepCommit) // z is in place
	purge := s.startPurge()
	purge.to(StepRegistrations)
	rev := w.committed()
	purge.to(StepRecord)
	if s.inPlace("z") {
		t.Error("z was not moved")
	}
	if err := purge.finish(); err != nil { // its second pass finds the epoch ripe, and z marked
		t.Fatal(err)
	}
	if !s.inPlace("z") {
		t.Error("z was not moved back")
	}
	s.over(r0, rev)
}

func TestRow13AWriterTakenForDeadCannotCommit(t *testing.T) {
	for _, lost := range []string{"its lock is lost", "an operator ended it"} {
		s := newStage(t)
		r0 := s.store(diskA)
		w := s.writer(0, &r0, unsent(diskA))
		w.to(StepCommit)
		s.forget(r0)
		o := PurgeOptions{}
		if lost == "its lock is lost" {
			w.loseLock()
		} else {
			o.End = []string{w.w.id}
		}
		if err := s.purge(o).finish(); err != nil {
			t.Fatal(err)
		}
		if s.inPlace("x") {
			t.Error("x was not deleted")
		}
		err := w.finish()
		if s.again(err); !errors.Is(err, ErrSessionEnded) {
			t.Error(err)
		}
		s.over()
	}
}

// loseLock lets go of the lock of a writer's registration, as a file server that was restarted does.
func (w *writer) loseLock() {
	w.t.Helper()
	file := w.w.session.file
	other, err := os.Open(os.DevNull)
	if err != nil {
		w.t.Fatal(err)
	}
	w.w.session.file = other
	file.Close()
}

func TestRow14TheStagingIsMadeBeforeRegistering(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskA)
	w := s.writer(0, &r0, diskB)
	w.to(StepBase) // just registered
	if gone(w.repo.path("tmp", w.w.id)) {
		t.Error("it has no staging")
	}
	w.loseLock()
	s.purgeNow()
	s.again(w.finish())
	if !gone(w.repo.path("tmp", w.w.id)) {
		t.Error("it made its staging again")
	}
	s.over(r0)
}

// A reader looks in place, in limbo, and in place again, while what it looks for is moved, or moved back.
func TestRow15AReaderFindsWhatIsMovedBetweenItsLooks(t *testing.T) {
	s := newStage(t)
	r0 := s.store(diskA)
	pool := s.jobs[0].repo.pool
	key := object.Key{Kind: object.Chunk, Name: s.chunk("x")}
	limbo := dir.Open(s.jobs[0].repo.path(dir.Limbo, "1")).Path(key)
	if err := os.MkdirAll(strings.TrimSuffix(limbo, key.Name.String()+".zst"), 0o750); err != nil {
		t.Fatal(err)
	}
	rounds := 0
	for range 500 {
		for _, move := range []func() error{
			func() error { return os.Rename(pool.Path(key), limbo) },
			func() error { return errors.Join(os.Link(limbo, pool.Path(key)), os.Remove(limbo)) },
		} {
			moved := make(chan error)
			go func() { moved <- move() }()
			for open := true; open; rounds++ {
				if _, err := pool.Get(ctx, key, nil); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-moved:
					if open = false; err != nil {
						t.Fatal(err)
					}
				default:
				}
			}
		}
	}
	t.Logf("%d reads beside 1000 moves", rounds)
	s.over(r0)
}

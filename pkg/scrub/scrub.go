// Package scrub reads a repository back: all of its objects in turn, those of some revisions, or a sample, also against
// the disk that they came from. What is bad is marked, and the revisions that reach it are distrusted there; what was
// read whole and is right is verified. An error on the way to an object says nothing about it.
package scrub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/disk"
	"backy/pkg/event"
	"backy/pkg/object"
	"backy/pkg/repo"
)

// Options say what is to be read. With Revisions it is what these reach; without, all objects of the repository.
type Options struct {
	Repo      *repo.Repo
	Revisions []repo.Revision // of one job, in any order; or nil
	Share     float64         // how much is read: 1 all; less of the repository goes by its cursor, of a revision is a sample; 0 nothing
	Limit     time.Duration   // begin to read nothing more after it; 0 is no limit

	// Source is the disk that the one revision was made of: each block is compared with it. Unless all of it was read,
	// a match proves nothing of the rest.
	Source     disk.Disk
	SourceName string
	// Since is the state of the source when it was backed up. Where it changed since, or where that cannot be known, it
	// is not compared. nil: it is taken for what was backed up.
	Since *disk.State
	// Changed takes the sample out of the blocks alone that the revision does not have in common with its base.
	Changed bool

	Lift     bool             // a distrust that an operator spoke is lifted from a revision that was read whole and is right
	HealFrom *repo.Repo       // good copies of what is bad are taken from there; or nil
	Workers  int              // 0: as many as there are cores
	Now      func() time.Time // safe for concurrent use
	Random   *rand.Rand       // of samples; nil is a good one
	Log      *slog.Logger
	Events   *event.Writer
}

// Run reads what is to be read, marks, heals, and changes the trust in revisions accordingly. What is bad is in the
// report, and no error. Where something was found, the report is kept in quarantine/, evidence with it.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Random == nil {
		o.Random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	s := &scrub{Options: o, start: o.Now(), quarantine: o.Repo.NewQuarantine(), found: map[object.Key]finding{}, limbo: map[object.Key]bool{}, early: map[object.Key]bool{}}
	s.report = Report{Time: s.start, Share: o.Share, Complete: true, Bad: []Bad{}, Revisions: []Verdict{}}
	if err := s.run(ctx); err != nil {
		s.tellEarly()
		return s.report, err
	}
	s.tellRight()
	s.report.Seconds = o.Now().Sub(s.start).Seconds()
	return s.report, s.keep()
}

// scrub is one run.
type scrub struct {
	Options
	start      time.Time
	session    *repo.Session
	marks      repo.Marks             // as they were at the start
	found      map[object.Key]finding // what was found wrong, or could not be judged
	limbo      map[object.Key]bool    // of found: what was in limbo
	early      map[object.Key]bool    // of found: what is marked already
	places     map[object.Key]*repo.Bad
	cleared    []object.Key // marked ones that are good
	damage     []damaged    // what each revision lost
	differs    []repo.Range // from the source
	sourceLost bool         // some of the source could not be read
	from, upTo int          // prefixes of the name space that were read, upTo not with them; may pass the end
	quarantine repo.Quarantine
	report     Report
	there      map[string]bool // revisions that were there when a run over all objects began
	over       atomic.Bool     // the time is over
	mu         sync.Mutex      // of found, where pages are read beside chunks
}

// finding is what is wrong with an object.
type finding struct {
	err     error
	unknown bool // it could not be read, which says nothing about it
}

func (f finding) bad() bool { return f.err != nil && !f.unknown }

// judge makes a finding of an error.
func judge(err error) finding {
	var bad *object.BadError
	return finding{err, !errors.As(err, &bad) && !errors.Is(err, object.ErrNotExist)}
}

func (s *scrub) run(ctx context.Context) (err error) {
	if err := s.check(); err != nil {
		return err
	}
	slices.SortStableFunc(s.Revisions, func(a, b repo.Revision) int { return a.Time.Compare(b.Time) })
	if s.marks, err = s.Repo.Marks(); err != nil {
		return err
	}
	if err := s.register(); err != nil {
		return err
	}
	defer s.session.Close()
	s.Events.Emit(event.Event{Kind: event.Started})
	switch {
	case s.Revisions == nil:
		return s.round(ctx)
	case s.Source != nil:
		err = s.compare(ctx)
	case s.Share > 0 && s.Share < 1:
		err = s.sample(ctx)
	case s.Share > 0:
		err = s.revisions(ctx)
	}
	if err != nil {
		return err
	}
	return s.settle(ctx)
}

// check refuses what makes no sense together.
func (s *scrub) check() error {
	switch {
	case s.Share < 0 || s.Share > 1:
		return fmt.Errorf("a share of %v is none: want 0 to 1", s.Share)
	case s.Source != nil && len(s.Revisions) != 1:
		return errors.New("a source is compared with one revision")
	case s.Revisions != nil && len(s.Revisions) == 0:
		s.report.What = "no revisions"
	case len(s.Revisions) == 1:
		s.report.What = "revision " + s.Revisions[0].ID + " of " + s.Revisions[0].Job
		s.Events.About(s.Revisions[0].Job, s.Revisions[0].ID)
	case s.Revisions != nil:
		s.report.What = fmt.Sprintf("%d revisions of %s", len(s.Revisions), s.Revisions[0].Job)
	default:
		s.report.What = "the repository " + s.Repo.Base
	}
	if s.Source != nil && s.Source.Size() != s.Revisions[0].Size {
		return fmt.Errorf("%s has %d bytes, and revision %s %d: it is not what was backed up", s.SourceName, s.Source.Size(), s.Revisions[0].ID, s.Revisions[0].Size)
	}
	return nil
}

// register opens a session. One that reads a single revision protects it from a purge; who reads many finds out at the
// end which of them were forgotten meanwhile, and what is missing from those is no damage.
func (s *scrub) register() error {
	var unregistered error
	var err error
	if len(s.Revisions) == 1 {
		s.session, unregistered, err = s.Repo.Read(s.Revisions[0])
	} else {
		s.session, unregistered, err = s.Repo.Visit()
	}
	if err == nil && unregistered != nil {
		err = fmt.Errorf("%w; a scrub marks what is bad, so it has to write to the repository", unregistered)
	}
	return err
}

// late says that the time is over.
func (s *scrub) late() bool {
	if s.Limit <= 0 || s.Now().Sub(s.start) < s.Limit {
		return false
	}
	s.over.Store(true)
	return true
}

// whole says that all that the run's revisions reach was read.
func (s *scrub) whole() bool { return s.Share >= 1 && s.report.Complete && !s.Changed }

// limit is the most bytes that an object of a kind holds.
func limit(kind object.Kind) int {
	if kind == object.Page {
		return blockmap.MaxPage
	}
	return repo.MaxBlock
}

package purgemodel

import (
	"iter"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rest is a repository at rest with R0, and what nobody needs in place.
func rest(content uint8) state {
	return state{place: all, revisions: 1, content: [3]uint8{content}}
}

// ripe is one with an epoch whose writers have ended, with some of what R0 needs in it, and what nobody needs.
func ripe() state {
	return state{place: p | rootA | z, limbo: [3]uint8{x | z | rootB}, revisions: 1, content: [3]uint8{contentA}}
}

// rows are those of the table of what is necessary: for each word of the protocol a way to leave it out, and a part of the
// model in which that is soon found to lose something.
var rows = []struct {
	row   int
	name  string
	model model
}{
	{1, "the store believes what the stream leaves out", model{change: believeTheStream, writers: 1, start: []state{rest(contentA)}}},
	{2, "a page in place vouches for what is under it", model{change: pageVouches, writers: 2, only: [2]choice{{0, contentB}, {0, contentB}}, start: []state{rest(contentA)}}},
	{3, "an object in limbo counts as present", model{change: limboCounts, writers: 1, start: []state{rest(contentA)}}},
	{4, "no check that the base still exists after registering", model{change: noBaseCheck, writers: 1, start: []state{rest(contentA)}}},
	{5, "registrations are removed by their own session", model{change: unregisterSelf, writers: 2, only: [2]choice{{1, contentA}, {2, contentA}}, start: []state{rest(contentA)}}},
	{6, "dead registrations removed between the listing of revisions and that of registrations", model{change: unregisterBetween, writers: 2, only: [2]choice{{1, contentA}, {2, contentA}}, start: []state{rest(contentA)}}},
	{7, "registrations not listed at all", model{change: noRegistrations, reader: true, start: []state{rest(contentA)}}},
	{7, "registrations listed before the revisions", model{change: registrationsFirst, writers: 1, reader: true, only: [2]choice{{1, contentA}}, start: []state{rest(contentA)}}},
	{8, "readers do not register", model{change: readersDoNotRegister, reader: true, start: []state{rest(contentA)}}},
	{9, "the epoch's record taken before the moves", model{change: recordBeforeMoves, writers: 1, start: []state{rest(contentA)}}},
	{10, "ripe looked at after the listings", model{change: ripeAfterListings, writers: 1, start: []state{rest(contentA)}}},
	{11, "an epoch without a record counts as ripe", model{change: noRecordIsRipe, writers: 1, start: []state{rest(contentA)}}},
	{12, "epochs freed by marks made before they became ripe", model{change: ripenedMeanwhile, writers: 1, start: []state{rest(contentA)}}},
	{13, "no fence, or a fence that stops publishing but not the commit", model{change: noFence, writers: 1, start: []state{rest(contentA)}}},
	{14, "staging directory made after registering", model{change: stagingAfterRegistering, writers: 1, start: []state{rest(contentA)}}},
	{15, "the reader does not look in limbo", model{change: noLookInLimbo, writers: 1, reader: true, only: [2]choice{{1, contentA}}, start: []state{rest(contentB)}}},
	{15, "the reader does not look a third time in place", model{change: noThirdLook, writers: 1, reader: true, only: [2]choice{{1, contentA}}, start: []state{rest(contentB)}}},
	{16, "a registration names only the revision, not its root page", model{change: registrationNamesRevision, reader: true, start: []state{rest(contentA)}}},
}

// Each word of the protocol is needed: without it something is lost, and with it, in the same part of the model, nothing is.
func TestEachWordIsNecessary(t *testing.T) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := row.model.search(time.Minute)
			r.report(t)
			if r.lost == "" {
				t.Error("nothing is lost without it")
			}
			row.model.change = asItIs
			if r = row.model.search(time.Minute); r.lost != "" || !r.complete {
				r.report(t)
				t.Error("the protocol as it is")
			}
		})
	}
}

// With one writer and a reader, everything that can happen is looked at, also in a repository with an epoch in limbo.
func TestOneWriterAndAReader(t *testing.T) {
	for _, start := range []state{rest(contentA), rest(contentB), ripe()} {
		m := model{writers: 1, reader: true, start: []state{start}}
		r := m.search(time.Hour)
		if r.report(t); r.lost != "" || !r.complete {
			t.Error("it is not clean")
		}
	}
}

// TestSoakTwoWriters looks at what two writers can do, and ends early: with BACKY_SOAK=full, it looks at everything, and
// at everything that two writers and a reader can do, which takes hours. What the actors choose is fixed for each part of
// the search, so that each has room in memory.
func TestSoakTwoWriters(t *testing.T) {
	if os.Getenv("BACKY_SOAK") == "full" {
		searchAll(t, "two writers", parts(nil), 0)
		searchAll(t, "two writers and a reader", parts(looks), 0)
		return
	}
	searchAll(t, "two writers", parts(nil), 35*time.Second)
}

// looks are what a reader can pick and look for.
func looks(yield func(look) bool) {
	for base := uint8(1); base <= 3; base++ {
		for object := uint8(1); object < all; object <<= 1 {
			if !yield(look{base, object}) {
				return
			}
		}
	}
}

// parts are the searches that make up one for all that two writers, and a reader if there are looks, can choose. That the
// writers are named the other way round makes no difference, so one of two such is left out.
func parts(looks iter.Seq[look]) (list []model) {
	for _, start := range []state{rest(contentB), rest(contentA), ripe()} {
		for i, one := range slices.Collect(choices(3)) {
			for k, two := range slices.Collect(choices(2)) {
				if k < i {
					continue
				}
				m := model{writers: 2, only: [2]choice{one, two}, start: []state{start}}
				if looks == nil {
					list = append(list, m)
					continue
				}
				m.reader = true
				for m.looks = range looks {
					list = append(list, m)
				}
			}
		}
	}
	return list
}

// searchAll searches parts, some at a time, for so long, or to the end if that is 0.
func searchAll(t *testing.T, what string, parts []model, limit time.Duration) {
	t.Helper()
	began := time.Now()
	var states, done atomic.Int64
	var workers sync.WaitGroup
	next := make(chan model)
	for range min(2, runtime.GOMAXPROCS(0)) { // of which each may want gigabytes
		workers.Go(func() {
			for m := range next {
				left := 10 * time.Hour
				if limit > 0 {
					left = max(0, limit-time.Since(began))
				}
				r := m.search(left)
				states.Add(int64(r.states))
				if r.complete {
					done.Add(1)
				}
				if r.lost != "" || limit == 0 && !r.complete {
					r.report(t)
					t.Errorf("not clean: %+v", m)
				}
			}
		})
	}
	for i, m := range parts {
		if limit > 0 && time.Since(began) > limit || t.Failed() {
			break
		}
		if i > 0 && i%20 == 0 {
			t.Logf("%s: %d of %d parts, %d states, %s", what, i, len(parts), states.Load(), time.Since(began).Round(time.Second))
		}
		next <- m
	}
	close(next)
	workers.Wait()
	t.Logf("%s: %d of %d parts searched to their end, %d states, in %s", what, done.Load(), len(parts), states.Load(), time.Since(began).Round(time.Second))
}

// choices are what a writer can build on (no revision, R0, or that of the other writer) and store.
func choices(other uint8) func(func(choice) bool) {
	return func(yield func(choice) bool) {
		for _, base := range []uint8{1, 0, other} {
			for content := uint8(contentA); content <= contentB; content++ {
				if !yield(choice{base, content}) {
					return
				}
			}
		}
	}
}

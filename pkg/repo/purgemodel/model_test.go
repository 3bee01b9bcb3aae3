package purgemodel

import (
	"fmt"

	"backy/pkg/repo"
)

// The objects, as bits.
const (
	x, z, p, rootA, rootB = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
	all                   = 31
)

var objectNames = map[uint8]string{x: "x", z: "z", p: "p", rootA: "A", rootB: "B"}

// content is what a revision's root is: none, A or B.
const (
	none = iota
	contentA
	contentB
)

var reach = [3]uint8{none: 0, contentA: rootA | p | x, contentB: rootB | p | x | z}

// wanted is what a writer has to find or store, by content of its base and its own: all that is not inherited from the
// base's page at the same place.
var wanted = [3][3]uint8{
	none:     {contentA: rootA | p | x, contentB: rootB | p | x | z},
	contentA: {contentB: rootB | z},
	contentB: {contentA: rootA},
}

// The states of a writer.
const (
	wIdle = iota
	wPicked
	wStaged
	wRegistered
	wPublishing
	wChecking
	wCommitting
	wOver // committed or failed
)

// The states of a reader.
const (
	rIdle = iota
	rPicked
	rRegistered
	rBased
	rReading
	rMissed      // once, in place
	rMissedTwice // and in limbo
	rMissedAll
	rOver
)

// The states of a purge.
const (
	pIdle = iota
	pFence
	pUnregister
	pRipe
	pObjects
	pRevisions
	pRegistrations
	pMark
	pBack
	pDelete
	pMove
	pWriters
	pRecord
)

// state is that of the whole repository and all actors. It is 32 bytes, all of them counted.
type state struct {
	place      uint8    // objects in place
	limbo      [3]uint8 // by epoch: one from before, that of the first purge, that of the second
	revisions  uint8    // bits: R0, R1 of the first writer, R2 of the second
	content    [3]uint8 // of the revisions, also when they are forgotten
	record     uint8    // of epoch 1: wholeRecord and the writers, as bits
	registered uint8    // bits: the writers, the reader
	staged     uint8    // bits: the writers
	writers    [2]writer
	reader     reader
	purge      purge
	_, _       uint8
}

type writer struct {
	pc, base, content, sent uint8 // base: a revision's number plus 1 before it was looked for, baseIs + its content after
}

type reader struct {
	pc, base, object uint8
}

type purge struct {
	pass, pc, at, ripe, marks, writers, listed uint8
	again                                      uint8 // the first part once more: see once and later
}

// When sessions are ended.
const (
	once    = iota // at the start
	between        // also between the listings, as unregisterBetween has it
	atLast         // also when all was moved, as ripenedMeanwhile has it
)

const (
	baseIs      = 8
	wholeRecord = 1 << 7
)

// change is a variation of the protocol: one of its words left out.
type change int

const (
	asItIs change = iota
	believeTheStream
	pageVouches
	limboCounts
	noBaseCheck
	unregisterSelf
	unregisterBetween
	noRegistrations
	registrationsFirst
	readersDoNotRegister
	recordBeforeMoves
	ripeAfterListings
	noRecordIsRipe
	ripenedMeanwhile
	noFence
	stagingAfterRegistering
	noLookInLimbo
	noThirdLook
	registrationNamesRevision
)

// model is a protocol and what is searched of it.
type model struct {
	change  change
	writers int  // how many there are, at most 2
	reader  bool // whether there is one
	only    [2]choice
	looks   look // what the reader picks and looks for; the zero look is anything
	start   []state
}

// look is the number plus 1 of the revision that a reader picks, and the object of it that it looks for.
type look struct{ base, object uint8 }

// choice is what a writer builds on, a revision's number plus 1 or 0 for none, and what it stores. The zero choice is any.
type choice struct{ base, content uint8 }

// visit calls next for each state that one step leads to, with the actor and the step.
type visit func(to state, actor string, step repo.Step, what string)

func (m *model) next(s *state, each visit) {
	v := func(to state, actor string, step repo.Step, what string) {
		m.simplify(&to)
		each(to, actor, step, what)
	}
	for i := range s.content {
		if s.revisions>>i&1 != 0 {
			t := *s
			t.revisions &^= 1 << i
			v(t, "operator", "forget", revisionNames[i])
		}
	}
	for i := range m.writers {
		m.writer(s, i, v)
	}
	if m.reader {
		m.read(s, v)
	}
	m.purge(s, v)
}

// simplify takes out what makes no difference any more, so that states are the same that behave the same.
func (m *model) simplify(s *state) {
	for i := range s.content {
		if s.revisions>>i&1 == 0 && !s.named(uint8(i+1)) {
			s.content[i] = none
		}
	}
	if s.reader.pc >= rBased && s.reader.pc < rOver && m.ended(s) { // it starts over, or does not count any more
		s.reader = reader{pc: rOver}
	}
	if s.purge.pass == 2 && s.purge.pc == pIdle { // nobody purges any more
		s.limbo = [3]uint8{s.limbo[0] | s.limbo[1] | s.limbo[2]}
		s.record = 0
		s.registered &= readerBit
		for i := range s.writers {
			if s.writers[i].pc == wOver {
				s.writers[i].base = 0
			}
		}
	}
}

// named reports whether a session's base is this revision, by number.
func (s *state) named(base uint8) bool {
	return s.writers[0].base == base || s.writers[1].base == base || s.reader.base == base
}

// baseContent is the content of what a session's registration names.
func (s *state) baseContent(base uint8) uint8 {
	switch {
	case base == 0:
		return none
	case base >= baseIs:
		return base - baseIs
	}
	return s.content[base-1]
}

func (m *model) writer(s *state, i int, v visit) {
	w, name, bit := s.writers[i], writerNames[i], uint8(1)<<i
	to := func(f func(t *state, w *writer), step repo.Step, what string) {
		t := *s
		f(&t, &t.writers[i])
		v(t, name, step, what)
	}
	over := func(t *state, w *writer) {
		*w = writer{pc: wOver, base: w.base}
		if w.base > 0 && w.base < baseIs && m.change != registrationNamesRevision {
			w.base = baseIs + t.content[w.base-1]
		}
		t.staged &^= bit // nothing depends on it any more
		if t.registered&bit == 0 {
			w.base = 0
		}
	}
	switch w.pc {
	case wIdle: // which revision it builds on it learns from a listing, or from the stream
		for base := uint8(0); base <= 3; base++ {
			if base > 0 && s.revisions>>(base-1)&1 == 0 {
				continue
			}
			for content := uint8(contentA); content <= contentB; content++ {
				if m.only[i] != (choice{}) && m.only[i] != (choice{base, content}) {
					continue
				}
				to(func(t *state, w *writer) {
					*w = writer{pc: wPicked, base: base, content: content}
					if m.change != stagingAfterRegistering {
						w.pc = wStaged
						t.staged |= bit
					}
				}, repo.StepStage, choiceNames[base][content])
			}
		}
	case wPicked: // the staging is made later
		if s.registered&bit == 0 {
			to(func(t *state, w *writer) { t.registered |= bit; w.pc = wPicked + 16 }, repo.StepRegister, "")
		}
	case wPicked + 16:
		to(func(t *state, w *writer) { t.staged |= bit; w.pc = wRegistered }, repo.StepStage, "")
	case wStaged:
		to(func(t *state, w *writer) { t.registered |= bit; w.pc = wRegistered }, repo.StepRegister, "")
	case wRegistered:
		there := w.base == 0 || s.revisions>>(w.base-1)&1 != 0
		to(func(t *state, w *writer) {
			if !there && m.change != noBaseCheck {
				over(t, w)
				return
			}
			w.pc = wPublishing
			if w.base > 0 && m.change != registrationNamesRevision {
				w.base = baseIs + s.content[w.base-1]
			}
		}, repo.StepBase, "")
	case wPublishing:
		want := wanted[s.baseContent(w.base)][w.content]
		for o := uint8(1); o < all; o <<= 1 {
			if want&o != 0 && s.place&o == 0 {
				to(func(t *state, w *writer) { t.place |= o; w.sent |= o }, repo.StepPublish, objectNames[o])
			}
		}
		to(func(t *state, w *writer) { m.check(t, w, over) }, repo.StepCheck, "first")
	case wCommitting:
		to(func(t *state, w *writer) {
			if s.staged&bit != 0 || m.change == noFence {
				t.revisions |= 1 << (i + 1)
				t.content[i+1] = w.content
			}
			over(t, w)
			if m.change == unregisterSelf {
				w.pc = wOver + 16
			}
		}, repo.StepCommit, "")
	case wOver + 16:
		to(func(t *state, w *writer) {
			t.registered &^= bit
			over(t, w)
		}, repo.StepUnregister, "by itself")
	default:
		if w.pc >= wChecking+32 {
			to(func(t *state, w *writer) { m.check(t, w, over) }, repo.StepCheck, "next")
		}
	}
}

var (
	writerNames   = [2]string{"writer 1", "writer 2"}
	revisionNames = [3]string{"R0", "R1", "R2"}
	choiceNames   = [4][3]string{
		{contentA: "for A", contentB: "for B"}, {contentA: "for A on R0", contentB: "for B on R0"},
		{contentA: "for A on R1", contentB: "for B on R1"}, {contentA: "for A on R2", contentB: "for B on R2"},
	}
)

// checkOrder is that in which a writer looks for what it reaches.
var checkOrder = [5]uint8{rootA, rootB, p, x, z}

// check looks for the next object. While a writer checks, its pc is wChecking + 32 + the place in the order.
func (m *model) check(t *state, w *writer, over func(*state, *writer)) {
	at := 0
	if w.pc >= wChecking+32 {
		at = int(w.pc) - wChecking - 32
	}
	want := wanted[t.baseContent(w.base)][w.content]
	if m.change == believeTheStream {
		want = 0
	}
	for at < len(checkOrder) && want&checkOrder[at] == 0 {
		at++
	}
	if at < len(checkOrder) {
		o := checkOrder[at]
		there := t.place&o != 0 || m.change == limboCounts && t.anywhere()&o != 0
		switch {
		case !there && w.sent&o == 0:
			over(t, w)
			return
		case m.change == pageVouches && there && w.sent&o == 0 && o&(rootA|rootB) != 0:
			at = len(checkOrder)
		case m.change == pageVouches && there && w.sent&o == 0 && o == p:
			at = 3 // x
		}
		at++
		for at < len(checkOrder) && want&checkOrder[at] == 0 {
			at++
		}
	}
	if at >= len(checkOrder) {
		w.pc, w.sent = wCommitting, 0
		return
	}
	w.pc = uint8(wChecking + 32 + at)
}

func (s *state) anywhere() uint8 { return s.place | s.limbo[0] | s.limbo[1] | s.limbo[2] }

const readerBit = 1 << 2

// ended reports whether the reader's registration was taken away.
func (m *model) ended(s *state) bool {
	return s.registered&readerBit == 0 && m.change != readersDoNotRegister
}

// lost says what is lost in a state, if anything is.
func (m *model) lost(s *state) string {
	there := s.anywhere()
	for i, content := range s.content {
		if gone := reach[content] &^ there; s.revisions>>i&1 != 0 && gone != 0 {
			return fmt.Sprintf("R%d lacks %s", i, objectNames[gone&-gone])
		}
	}
	if s.reader.pc == rMissedAll && !m.ended(s) {
		return "the reader does not find " + objectNames[s.reader.object]
	}
	return ""
}

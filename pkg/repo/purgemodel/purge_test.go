package purgemodel

import (
	"backy/pkg/repo"
)

// goTo begins a part of the purge.
func (p *purge) goTo(pc uint8) { p.pc, p.at = pc, 0 }

func (m *model) purge(s *state, v visit) {
	to := func(f func(t *state, p *purge), step repo.Step, what string) {
		t := *s
		f(&t, &t.purge)
		v(t, purgeNames[t.purge.pass], step, what)
	}
	at := s.purge
	if at.pc == pIdle {
		if at.pass < 2 {
			to(func(_ *state, p *purge) {
				if *p = (purge{pass: p.pass + 1, pc: pFence}); m.change == ripeAfterListings {
					p.pc = pObjects
				}
			}, "start", "")
		}
		return
	}
	to(func(_ *state, p *purge) { *p = purge{pass: p.pass} }, "killed", "")
	bit := uint8(1) << at.at
	switch at.pc {
	case pFence, pUnregister:
		m.end(s, to)
	case pRipe:
		to(func(t *state, p *purge) {
			p.ripe = m.ripe(s)
			switch {
			case p.again == atLast: // frees with the marks of before
				p.goTo(pBack)
				m.settle(t, p)
			case m.change == ripeAfterListings:
				p.goTo(pMark)
			default:
				p.goTo(pObjects)
			}
		}, repo.StepRipe, "")
	case pObjects:
		to(func(_ *state, p *purge) {
			p.listed = s.place
			if p.goTo(pRevisions); m.change == registrationsFirst {
				p.goTo(pRegistrations)
			}
		}, repo.StepObjects, "")
	case pRevisions:
		to(func(_ *state, p *purge) {
			if s.revisions&bit != 0 {
				p.marks |= 1 << s.content[at.at]
			}
			p.at++
			if p.at < 3 {
				return
			}
			switch p.goTo(pRegistrations); m.change {
			case noRegistrations, registrationsFirst:
				p.goTo(pMark)
			case unregisterBetween:
				p.goTo(pFence)
				p.again = between
			}
		}, repo.StepRevisions, revisionNames[at.at])
	case pRegistrations:
		to(func(_ *state, p *purge) {
			base := s.reader.base
			if at.at < 2 {
				base = s.writers[at.at].base
			}
			named := base != 0 && (m.change != registrationNamesRevision || s.revisions>>(base-1)&1 != 0)
			if s.registered&bit != 0 && named {
				p.marks |= 1 << (s.baseContent(base) + 4)
			}
			p.at++
			if p.at < 3 {
				return
			}
			switch p.goTo(pMark); m.change {
			case registrationsFirst:
				p.goTo(pRevisions)
			case ripeAfterListings:
				p.goTo(pFence)
			}
		}, repo.StepRegistrations, sessionNames[at.at])
	case pMark:
		to(func(_ *state, p *purge) {
			p.marks = s.marks(p.marks)
			p.listed &^= p.marks
			p.goTo(pBack)
			m.settle(s, p)
		}, repo.StepMark, "")
	case pBack, pDelete:
		m.free(s, to)
	case pMove:
		o := at.listed & -at.listed
		to(func(t *state, p *purge) {
			t.place &^= o
			t.limbo[s.filled()] |= o
			p.listed &^= o
			m.settle(t, p)
		}, repo.StepMove, objectNames[o])
	case pWriters:
		to(func(t *state, p *purge) {
			p.writers |= s.registered & bit
			p.at++
			if p.at == 2 {
				p.goTo(pRecord)
				if m.change == recordBeforeMoves {
					p.goTo(pMove)
					m.settle(t, p)
				}
			}
		}, repo.StepWriters, sessionNames[at.at])
	case pRecord:
		to(func(t *state, p *purge) {
			t.record = wholeRecord | p.writers
			if m.change == ripenedMeanwhile {
				*p = purge{pass: p.pass, pc: pFence, again: atLast, marks: p.marks}
				return
			}
			*p = purge{pass: p.pass}
		}, repo.StepRecord, "")
	}
}

var (
	purgeNames   = [3]string{"", "purge 1", "purge 2"}
	sessionNames = [3]string{"writer 1", "writer 2", "reader"}
)

// end takes a session for over, or leaves it.
func (m *model) end(s *state, to func(func(*state, *purge), repo.Step, string)) {
	at := s.purge
	bit, name := uint8(1)<<at.at, sessionNames[at.at]
	after := func(p *purge) {
		for p.at++; p.at < 3 && s.registered>>p.at&1 == 0; {
			p.at++
		}
		if p.pc = pFence; p.at < 3 {
			return
		}
		if p.goTo(pRipe); p.again == between {
			p.goTo(pRegistrations)
			p.again = once
		}
	}
	if at.pc == pFence {
		to(func(_ *state, p *purge) { after(p) }, "leave", name)
		if s.registered&bit == 0 {
			return
		}
		to(func(t *state, p *purge) {
			t.staged &^= bit
			p.pc = pUnregister
		}, repo.StepFence, name)
		return
	}
	to(func(t *state, p *purge) {
		t.registered &^= bit
		if at.at == 2 && t.reader.pc == rOver {
			t.reader.base = 0
		} else if at.at < 2 && t.writers[at.at].pc == wOver {
			t.writers[at.at].base = 0
		}
		after(p)
	}, repo.StepUnregister, name)
}

// ripe are the epochs whose writers have all ended, as bits.
func (m *model) ripe(s *state) (ripe uint8) {
	if s.limbo[0] != 0 {
		ripe |= 1
	}
	whole := s.record&wholeRecord != 0
	if s.limbo[1] != 0 && (whole || m.change == noRecordIsRipe) && s.record&s.registered&3 == 0 {
		ripe |= 2
	}
	return ripe
}

// marks are the objects that roots reach: those of revisions as bits 1 and 2, those of registrations as bits 5 and 6.
// What is below a page that is not there is not known.
func (s *state) marks(roots uint8) (marks uint8) {
	there := s.anywhere()
	roots |= roots >> 4
	for content, root := range map[int]uint8{contentA: rootA, contentB: rootB} {
		if roots>>content&1 == 0 {
			continue
		}
		marks |= root
		if there&root != 0 {
			marks |= reach[content] &^ (rootA | rootB | x)
		}
	}
	if marks&p != 0 && there&p != 0 {
		marks |= x
	}
	return marks
}

// filled is the epoch that is filled: that of the first purge, unless it has a record.
func (s *state) filled() int {
	if s.record&wholeRecord == 0 {
		return 1
	}
	return 2
}

// first is the first object of the ripe epochs that is in these, and its epoch.
func (s *state) first(in uint8) (epoch int, object uint8) {
	for epoch := range s.limbo {
		if s.purge.ripe>>epoch&1 == 0 {
			continue
		}
		if found := s.limbo[epoch] & in; found != 0 {
			return epoch, found & -found
		}
	}
	return 0, 0
}

func (m *model) free(s *state, to func(func(*state, *purge), repo.Step, string)) {
	at := s.purge
	if epoch, o := s.first(at.marks); at.pc == pBack && o != 0 {
		if s.place&o == 0 {
			to(func(t *state, _ *purge) { t.place |= o }, repo.StepBack, objectNames[o])
			return
		}
		to(func(t *state, p *purge) {
			t.limbo[epoch] &^= o
			m.settle(t, p)
		}, repo.StepLeave, objectNames[o])
		return
	}
	epoch, o := s.first(all &^ at.marks)
	to(func(t *state, p *purge) {
		t.limbo[epoch] &^= o
		m.settle(t, p)
	}, repo.StepDelete, objectNames[o])
}

// settle goes on to the next part that has something to do, and forgets what is not needed any more.
func (m *model) settle(s *state, q *purge) {
	t := *s
	t.purge = *q
	if _, o := t.first(q.marks); q.pc == pBack && o == 0 {
		q.goTo(pDelete)
	}
	if _, o := t.first(all &^ q.marks); q.pc == pDelete && o == 0 {
		if q.again == atLast {
			*q = purge{pass: q.pass}
			return
		}
		if q.ripe = 0; m.change != ripenedMeanwhile {
			q.marks = 0
		}
		if q.goTo(pMove); m.change == recordBeforeMoves && q.pass == 1 {
			q.goTo(pWriters)
			return
		}
	}
	if q.pc == pMove && q.listed == 0 {
		switch {
		case q.pass == 2 || s.limbo[1] == 0: // no later purge needs the record
			*q = purge{pass: q.pass}
		case m.change == recordBeforeMoves:
			q.goTo(pRecord)
		default:
			q.goTo(pWriters)
		}
	}
}

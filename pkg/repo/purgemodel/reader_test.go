package purgemodel

import (
	"backy/pkg/repo"
)

func (m *model) read(s *state, v visit) {
	r := s.reader
	to := func(f func(t *state, r *reader), step repo.Step, what string) {
		t := *s
		f(&t, &t.reader)
		v(t, "reader", step, what)
	}
	over := func(t *state, r *reader) {
		*r = reader{pc: rOver, base: r.base}
		if r.base > 0 && r.base < baseIs && m.change != registrationNamesRevision {
			r.base = baseIs + t.content[r.base-1]
		}
		if t.registered&readerBit == 0 {
			r.base = 0
		}
	}
	switch r.pc {
	case rIdle:
		for base := uint8(1); base <= 3; base++ {
			if s.revisions>>(base-1)&1 != 0 && (m.looks.base == 0 || m.looks.base == base) {
				to(func(_ *state, r *reader) { *r = reader{pc: rPicked, base: base} }, "pick", revisionNames[base-1])
			}
		}
	case rPicked:
		to(func(t *state, r *reader) {
			r.pc = rRegistered
			if m.change != readersDoNotRegister {
				t.registered |= readerBit
			}
		}, repo.StepRegister, "")
	case rRegistered:
		to(func(t *state, r *reader) {
			if s.revisions>>(r.base-1)&1 == 0 {
				over(t, r)
				return
			}
			r.pc = rBased
			if m.change != registrationNamesRevision {
				r.base = baseIs + s.content[r.base-1]
			}
		}, repo.StepBase, "")
	case rBased:
		to(func(t *state, r *reader) {
			if r.pc = rReading; m.ended(t) {
				over(t, r) // and starts over, as another session
			}
		}, repo.StepAlive, "")
	case rReading: // what it finds at once is of no interest
		for o := uint8(1); o < all; o <<= 1 {
			if reach[s.baseContent(r.base)]&o != 0 && s.place&o == 0 && (m.looks.object == 0 || m.looks.object == o) {
				to(func(_ *state, r *reader) { r.pc, r.object = rMissed, o }, "look in place", objectNames[o])
			}
		}
	case rMissed:
		to(func(t *state, r *reader) {
			if m.change != noLookInLimbo && (s.limbo[0]|s.limbo[1]|s.limbo[2])&r.object != 0 {
				over(t, r)
				return
			}
			if r.pc = rMissedTwice; m.change == noThirdLook {
				r.pc = rMissedAll
			}
		}, "look in limbo", "")
	case rMissedTwice:
		to(func(t *state, r *reader) {
			if r.pc = rMissedAll; s.place&r.object != 0 {
				over(t, r)
			}
		}, "look in place again", "")
	}
}

package read

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"backy/pkg/object"
	"backy/pkg/repo"
)

// maxDiffers is how many blocks a report lists.
const maxDiffers = 1000

// lies is what the check of a map has found.
type lies struct {
	*stage
	first int64 // byte; -1 is none
	read  int   // blocks

	// Of the change map; what an allocation map says beyond the base's end says nothing about other revisions.
	differs  []repo.Mismatch // the first of them
	count    int64
	evidence repo.Quarantine
	lost     error // why evidence is not kept, if it is not
}

// note notes a block that is not as the map says, which is at or beyond a block where the change map ends to count.
func (l *lies) note(ctx context.Context, b *piece, end int64) {
	offset, length := b.block*l.block, l.limit(b.block)
	if l.first < 0 {
		l.first = offset
	}
	if b.block >= end {
		return
	}
	if l.count++; len(l.differs) >= maxDiffers {
		return
	}
	m := repo.Mismatch{Range: repo.Range{Offset: offset, Length: length}, Source: "zero", Backup: repo.HashOf(b.base)}
	if !b.zero {
		m.Source = object.Sum(b.buf).String()
	}
	if len(l.differs) < repo.MaxEvidence && fixed(l.Disk) {
		err := l.evidence.Evidence(offset, b.buf, l.inBase(ctx, b))
		if m.Kept = err == nil; err != nil {
			l.lost = err
		}
	}
	l.differs = append(l.differs, m)
}

// inBase is a block as the base has it; nil where that cannot be read.
func (l *lies) inBase(ctx context.Context, b *piece) []byte {
	if b.base.IsZero() {
		return make([]byte, l.block)
	}
	dec, err := object.NewDecoder(int(l.block))
	if err != nil {
		return nil
	}
	content, _, err := object.Fetch(ctx, l.Repo.Objects(), dec, object.Key{Kind: object.Chunk, Name: b.base}, nil, nil)
	if err != nil {
		return nil
	}
	return content
}

// distrust draws the consequences of a change map that was wrong about a disk that does not change: earlier ones may have been
// wrong, too. The revisions made by them are no base any more, and the evidence is kept.
func (s *stage) distrust(ctx context.Context, l *lies) error {
	found := fmt.Sprintf("the change map of %s is wrong: %d of %d blocks that it leaves out or calls zero are not so, the first at byte %d", s.Source, l.count, l.read, l.first)
	verdicts, err := s.job.DistrustMaps(ctx, s.base.ID, "a later "+strings.TrimPrefix(found, "the "))
	if err != nil {
		return fmt.Errorf("%s; to distrust the revisions that such maps have made failed: %w", found, err)
	}
	report := repo.Report{
		Time: s.start, Seconds: s.Now().Sub(s.start).Seconds(), What: "the change map of " + s.Source + " since revision " + s.base.ID + " of " + s.Job,
		Share: float64(l.read) / float64(s.blocks()), Complete: true, Read: s.pool.bytes.Load(), Blocks: int64(l.read),
		Bad: []repo.BadObject{}, Differs: l.differs, DiffersMore: l.count - int64(len(l.differs)), Revisions: verdicts,
	}
	if len(verdicts) == 0 { // so that it can be seen which job this is about
		state := s.base.State
		report.Revisions = []repo.Verdict{{Job: s.Job, ID: s.base.ID, Time: s.base.Time, Was: state.Trust, Trust: state.Trust, Why: state.Why, Damage: state.Damage}}
	}
	err = l.evidence.Keep(&report)
	kept := "`backy-scrub reports show " + l.evidence.ID[:8] + "` tells more"
	if err = errors.Join(l.lost, err); err != nil {
		kept = "not all of the evidence is kept: " + err.Error()
	}
	if err := s.rebase(); err != nil {
		return fmt.Errorf("%s; %s; %w", found, named(verdicts), err)
	}
	now := "everything is read"
	if s.base != nil {
		now += " and compared with " + s.base.ID
	}
	s.Log.Warn(strings.Join([]string{found, named(verdicts), now, kept}, "; "))
	return nil
}

// named says which revisions are distrusted now.
func named(list []repo.Verdict) string {
	const most = 3
	var ids []string
	for _, v := range list[:min(len(list), most)] {
		ids = append(ids, v.ID)
	}
	switch text := strings.Join(ids, ", "); {
	case len(list) == 0:
		return "no revision was made by such a map since the last read of all of it"
	case len(list) == 1:
		return "revision " + text + " is distrusted"
	case len(list) > most:
		return fmt.Sprintf("%d revisions are distrusted: %s and others", len(list), text)
	default:
		return fmt.Sprintf("%d revisions are distrusted: %s", len(list), text)
	}
}

// rebase finds another base where the one that there was is fit no more; nothing was sent yet. Where there is none, all is
// read and sent.
func (s *stage) rebase() error {
	base, err := s.job.Get(s.base.ID)
	if err == nil && base.FitBase() {
		return nil
	}
	block, next := s.block, s.next
	base, err = s.job.Base("last")
	switch {
	case errors.Is(err, repo.ErrNoRevision), err == nil && s.Block != 0 && s.Block != base.Block:
		s.base, s.cursor, s.mode = nil, nil, repo.ReadFull
		return nil
	case err != nil:
		return fmt.Errorf("find another base: %w", err)
	}
	if err := s.buildOn(base); err != nil {
		return err
	}
	if s.block == block {
		s.next = next
	} else {
		read := s.pool.bytes.Load()
		s.pool = newPool(s)
		s.pool.bytes.Store(read)
	}
	return nil
}

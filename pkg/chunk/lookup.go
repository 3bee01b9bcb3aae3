package chunk

import (
	"context"
	"errors"
	"sync"

	"backy/pkg/object"
	"backy/pkg/repo"
)

// recentNames is how many names of this stream are remembered, so that a block that comes often is sent once.
const recentNames = 1 << 16

// lookup knows what need not be sent. That it says so is only a reason to leave an object out; what counts is the look
// that backy-store takes before it commits.
type lookup struct {
	repo   *repo.Repo // nil: nothing is there
	marks  repo.Marks
	verify bool // the job has a distrusted revision: an object is read and checked before it is reused

	mu     sync.Mutex
	recent map[object.Key]int64 // and the first block that has it
}

func newLookup(r *repo.Repo, job *repo.Job) (*lookup, error) {
	l := &lookup{repo: r, recent: map[object.Key]int64{}}
	if r == nil {
		return l, nil
	}
	var err error
	if l.marks, err = r.Marks(); err != nil {
		return nil, err
	}
	list, _, err := job.List()
	for _, rev := range list {
		l.verify = l.verify || rev.StateErr == nil && !rev.FitBase()
	}
	return l, err
}

// has reports whether the object need not be sent: it is in the repository and not bad, or comes in this stream, at this
// block or before it. Otherwise the caller is to send it. Safe for concurrent use: blocks are asked for in any order, and
// of two that are equal the earlier one sends, so that what a page names comes before it.
func (l *lookup) has(ctx context.Context, key object.Key, block int64) (bool, error) {
	l.mu.Lock()
	at, sent := l.recent[key]
	if sent = sent && at <= block; !sent {
		if len(l.recent) >= recentNames {
			clear(l.recent)
		}
		l.recent[key] = block
	}
	l.mu.Unlock()
	if sent || l.repo == nil || l.marks[key] {
		return sent, nil
	}
	there, err := l.repo.Objects().Has(ctx, key)
	if err != nil || !there || !l.verify {
		return there, err
	}
	return l.good(ctx, key)
}

// first reports whether no earlier block than this one sends the object, as far as is remembered.
func (l *lookup) first(key object.Key, block int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.recent[key]
	return !ok || at >= block
}

// good reads an object before it is reused.
func (l *lookup) good(ctx context.Context, key object.Key) (bool, error) {
	dec, err := object.NewDecoder(repo.MaxBlock)
	if err != nil {
		return false, err
	}
	_, _, err = object.Fetch(ctx, l.repo.Objects(), dec, key, nil, nil)
	if bad := (*object.BadError)(nil); errors.As(err, &bad) {
		return false, l.repo.Mark(key, bad.Reason)
	}
	if errors.Is(err, object.ErrNotExist) { // moved away since
		return false, nil
	}
	return err == nil, err
}

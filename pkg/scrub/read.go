package scrub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/event"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

// ahead is how many objects are read, or wait to be, at once, beyond one a core: while some are decoded, others come from
// the disk.
const ahead = 4

// item is an object to be read, or the end of a prefix.
type item struct {
	key    object.Key
	length int64 // bytes that it has to hold, 0 for any
	judged bool  // it was read already
	limbo  bool  // it was in limbo when it was listed
	end    bool  // all of a prefix came before
	prefix int
	err    error // of the object, or of the listing of the prefix
	read   int64 // bytes of the frame
}

// reader reads objects and judges them. One decoder and one buffer a core is enough; reads in flight have a frame each.
type reader struct {
	objects object.Getter
	frames  chan []byte
	benches chan *bench
}

type bench struct {
	chunks, pages *object.Decoder
	content       []byte
}

// saveEvery is how much work is lost, and done again, when a scrub is killed.
const saveEvery = 30 * time.Second

// slack is what a decoder likes to have behind the content: without it, it takes a slower way.
const slack = 4096

func newReader(objects object.Getter, workers int, block int64) (*reader, error) {
	r := &reader{objects, make(chan []byte, workers+ahead), make(chan *bench, workers)}
	for range cap(r.frames) {
		r.frames <- nil
	}
	for range workers {
		b := &bench{content: make([]byte, 0, block+slack)}
		var err, err2 error
		b.chunks, err = object.NewDecoder(limit(object.Chunk))
		b.pages, err2 = object.NewDecoder(limit(object.Page))
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		r.benches <- b
	}
	return r, nil
}

// judge reads an object and says what is wrong with it. use, if any, gets its content, valid for the call alone.
func (r *reader) judge(ctx context.Context, key object.Key, length int64, use func(content []byte)) (read int64, err error) {
	frame := <-r.frames
	defer func() { r.frames <- frame }()
	if frame, err = r.objects.Get(ctx, key, frame); err != nil {
		return 0, err
	}
	b := <-r.benches
	defer func() { r.benches <- b }()
	dec := b.chunks
	if key.Kind == object.Page {
		dec = b.pages
	}
	content, err := dec.Decode(key, b.content, frame)
	switch {
	case err != nil:
		return int64(len(frame)), err
	case cap(content) > cap(b.content):
		b.content = make([]byte, 0, cap(content)+slack)
	}
	switch {
	case key.Kind == object.Page:
		_, err = blockmap.ParsePage(content)
	case length > 0 && int64(len(content)) != length:
		err = fmt.Errorf("holds %d bytes, and a block has %d", len(content), length)
	}
	if err != nil {
		return int64(len(frame)), &object.BadError{Key: key, Reason: err.Error(), Got: key.Name}
	}
	if use != nil {
		use(content)
	}
	return int64(len(frame)), nil
}

// read reads what feed yields. done is told of each object, and of the end of each prefix, in order.
func (s *scrub) read(ctx context.Context, feed func(context.Context, func(*item) bool) error, done func(*item) error) error {
	r, err := newReader(s.Repo.Objects(), s.Workers, s.Repo.BlockSize)
	if err != nil {
		return err
	}
	work := func(ctx context.Context, i *item) error {
		if i.end || i.judged {
			return nil
		}
		if i.read, i.err = r.judge(ctx, i.key, i.length, nil); i.err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	return parallel.Ordered(ctx, s.Workers+ahead, 2*(s.Workers+ahead), feed, work, func(i *item) error {
		if !i.end {
			s.note(i.key, i.read, i.err)
			if i.limbo && i.err != nil {
				s.limbo[i.key] = true
			}
		}
		return done(i)
	})
}

// note counts an object that was read, and what is wrong with it.
func (s *scrub) note(key object.Key, read int64, err error) {
	s.report.Objects++
	s.report.Read += read
	if err == nil {
		if s.marks[key] {
			s.cleared = append(s.cleared, key)
		}
		return
	}
	if _, known := s.found[key]; !known {
		s.found[key] = judge(err)
	}
}

// round reads the objects of the name space, from the cursor on, and draws the consequences before the cursor says so: what
// was read and not judged has to be read again.
func (s *scrub) round(ctx context.Context) error {
	lock, err := s.Repo.LockScrub()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	cursor, err := s.Repo.ScrubCursor()
	if err != nil {
		return err
	}
	if s.there, err = s.list(ctx); err != nil {
		return err
	}
	if s.Share > 0 {
		if err := s.turn(ctx, cursor); err != nil {
			return err
		}
	}
	if oldest := cursor.Oldest(); !oldest.IsZero() {
		s.report.Oldest = &oldest
	}
	if err := s.settle(ctx); err != nil || s.Share == 0 {
		return err
	}
	return s.Repo.SaveScrubCursor(cursor)
}

// list lists all revisions. What they reach is in place before the walk over the objects begins.
func (s *scrub) list(ctx context.Context) (map[string]bool, error) {
	there := map[string]bool{}
	for job, err := range s.Repo.Jobs(ctx) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			s.unseen(err)
			continue
		}
		list, _, err := job.List()
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			there[r.ID] = true
		}
	}
	return there, nil
}

// turn reads what is next. The cursor is saved on the way, so that who is killed goes on from there; but only with where
// it is, and after what is bad was marked. What was verified, it says at the end.
func (s *scrub) turn(ctx context.Context, cursor *repo.ScrubCursor) error {
	first, count, after := cursor.Advance(s.Share)
	s.from, s.upTo = first, first
	saved := s.Now()
	unknown := false
	var verified []int
	save := func() error {
		if err := s.markEarly(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		cursor.Position = int64(s.upTo%repo.Prefixes) * repo.ScrubUnit
		return s.Repo.SaveScrubCursor(cursor)
	}
	err := s.read(ctx, func(ctx context.Context, yield func(*item) bool) error {
		return s.prefixes(ctx, first, count, yield)
	}, func(i *item) error {
		if !i.end {
			unknown = unknown || i.err != nil && judge(i.err).unknown
			return nil
		}
		if i.err != nil {
			s.unknown(fmt.Sprintf("prefix %03x", i.prefix), i.err)
		}
		if i.err == nil && !unknown {
			verified = append(verified, i.prefix)
		}
		unknown = false
		s.upTo++
		done := s.upTo - first
		s.Events.Emit(event.Event{Kind: event.Progress, Done: s.report.Read, Total: s.report.Read * int64(count) / int64(done), Read: s.report.Read})
		if now := s.Now(); now.Sub(saved) > saveEvery {
			saved = now
			return save()
		}
		return nil
	})
	switch {
	case err != nil && s.upTo > first:
		return errors.Join(err, save())
	case err != nil:
		return err
	case s.upTo == first+count:
		cursor.Position = after
	case s.upTo > first:
		cursor.Position = int64(s.upTo%repo.Prefixes) * repo.ScrubUnit
	}
	for _, prefix := range verified {
		cursor.Verified[prefix] = s.start
	}
	return nil
}

// prefixes yields the objects of some prefixes, each with its end.
func (s *scrub) prefixes(ctx context.Context, first, count int, yield func(*item) bool) error {
	for n := range count {
		prefix := (first + n) % repo.Prefixes
		end := &item{end: true, prefix: prefix}
		for _, kind := range object.Kinds {
			items, err := s.items(kind, prefix)
			if err != nil {
				end.err = err
			}
			for _, i := range items {
				if s.late() || !yield(i) {
					return nil
				}
			}
		}
		if s.late() || !yield(end) {
			return nil
		}
	}
	return ctx.Err()
}

// items are the objects of a kind under a prefix, each once. A purge beside this may move one that a revision reaches to
// limbo, or back. Who looks there before and after he looks in place misses none.
func (s *scrub) items(kind object.Kind, prefix int) ([]*item, error) {
	pool := s.Repo.Objects()
	before, err1 := pool.ListLimbo(kind, prefix)
	inPlace, err2 := pool.List(kind, prefix)
	after, err3 := pool.ListLimbo(kind, prefix)
	var items []*item
	seen := map[object.Key]bool{}
	for n, keys := range [][]object.Key{inPlace, before, after} {
		for _, key := range keys {
			if !seen[key] {
				seen[key] = true
				items = append(items, &item{key: key, limbo: n > 0})
			}
		}
	}
	return items, errors.Join(err1, err2, err3)
}

// revisions reads what the revisions reach: all of the newest, and of each one before it what is not the same in the one
// after it. An object that is found at many places is read once, as far as the memory for that goes.
func (s *scrub) revisions(ctx context.Context) error {
	total := int64(0)
	for i, r := range s.Revisions {
		if i == 0 {
			total += r.Size
		}
		total += r.Changed
	}
	return s.read(ctx, func(ctx context.Context, yield func(*item) bool) error {
		return s.feed(ctx, yield)
	}, func(i *item) error {
		s.Events.Emit(event.Event{Kind: event.Progress, Done: min(total, s.report.Objects*s.Revisions[0].Block), Total: total, Read: s.report.Read})
		return nil
	})
}

var errStopped = errors.New("stopped")

// remembered is how many names a run keeps in mind, so as not to read them twice.
const remembered = 2 << 20

func (s *scrub) feed(ctx context.Context, yield func(*item) bool) error {
	pages, err := blockmap.NewPages(s.Repo.Objects())
	if err != nil {
		return err
	}
	seen := map[object.Key]bool{}
	first := func(key object.Key) bool {
		if seen[key] {
			return false
		}
		if len(seen) < remembered {
			seen[key] = true
		}
		return true
	}
	var before *repo.Revision
	for i := range s.Revisions {
		r := s.Revisions[len(s.Revisions)-1-i]
		old := blockmap.NewCursor(nil, blockmap.Map{Size: r.Size, BlockSize: r.Block})
		if before != nil && before.Block == r.Block {
			old = blockmap.NewCursor(pages, before.Map())
		}
		before = &r
		err := blockmap.Compare(ctx, old, blockmap.NewCursor(pages, r.Map()), blockmap.Visitor{
			Page: func(_ int, name object.Name) (bool, error) {
				key := object.Key{Kind: object.Page, Name: name}
				if !first(key) {
					return false, nil
				}
				if !yield(&item{key: key, judged: true}) { // it was read to get here
					return false, errStopped
				}
				return true, nil
			},
			Block: func(_ int64, _, name object.Name) error {
				key := object.Key{Kind: object.Chunk, Name: name}
				if name.IsZero() || !first(key) {
					return nil
				}
				if s.late() || !yield(&item{key: key, length: r.Block}) {
					return errStopped
				}
				return nil
			},
			Lost: func(e *blockmap.PageError) error {
				if !yield(&item{key: object.Key{Kind: object.Page, Name: e.Name}}) { // which finds out what is wrong with it
					return errStopped
				}
				return nil
			},
			OldLost: func(*blockmap.PageError) error { return nil },
		})
		if errors.Is(err, errStopped) {
			return ctx.Err()
		}
		if page := (*blockmap.PageError)(nil); errors.As(err, &page) && ctx.Err() == nil {
			if !yield(&item{key: object.Key{Kind: object.Page, Name: page.Name}, judged: true, err: page.Err}) {
				return ctx.Err()
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

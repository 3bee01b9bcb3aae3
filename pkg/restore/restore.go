// Package restore gives a revision back: to a disk, as a stream of bytes, as a stream of extents, or to nobody, to see
// whether it could. Every chunk is checked against its name before a byte of it goes out, and damage ends nothing that
// can go on.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/aligned"
	"backy/pkg/disk"
	"backy/pkg/event"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

// DefaultMemory is what blocks on their way may take, in bytes.
const DefaultMemory = 128 << 20

// Options say what is to be given back, and to whom. One of Target, Stream and Diff is set; with none of them everything
// is read and checked, and goes nowhere.
type Options struct {
	Repo     *repo.Repo
	Revision repo.Revision

	Target disk.Writer // gets the disk by offset; of the revision's size. Run makes it durable, the caller closes it
	Stream io.Writer   // gets the bytes of the disk from first to last
	Diff   io.Writer   // gets a stream of extents, of what differs from From

	From   *repo.Revision // what Diff builds on; nil: a disk that is all zero
	Sparse bool           // Target reads as zero where nothing is written, as one that is a disk.Committer always does
	Keep   bool           // what is damaged is left alone in Target, and left out of Diff

	Workers int   // 0: as many as there are cores
	Memory  int64 // for blocks on their way, bytes; 0 is DefaultMemory. It may cost workers, but never the last one
	Log     *slog.Logger
	Events  *event.Writer
}

// Damage is a range of the disk that cannot be given back, as nobody knows what was in it.
type Damage struct {
	repo.Range
	Reason string `json:"reason"` // what is wrong with the first of the objects that it needs
}

// Report says what was given back.
type Report struct {
	Job      string    `json:"job"`
	Revision string    `json:"revision"`
	Time     time.Time `json:"time"` // of the revision
	Size     int64     `json:"size"` // of the disk, bytes
	Data     int64     `json:"data"` // bytes of blocks that are not all zero
	Read     int64     `json:"read"` // bytes of objects that were read, compressed, without the map's
	Damage   []Damage  `json:"damage"`
}

// Lost is the number of bytes in all damaged ranges.
func (r Report) Lost() int64 {
	n := int64(0)
	for _, d := range r.Damage {
		n += d.Length
	}
	return n
}

// Run gives the revision back. When it returns nil, a Target is durable (and committed, if it is a disk.Committer), and
// what could not be given back is in the report: chunks and pages that are missing or do not decode to their names. In a
// Target or Stream that is zero then. A Diff ends at the first of them, with an error and without its end record, unless
// Keep is set. Any other error says nothing about the revision, and ends the run.
//
// A repository that cannot be written to is read all the same, with a warning.
func Run(ctx context.Context, o Options) (Report, error) {
	r := &run{Options: o, report: Report{Job: o.Revision.Job, Revision: o.Revision.ID, Time: o.Revision.Time, Size: o.Revision.Size, Damage: []Damage{}}}
	o.Events.About(o.Revision.Job, o.Revision.ID)
	o.Events.Emit(event.Event{Kind: event.Started, Total: o.Revision.Size})
	if err := r.register(); err != nil {
		return r.report, err
	}
	defer r.end()
	if o.Revision.State.Trust == repo.Distrusted {
		o.Log.Warn("revision "+o.Revision.ID+" is distrusted: it may differ from what the disk was", "why", o.Revision.State.Why)
	}
	if err := r.copy(ctx); err != nil {
		return r.report, fmt.Errorf("restore %s: %w", o.Revision.ID, err)
	}
	o.Events.Emit(event.Event{Kind: event.Progress, Done: o.Revision.Size, Total: o.Revision.Size, Read: r.report.Read})
	return r.report, nil
}

// run is one restore.
type run struct {
	Options
	sessions []*repo.Session
	sink     sink
	benches  chan *bench
	buffers  chan []byte
	report   Report
	damage   *Damage // the latest range, which may still grow
}

// bench is what one worker needs.
type bench struct {
	dec   *object.Decoder
	frame []byte
}

// register opens a session for each revision that is read, so that a purge beside this leaves alone what they reach. A
// repository that cannot be written to, or is full, is no reason not to restore from it.
func (r *run) register() error {
	revisions := []repo.Revision{r.Revision}
	if r.From != nil {
		revisions = append(revisions, *r.From)
	}
	for _, rev := range revisions {
		s, unregistered, err := r.Repo.Read(rev)
		if again := (*repo.AgainError)(nil); errors.As(err, &again) {
			r.end()
			return err
		}
		if reason := errors.Join(err, unregistered); reason != nil {
			r.Log.Warn("the repository does not know of this session: should the revision be forgotten meanwhile, a purge may take away what is read", "reason", reason)
		}
		if s != nil {
			r.sessions = append(r.sessions, s)
		}
	}
	return nil
}

func (r *run) end() {
	for _, s := range r.sessions {
		s.Close()
	}
}

// alive fails if a purge took a session for over.
func (r *run) alive() error {
	for _, s := range r.sessions {
		if err := s.Alive(); err != nil {
			return err
		}
	}
	return nil
}

// copy reads everything, hands it to the sink, and finishes that.
func (r *run) copy(ctx context.Context) error {
	var err error
	if r.sink, err = r.open(ctx); err != nil {
		return err
	}
	workers := r.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	memory := r.Memory
	if memory <= 0 {
		memory = DefaultMemory
	}
	// Each worker has a frame; there are two blocks for each, of which one is being written, and two more wait for their turn.
	workers = max(1, min(workers, (int(memory/r.Revision.Block)-2)/3))
	n := 2*workers + 2
	r.benches, r.buffers = make(chan *bench, workers), make(chan []byte, n)
	for range workers {
		dec, err := object.NewDecoder(int(r.Revision.Block))
		if err != nil {
			return err
		}
		r.benches <- &bench{dec: dec}
	}
	for range n {
		r.buffers <- nil // made when it is needed: an empty disk takes none
	}
	if err := parallel.Ordered(ctx, 2*workers, n, r.feed, r.work, r.emit); err != nil {
		return err
	}
	r.closeDamage()
	return r.sink.finish()
}

// work makes the bytes of a piece and, where the order does not matter, hands them on.
func (r *run) work(ctx context.Context, p *piece) error {
	if p.kind == data {
		p.content = <-r.buffers // never waits long: there are as many as pieces under way
		if err := r.fetch(ctx, p); err != nil {
			return err
		}
	}
	return r.sink.any(ctx, p)
}

// slack is what a decoder likes to have behind the content: without it, it takes a slower way.
const slack = 4096

// fetch reads a block's chunk. What is damaged is then lost; another error is returned.
func (r *run) fetch(ctx context.Context, p *piece) error {
	b := <-r.benches
	defer func() { r.benches <- b }()
	if p.content == nil {
		p.content = aligned.Buffer(int(r.Revision.Block) + slack)
	}
	key := object.Key{Kind: object.Chunk, Name: p.name}
	content, frame, err := object.Fetch(ctx, r.objects(), b.dec, key, b.frame, p.content)
	b.frame, p.read = frame, int64(len(frame))
	if err == nil && int64(len(content)) != r.Revision.Block {
		err = &object.BadError{Key: key, Reason: fmt.Sprintf("holds %d bytes, and a block has %d", len(content), r.Revision.Block)}
	}
	if isDamage(err) {
		p.kind, p.err = lost, err
		return nil
	}
	if err == nil {
		p.content = content
	}
	return err
}

// objects reads the repository past bad sectors: an object that the disk under it cannot read is lost to a restore, though
// nobody says that it is bad.
func (r *run) objects() object.Getter { return pastMedia{r.Repo.Objects()} }

type pastMedia struct{ object.Getter }

func (m pastMedia) Get(ctx context.Context, key object.Key, buf []byte) ([]byte, error) {
	frame, err := m.Getter.Get(ctx, key, buf)
	for _, media := range []error{unix.EIO, unix.EBADMSG, unix.EUCLEAN} {
		if errors.Is(err, media) {
			return frame, &object.BadError{Key: key, Reason: fmt.Sprintf("cannot be read: %v", err)}
		}
	}
	return frame, err
}

// isDamage tells what is wrong with an object from what is wrong with the way to it.
func isDamage(err error) bool {
	var bad *object.BadError
	return errors.As(err, &bad) || errors.Is(err, object.ErrNotExist)
}

// emit hands on, in order, what needs its order, and counts.
func (r *run) emit(p *piece) error {
	switch p.kind {
	case data:
		r.report.Data += p.length
		r.closeDamage()
	case zero:
		r.closeDamage()
	case lost:
		if err := r.alive(); err != nil {
			return err // it may have been taken away, and never have been damaged
		}
		r.openDamage(p)
	}
	if err := r.sink.next(p); err != nil {
		return err
	}
	if p.content != nil {
		r.buffers <- p.content
	}
	r.report.Read += p.read
	r.Events.Emit(event.Event{Kind: event.Progress, Done: p.off + p.length, Total: r.Revision.Size, Read: r.report.Read})
	return nil
}

// openDamage lists a lost piece, together with the one before it if they touch.
func (r *run) openDamage(p *piece) {
	if r.damage != nil && r.damage.Offset+r.damage.Length == p.off {
		r.damage.Length += p.length
		return
	}
	r.closeDamage()
	r.damage = &Damage{repo.Range{Offset: p.off, Length: p.length}, p.reason()}
}

// closeDamage tells of the latest damaged range, once it is known where it ends.
func (r *run) closeDamage() {
	if r.damage == nil {
		return
	}
	d := *r.damage
	r.damage = nil
	r.report.Damage = append(r.report.Damage, d)
	text := fmt.Sprintf("damaged: %d bytes from byte %d on: %s", d.Length, d.Offset, d.Reason)
	r.Log.Error(text)
	r.Events.Emit(event.Event{Kind: event.Damaged, Message: text})
}

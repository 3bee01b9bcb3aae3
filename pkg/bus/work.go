package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Work is a job that is due.
type Work struct {
	Job     string    `json:"job"`
	Pool    string    `json:"pool"`              // who may do it; letters, digits, - and _
	Lane    string    `json:"lane"`              // fast or slow
	Tags    []string  `json:"tags,omitempty"`    // that the revision is to have
	Compare bool      `json:"compare,omitempty"` // in place of using a change map
	Due     time.Time `json:"due"`               // since when
	ID      string    `json:"id,omitempty"`      // of the event due that tells of it
	Manual  bool      `json:"manual,omitempty"`  // someone asked for it
}

func (w Work) subject() (string, error) {
	if !word.MatchString(w.Pool) || !word.MatchString(w.Lane) {
		return "", fmt.Errorf("%q, %q: no pool and lane", w.Pool, w.Lane)
	}
	if w.Job == "" {
		return "", errors.New("work without a job")
	}
	tail, err := tail(w.Job)
	return dueHead + "." + w.Pool + "." + w.Lane + "." + tail, err
}

// anywhere is the subject of a job in whichever pool and lane.
func anywhere(job string) (string, error) {
	if job == "" {
		return "", errors.New("work without a job")
	}
	tail, err := tail(job)
	return dueHead + ".*.*." + tail, err
}

// Push queues a job. added is false where the job is queued already, or is being worked on: there is one message for a job,
// from Push to Done. So pushing too often does no harm.
func (b *Bus) Push(ctx context.Context, w Work) (added bool, err error) {
	what := "queue " + w.Job
	to, err := w.subject()
	if err != nil {
		return false, fmt.Errorf("%s: %w", what, err)
	}
	text, err := json.Marshal(w)
	if err != nil {
		return false, fmt.Errorf("%s: %w", what, err)
	}
	ctx, cancel := b.until(ctx)
	defer cancel()
	b.push.Lock()
	defer b.push.Unlock()
	if _, there, err := b.queued(ctx, w.Job); err != nil || there { // it may be in another lane
		return false, b.explain(what, err)
	}
	_, err = b.js.Publish(ctx, to, text, jetstream.WithExpectStream(DueStream))
	if apiErr := (*jetstream.APIError)(nil); errors.As(err, &apiErr) && strings.Contains(apiErr.Description, "maximum messages per subject") {
		return false, nil // another process was faster
	}
	return err == nil, b.explain(what, err)
}

// queued looks for a job in all pools and lanes.
func (b *Bus) queued(ctx context.Context, job string) (w Work, ok bool, err error) {
	at, err := anywhere(job)
	if err != nil {
		return w, false, err
	}
	s, err := b.js.Stream(ctx, DueStream)
	if err != nil {
		return w, false, err
	}
	m, err := s.GetLastMsgForSubject(ctx, at)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return w, false, nil
	}
	if err == nil {
		err = json.Unmarshal(m.Data, &w)
	}
	return w, err == nil, err
}

// WorkWait is how long work may be silent before it is given to another worker: call Working more often than that.
const WorkWait = time.Minute

// Task is work that was taken. One of Done and Again ends it; without, it is given out again after WorkWait.
type Task struct {
	Work
	Try int // 1 the first time that it is given out
	bus *Bus
	m   jetstream.Msg
}

// Working says that the task is being worked on.
func (t *Task) Working() { _ = t.m.InProgress() }

// Done takes the task from the queue, for good: with a backup made, or one that failed and is to be queued anew later.
func (t *Task) Done() error {
	ctx, cancel := context.WithTimeout(t.bus.ctx, 5*time.Second)
	defer cancel()
	return t.bus.explain("say that "+t.Job+" is done", t.m.DoubleAck(ctx))
}

// Again gives the task back: it is given out again after a pause.
func (t *Task) Again(after time.Duration) error {
	return t.bus.explain("give "+t.Job+" back", t.m.NakWithDelay(after))
}

// Pull waits for work of a pool and lane, and takes it. It fails when ctx ends, with its cause, or the server does not
// answer any more: try again later.
func (b *Bus) Pull(ctx context.Context, pool, lane string) (*Task, error) {
	both, cancel := b.until(ctx)
	defer cancel()
	what := "pull work of " + pool + ", " + lane
	for {
		c, err := b.worker(both, pool, lane)
		if err != nil {
			return nil, b.ended(ctx, what, err)
		}
		m, err := next(both, c)
		if err != nil {
			b.forget(pool, lane)
			return nil, b.ended(ctx, what, err)
		}
		t := &Task{bus: b, m: m}
		err = json.Unmarshal(m.Data(), &t.Work)
		if meta, merr := m.Metadata(); merr == nil {
			t.Try = int(meta.NumDelivered)
		}
		if err == nil && t.Job != "" {
			return t, nil
		}
		b.log.Warn("a message in "+DueStream+" is no work, and is thrown away", "subject", m.Subject(), "reason", err)
		_ = m.Term()
	}
}

// ended is the error of a wait: of who asked, before all others.
func (b *Bus) ended(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.explain(what, err)
}

// worker is what gives out the work of a pool and lane.
func (b *Bus) worker(ctx context.Context, pool, lane string) (jetstream.Consumer, error) {
	if !word.MatchString(pool) || !word.MatchString(lane) {
		return nil, fmt.Errorf("%q, %q: no pool and lane", pool, lane)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	from := dueHead + "." + pool + "." + lane + ".>"
	if c := b.workers[from]; c != nil {
		return c, nil
	}
	c, err := b.consumer(ctx, DueStream, jetstream.ConsumerConfig{
		Durable: pool + "--" + lane, FilterSubject: from, AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.workWait,
		MaxDeliver: -1, MaxAckPending: -1,
	})
	if err == nil {
		b.workers[from] = c
	}
	return c, err
}

// forget makes the next Pull ask the server for its consumer again.
func (b *Bus) forget(pool, lane string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.workers, dueHead+"."+pool+"."+lane+".>")
}

// Drop takes a job from the queue, in all pools and lanes. Work that was taken goes on, and its end is none of the queue's
// any more.
func (b *Bus) Drop(ctx context.Context, job string) error {
	what := "take " + job + " from the queue"
	at, err := anywhere(job)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s, err := b.js.Stream(ctx, DueStream)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(at))
	}
	return b.explain(what, err)
}

// Waiting is what is queued or being worked on, by job.
func (b *Bus) Waiting(ctx context.Context) (map[string]Work, error) {
	s, err := b.js.Stream(ctx, DueStream)
	if err != nil {
		return nil, b.explain("read the queue", err)
	}
	all := map[string]Work{}
	for seq := uint64(1); ; seq++ {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(dueHead+".>"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all, nil
		}
		if err != nil {
			return nil, b.explain("read the queue", err)
		}
		var w Work
		if json.Unmarshal(m.Data, &w) == nil && w.Job != "" {
			all[w.Job] = w
		}
		seq = m.Sequence
	}
}

// Queued tells which jobs are queued or being worked on, without what their work is: that takes one request, not one for each.
func (b *Bus) Queued(ctx context.Context) (map[string]bool, error) {
	_, subjects, err := b.queue(ctx)
	if err != nil {
		return nil, b.explain("read the queue", err)
	}
	all := map[string]bool{}
	for at := range subjects {
		if words := dueWords(at); len(words) == 3 {
			all[words[2]] = true
		}
	}
	return all, nil
}

// queue is the stream of what is due, and how many messages each of its subjects has.
func (b *Bus) queue(ctx context.Context) (jetstream.Stream, map[string]uint64, error) {
	s, err := b.js.Stream(ctx, DueStream)
	if err != nil {
		return nil, nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(dueHead+".>"))
	if err != nil {
		return nil, nil, err
	}
	return s, info.State.Subjects, nil
}

// dueWords are the pool, the lane and the job of a subject; of a consumer's, that have no job, the last is >.
func dueWords(subject string) []string {
	return strings.SplitN(strings.TrimPrefix(subject, dueHead+"."), ".", 3)
}

// Queue counts what one pool and lane has.
type Queue struct {
	Pool, Lane string
	Waiting    int // not given out yet
	Running    int // given out, or given back for later
}

// Queues counts the work of each pool and lane that has some, or had.
func (b *Bus) Queues(ctx context.Context) ([]Queue, error) {
	s, subjects, err := b.queue(ctx)
	if err != nil {
		return nil, b.explain("count the queue", err)
	}
	var list []Queue
	find := func(at string) *Queue {
		words := dueWords(at)
		for i := range list {
			if list[i].Pool == words[0] && list[i].Lane == words[1] {
				return &list[i]
			}
		}
		list = append(list, Queue{Pool: words[0], Lane: words[1]})
		return &list[len(list)-1]
	}
	for at, n := range subjects {
		find(at).Waiting += int(n)
	}
	consumers := s.ListConsumers(ctx)
	for c := range consumers.Info() {
		q := find(c.Config.FilterSubject)
		q.Running = c.NumAckPending
		q.Waiting = max(0, q.Waiting-q.Running)
	}
	return list, b.explain("count the queue", consumers.Err())
}

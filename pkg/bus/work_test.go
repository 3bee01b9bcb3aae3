package bus

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func push(t *testing.T, b *Bus, w Work) bool {
	t.Helper()
	added, err := b.Push(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return added
}

func take(t *testing.T, b *Bus, pool, lane string) *Task {
	t.Helper()
	task, err := b.Pull(t.Context(), pool, lane)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func work(job, pool, lane string) Work { return Work{Job: job, Pool: pool, Lane: lane, Due: moment} }

// queues is what each pool and lane has, as "pool/lane waiting running".
func queues(t *testing.T, b *Bus) []string {
	t.Helper()
	list, err := b.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(x, y Queue) int { return cmp.Compare(x.Pool+x.Lane, y.Pool+y.Lane) })
	var text []string
	for _, q := range list {
		text = append(text, fmt.Sprintf("%s/%s %d %d", q.Pool, q.Lane, q.Waiting, q.Running))
	}
	return text
}

func TestWorkIsPulledOnce(t *testing.T) {
	_, b := base(t)
	w := Work{Job: "group/vm.1", Pool: "default", Lane: "fast", Tags: []string{"daily", "weekly"}, Compare: true, Due: moment, ID: "E1", Manual: true}
	if !push(t, b, w) {
		t.Error("it was queued before")
	}
	task := take(t, b, "default", "fast")
	if fmt.Sprintf("%+v", task.Work) != fmt.Sprintf("%+v", w) || task.Try != 1 {
		t.Errorf("got %+v, want %+v", task.Work, w)
	}
	want(t, queues(t, b), "default/fast 0 1")
	task.Working()
	if err := task.Done(); err != nil {
		t.Fatal(err)
	}
	want(t, queues(t, b), "default/fast 0 0")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if task, err := b.Pull(ctx, "default", "fast"); err != context.DeadlineExceeded {
		t.Errorf("there is still %+v: %v", task, err)
	}
}

func TestAJobIsQueuedOnce(t *testing.T) {
	_, b := base(t)
	steps := []struct {
		w     Work
		added bool
	}{
		{work("vm1", "default", "fast"), true},
		{work("vm1", "default", "fast"), false},
		{work("vm1", "default", "slow"), false}, // it changed its lane meanwhile
		{work("vm1", "other", "fast"), false},
		{work("vm2", "default", "fast"), true},
		{work("vm1.x", "default", "fast"), true}, // jobs of their own
		{work("a/vm1", "default", "fast"), true},
		{work("default.fast.vm1", "default", "slow"), true},
	}
	for _, s := range steps {
		if added := push(t, b, s.w); added != s.added {
			t.Errorf("%+v: added %v", s.w, added)
		}
	}
	task := take(t, b, "default", "fast")
	if task.Job != "vm1" || push(t, b, work("vm1", "default", "fast")) {
		t.Errorf("%s was queued again while it is worked on", task.Job)
	}
	if err := task.Done(); err != nil {
		t.Fatal(err)
	}
	if !push(t, b, work("vm1", "default", "slow")) {
		t.Error("what is done cannot be queued again")
	}
}

// Two processes that queue the same at once: the server takes one of them.
func TestTwoWhoQueue(t *testing.T) {
	dir, b := base(t)
	url, token, _ := Local(dir)
	other, err := Connect(t.Context(), url, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for i := range 50 {
		w := work(fmt.Sprint("vm", i), "default", "fast")
		added := make(chan bool, 2)
		for _, x := range []*Bus{b, other} {
			go func() {
				ok, err := x.Push(t.Context(), w)
				if err != nil {
					t.Error(err)
				}
				added <- ok
			}()
		}
		if one, two := <-added, <-added; one == two {
			t.Errorf("%s: both were told %v", w.Job, one)
		}
	}
	want(t, queues(t, b), "default/fast 50 0")
}

func TestPoolsAndLanesAreSeparate(t *testing.T) {
	dir, b := base(t)
	for _, w := range []Work{work("a", "default", "fast"), work("b", "default", "slow"), work("c", "remote", "fast"), work("d", "remote", "fast")} {
		push(t, b, w)
	}
	want(t, queues(t, b), "default/fast 1 0", "default/slow 1 0", "remote/fast 2 0")
	for _, at := range []struct{ pool, lane, job string }{{"remote", "fast", "c"}, {"default", "slow", "b"}, {"default", "fast", "a"}} {
		if task := take(t, b, at.pool, at.lane); task.Job != at.job {
			t.Errorf("%s/%s gave %s", at.pool, at.lane, task.Job)
		}
	}
	want(t, queues(t, b), "default/fast 0 1", "default/slow 0 1", "remote/fast 1 1")
	b.Close()
	b = openAt(t, filepath.Join(dir, ".backy", "nats"))
	want(t, queues(t, b), "default/fast 0 1", "default/slow 0 1", "remote/fast 1 1")
}

func TestWaitingAndDrop(t *testing.T) {
	_, b := base(t)
	for _, job := range []string{"vm1", "group/vm1", "vm1.old"} {
		push(t, b, work(job, "default", "slow"))
	}
	take(t, b, "default", "slow")
	jobs := func() []string {
		all, err := b.Waiting(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for job, w := range all {
			if w.Job != job || w.Lane != "slow" || !w.Due.Equal(moment) {
				t.Errorf("%s is %+v", job, w)
			}
			list = append(list, job)
		}
		slices.Sort(list)
		names, err := b.Queued(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want(t, slices.Sorted(maps.Keys(names)), list...)
		return list
	}
	want(t, jobs(), "group/vm1", "vm1", "vm1.old")
	for _, job := range []string{"vm1", "group/vm1", "nobody"} {
		if err := b.Drop(t.Context(), job); err != nil {
			t.Error(err)
		}
	}
	want(t, jobs(), "vm1.old")
	if err := b.Drop(t.Context(), "*"); err == nil {
		t.Error("all was dropped")
	}
	want(t, jobs(), "vm1.old")
}

func TestWorkIsGivenBack(t *testing.T) {
	_, b := base(t)
	push(t, b, work("vm1", "default", "fast"))
	push(t, b, work("vm2", "default", "fast"))
	if err := take(t, b, "default", "fast").Again(time.Hour); err != nil {
		t.Fatal(err)
	}
	task := take(t, b, "default", "fast")
	if task.Job != "vm2" {
		t.Errorf("%s goes first", task.Job)
	}
	if err := task.Again(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if task := take(t, b, "default", "fast"); task.Job != "vm2" || task.Try != 2 {
		t.Errorf("then %s, try %d", task.Job, task.Try)
	}
}

// A worker that dies says nothing more, and its work goes to another one.
func TestWorkOfADeadWorker(t *testing.T) {
	dir, b := base(t)
	b.workWait = 200 * time.Millisecond
	push(t, b, work("vm1", "default", "fast"))
	url, token, _ := Local(dir)
	worker, err := Connect(t.Context(), url, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	worker.workWait = b.workWait
	dead := take(t, worker, "default", "fast")
	worker.Close()
	task := take(t, b, "default", "fast")
	if task.Job != "vm1" || task.Try != 2 {
		t.Errorf("got %s, try %d", task.Job, task.Try)
	}
	if err := dead.Done(); err == nil {
		t.Error("a worker without a connection says that it is done")
	}
	if err := task.Done(); err != nil {
		t.Error(err)
	}
}

func TestWorkThatIsNone(t *testing.T) {
	_, b := base(t)
	for _, w := range []Work{{}, {Job: "vm1"}, work("", "a", "b"), work("*", "a", "b"), work("vm1", "a.b", "c"), work("vm1", "a", ">"), work("vm1", "a b", "c")} {
		if added, err := b.Push(t.Context(), w); added || err == nil {
			t.Errorf("%+v is queued", w)
		}
	}
	if _, err := b.Pull(t.Context(), "*", "fast"); err == nil {
		t.Error("work of any pool")
	}
	if err := b.conn.Publish("backy.due.default.fast.vm1", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	push(t, b, work("vm2", "default", "fast"))
	if task := take(t, b, "default", "fast"); task.Job != "vm2" {
		t.Errorf("got %+v", task.Work)
	}
	for slices.Equal(queues(t, b), []string{"default/fast 0 2"}) { // nobody waits for what is thrown away
		time.Sleep(time.Millisecond)
	}
	want(t, queues(t, b), "default/fast 0 1")
}

package repo

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"backy/pkg/event"
)

// Of what becomes of revisions one event each is told, and only once it is durable.
func TestWhatBecomesOfRevisionsIsTold(t *testing.T) {
	j := newJob(t)
	ids := made(t, j, 3) // each with the tag daily
	var told []string
	j.repo.Events = event.NewFunc(func(e event.Event) error {
		n := strings.Index(strings.Join(ids, ""), e.Revision) / len(e.Revision)
		told = append(told, strings.TrimSpace(fmt.Sprintf("%s %d %v %v %v %s", e.Kind, n, e.Tags, e.Lost, e.Gone, e.Message)))
		if e.Job != j.Name || e.ID == "" {
			t.Errorf("job %q, id %q", e.Job, e.ID)
		}
		return nil
	}, event.Event{}, j.repo.Now)
	verified := func(s *State) error { s.Trust, s.Why = Verified, ""; return nil }
	retag := func(s *State) error { s.Tags = []string{"weekly"}; return nil }
	steps := []struct {
		do   func(*Edit) error
		fail bool
		want string
	}{
		{func(e *Edit) error { return e.Change(ids[0], addTag("weekly")) }, false, ""},
		{func(e *Edit) error { e.Because(ids[0], "why"); return e.Change(ids[0], retag) }, false, "expired 0 [weekly] [daily] false why"},
		{func(e *Edit) error { return e.Change(ids[0], retag) }, false, ""},
		{func(e *Edit) error { return e.Change(ids[1], distrust) }, false, "distrusted 1 [daily] [] false an operator said so"},
		{func(e *Edit) error { return e.Change(ids[1], distrust) }, false, ""},
		{func(e *Edit) error { return e.Change(ids[1], verified) }, false, "verified 1 [daily] [] false"},
		{func(e *Edit) error { return e.Change(ids[1], verified) }, false, ""},
		{func(e *Edit) error { return errors.Join(e.Change(ids[2], retag), e.Forget(ids[0])) }, false, "expired 2 [weekly] [daily] false; expired 0 [] [weekly] true"},
		{func(e *Edit) error { return errors.Join(e.Forget(ids[1]), e.Forget(ids[2])) }, true, ""},
		{func(e *Edit) error { _ = e.Forget(ids[1]); return errors.New("no") }, true, ""},
	}
	for i, s := range steps {
		told = nil
		if err := j.Edit(ctx, Guard{}, s.do); (err != nil) != s.fail {
			t.Errorf("step %d: %v", i, err)
		}
		if got := strings.Join(told, "; "); got != s.want {
			t.Errorf("step %d tells %q, want %q", i, got, s.want)
		}
	}

	told = nil
	j.repo.Ops.FsyncDir = func(*os.File) error { return errors.New("the disk is gone") }
	if err := j.Change(ctx, ids[1], distrust); err == nil || told != nil {
		t.Errorf("it is not durable (%v), and told: %v", err, told)
	}
}

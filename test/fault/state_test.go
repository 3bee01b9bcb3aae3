package fault

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"backy/pkg/durable"
	"backy/pkg/repo"
)

// TestSoakPowerCutState tags, protects, distrusts and forgets revisions, and cuts the power at random moments. A state is
// as before a change or as after it, never unreadable, and as after it once that was acknowledged; a revision that was
// forgotten stays so, and one that comes back with a cut has its state.
func TestSoakPowerCutState(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		rnd := newRandom(t)
		h := newHistory(newRecorder(t, fs), "srv", durable.Ops{})
		job, err := h.repo.Job("vm1")
		if err != nil {
			t.Fatal(err)
		}
		disk := newDisk(rnd, 4)
		for range 4 {
			h.backup("vm1", disk)
			disk = change(rnd, disk, 2)
		}
		ids := []string{h.acked[0].id, h.acked[1].id, h.acked[2].id, h.acked[3].id}
		made := h.mark()
		// marks[i] is when change i was acknowledged; each adds the tag of its number to revision 0.
		var marks []int
		for i := range 12 {
			if err := job.Change(context.Background(), ids[0], func(s *repo.State) error {
				s.Tags = append(s.Tags, fmt.Sprint("manual:", i))
				s.Protected, s.Trust, s.Why = i%2 == 0, repo.Distrusted, repo.WhyOperator
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			marks = append(marks, h.mark())
		}
		begun := h.mark()
		if err := job.Forget(context.Background(), ids[1:3], repo.Guard{}); err != nil {
			t.Fatal(err)
		}
		forgotten := h.mark()
		h.acked = []acknowledged{h.acked[0], h.acked[3]}
		end := h.mark()
		h.stop()
		for i := range soak(12, 60) {
			n := made + rnd.IntN(end-made+1)
			switch i % 3 {
			case 0:
				n = marks[rnd.IntN(len(marks))]
			case 1:
				n = begun + rnd.IntN(forgotten-begun+1)
			}
			seed := 1 + rnd.Uint32N(1<<31)
			h.cut(n, seed, func(mnt string) {
				r, err := h.kept(mnt, n)
				if err == nil {
					err = statesKept(r, ids, marks, begun, forgotten, n)
				}
				if err != nil {
					t.Errorf("after %d of %d writes, with seed %d: %v", n, end, seed, err)
				}
			})
		}
	})
}

func statesKept(r *repo.Repo, ids []string, marks []int, begun, forgotten, n int) error {
	job, err := r.Job("vm1")
	if err != nil {
		return err
	}
	list, broken, err := job.List()
	if err != nil || len(broken) > 0 {
		return fmt.Errorf("%v, %v", broken, err)
	}
	for _, rev := range list {
		if rev.StateErr != nil {
			return fmt.Errorf("revision %s: %w", rev.ID, rev.StateErr)
		}
		if i := slices.Index(ids, rev.ID); (i == 1 || i == 2) && n >= forgotten {
			return fmt.Errorf("revision %d was forgotten and is there", i)
		}
		if rev.ID == ids[0] {
			done := 0
			for done < len(marks) && marks[done] <= n {
				done++
			}
			tags := len(slices.DeleteFunc(slices.Clone(rev.State.Tags), func(tag string) bool { return len(tag) < 8 || tag[:7] != "manual:" }))
			if tags < done || tags > len(marks) || tags > 0 && rev.State.Protected != (tags%2 == 1) {
				return fmt.Errorf("%d changes were acknowledged, and the state is %+v", done, rev.State)
			}
		}
	}
	for i, id := range ids {
		there := slices.ContainsFunc(list, func(rev repo.Revision) bool { return rev.ID == id })
		if !there && (i == 0 || i == 3 || n < begun) {
			return fmt.Errorf("revision %d is gone", i)
		}
	}
	return nil
}

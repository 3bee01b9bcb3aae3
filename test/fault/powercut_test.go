package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"backy/pkg/durable"
	"backy/pkg/repo"
)

// history is what was done in a repository while the file system under it was recorded.
type history struct {
	*recorder
	name  string // of the base directory, below the mount
	repo  *repo.Repo
	made  int               // mark after init had returned
	mu    sync.Mutex        // of what follows: two jobs are backed up at once
	disks map[string][]byte // by the name of the source: what was backed up, whether it was acknowledged or not
	acked []acknowledged
}

type acknowledged struct {
	job, id string
	mark    int
	forget  int // mark from which on it may be gone, if not 0
}

func newHistory(r *recorder, name string, ops durable.Ops) *history {
	r.t.Helper()
	repository, err := repo.Init(filepath.Join(r.mnt, name), block, world(ops))
	if err != nil {
		r.t.Fatal(err)
	}
	return &history{recorder: r, name: name, repo: repository, made: r.mark(), disks: map[string][]byte{}}
}

// backup backs a disk up and notes when that was acknowledged.
func (h *history) backup(job string, disk []byte) {
	h.mu.Lock()
	source := fmt.Sprintf("%s:%d", job, len(h.disks))
	h.disks[source] = disk
	h.mu.Unlock()
	rev, err := backup(h.repo, job, source, disk)
	for again := (*repo.AgainError)(nil); errors.As(err, &again); { // there is a purge beside it
		rev, err = backup(h.repo, job, source, disk)
	}
	if err != nil {
		h.t.Errorf("back %s up: %v", source, err)
		return
	}
	mark := h.mark()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = append(h.acked, acknowledged{job: job, id: rev.ID, mark: mark})
}

// purge forgets a job's oldest revision, and frees what only that has reached.
func (h *history) purge(job string) {
	mark := h.mark()
	h.mu.Lock()
	i := slices.IndexFunc(h.acked, func(a acknowledged) bool { return a.job == job && a.forget == 0 })
	h.acked[i].forget = mark
	id := h.acked[i].id
	h.mu.Unlock()
	j, err := h.repo.Job(job)
	if err == nil {
		err = j.Forget(ctx, []string{id}, repo.Guard{})
	}
	if err == nil {
		_, err = h.repo.Purge(ctx, repo.PurgeOptions{Force: true})
	}
	if held := (*repo.HeldError)(nil); err != nil && !errors.As(err, &held) {
		h.t.Errorf("forget %s and purge: %v", id, err)
	}
}

// kept fails unless the repository, as a power cut after n writes left it, has all that was acknowledged by then, and
// nothing that is not whole.
func (h *history) kept(mnt string, n int) (*repo.Repo, error) {
	r, _, err := repo.Open(filepath.Join(mnt, h.name), world(durable.Ops{}))
	if errors.Is(err, repo.ErrNoRepository) && n < h.made {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, a := range h.acked {
		if gone := a.forget > 0 && a.forget <= n; a.mark <= n && !gone && !listed(r, a.job, a.id) {
			return nil, fmt.Errorf("revision %s of %s was acknowledged after %d writes and is not there", a.id, a.job, a.mark)
		}
	}
	return r, allWhole(r, func(rev repo.Revision) []byte { return h.disks[rev.Source] })
}

// goesOn fails unless backups and purges go on in what a power cut has left.
func (h *history) goesOn(r *repo.Repo, rnd *rand.Rand) error {
	after := map[string][]byte{"vm1": newDisk(rnd, 4), "x/y/new": newDisk(rnd, 1)}
	for job, disk := range after {
		rev, err := backup(r, job, job, disk)
		if err == nil {
			err = restored(r, rev, disk)
		}
		if err != nil {
			return fmt.Errorf("the next backup: %w", err)
		}
	}
	if _, err := r.Purge(ctx, repo.PurgeOptions{Force: true}); err != nil {
		return fmt.Errorf("the next purge: %w", err)
	}
	err := allWhole(r, func(rev repo.Revision) []byte {
		if disk, ok := after[rev.Source]; ok {
			return disk
		}
		return h.disks[rev.Source]
	})
	if err != nil {
		return fmt.Errorf("after the next purge: %w", err)
	}
	return nil
}

// TestSoakPowerCut backs up two jobs, at the same time, and cuts the power at random moments. Half of these are when
// something has just been acknowledged, which is when it is to be found out whether that was true.
func TestSoakPowerCut(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		rnd := newRandom(t)
		for range soak(1, 5) {
			h := newHistory(newRecorder(t, fs), "srv", durable.Ops{})
			h.twoJobs(rnd, nil)
			h.powerCuts(rnd, soak(10, 20))
		}
	})
}

// TestSoakPowerCutPurge does the same with purges beside the backups. Both jobs are of one disk that goes back and forth
// between contents, so that one writer looks for what the purge is about to take away, and the other brings it back.
func TestSoakPowerCutPurge(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		rnd := newRandom(t)
		for range soak(1, 5) {
			h := newHistory(newRecorder(t, fs), "srv", durable.Ops{})
			h.twoJobs(rnd, h.purge)
			h.powerCuts(rnd, soak(10, 20))
		}
	})
}

// twoJobs backs up two jobs at the same time. After each backup but the first of a job, it does something beside.
func (h *history) twoJobs(rnd *rand.Rand, beside func(job string)) {
	h.t.Helper()
	var both sync.WaitGroup
	disk := newDisk(rnd, 4+rnd.IntN(30))
	for _, job := range []string{"vm1", "group/a/vm2"} {
		disks := [][]byte{disk, change(rnd, disk, 4), disk, change(rnd, disk, 2)}
		if beside == nil {
			disks[2] = change(rnd, disk, 4)
		}
		both.Go(func() {
			for i, disk := range disks {
				h.backup(job, disk)
				if i > 0 && beside != nil {
					beside(job)
				}
			}
		})
	}
	both.Wait()
}

// powerCuts ends the recording and looks at what power cuts would have left.
func (h *history) powerCuts(rnd *rand.Rand, states int) {
	h.t.Helper()
	end := h.mark()
	h.stop()
	if h.t.Failed() {
		return
	}
	for i := range states {
		n := rnd.IntN(end + 1)
		if i%2 == 0 {
			n = h.acked[rnd.IntN(len(h.acked))].mark
		}
		seed := 1 + rnd.Uint32N(1<<31)
		h.cut(n, seed, func(mnt string) {
			r, err := h.kept(mnt, n)
			if err == nil && r != nil {
				err = h.goesOn(r, rnd)
			}
			if err != nil {
				h.t.Errorf("after %d of %d writes, with seed %d: %v", n, end, seed, err)
			}
		})
	}
	h.t.Logf("%d power cuts in %d writes", states, end)
}

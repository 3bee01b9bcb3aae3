package fault

import (
	"fmt"
	"os"
	"testing"
	"time"

	"backy/pkg/durable"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/scrub"
)

// healing is what befalls a job whose objects go bad, with the writes after which each step was acknowledged.
type healing struct {
	*history
	other                            *repo.Repo // with good copies
	bad                              []object.Key
	disk                             []byte
	rotten, marked, healed, verified int
}

// TestSoakPowerCutHeal lets objects go bad, has a scrub mark them, and a backup or another repository heal them, and cuts the
// power at random moments. What a scrub has told stays told; what was healed stays so; no mark goes before the good copy is
// there for good; and whatever was left, the next scrubs and backups make everything verified.
func TestSoakPowerCutHeal(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		rnd := newRandom(t)
		for range soak(1, 4) {
			for _, byBackup := range []bool{true, false} {
				h := &healing{history: newHistory(newRecorder(t, fs), "srv", durable.Ops{}), disk: newDisk(rnd, 8), other: newRepo(t)}
				h.backup("vm1", h.disk)
				if _, err := backup(h.other, "vm1", "disk", h.disk); err != nil {
					t.Fatal(err)
				}
				h.rot()
				h.heal(byBackup)
				h.stop()
				for i := range soak(3, 20) {
					n := h.rotten + rnd.IntN(h.verified-h.rotten+1)
					if marks := []int{h.marked, h.healed, h.verified}; i%2 == 0 {
						n = marks[rnd.IntN(len(marks))]
					}
					h.cut(n, 1+rnd.Uint32N(1<<31), func(mnt string) {
						if err := h.look(mnt, n); err != nil {
							t.Errorf("after %d writes (rotten %d, marked %d, healed %d, verified %d): %v", n, h.rotten, h.marked, h.healed, h.verified, err)
						}
					})
				}
			}
		}
	})
}

// rot flips a bit in two objects, for good.
func (h *healing) rot() {
	h.t.Helper()
	for _, kind := range object.Kinds {
		keys, err := h.repo.Objects().List(kind, 0)
		for prefix := 1; len(keys) == 0 && err == nil; prefix++ {
			keys, err = h.repo.Objects().List(kind, prefix)
		}
		must(h.t, err)
		h.bad = append(h.bad, keys[0])
		f, err := os.OpenFile(h.repo.Objects().Path(keys[0]), os.O_RDWR, 0)
		must(h.t, err)
		b := make([]byte, 1)
		_, err = f.ReadAt(b, 20)
		must(h.t, err)
		b[0] ^= 4
		_, err = f.WriteAt(b, 20)
		must(h.t, err)
		must(h.t, f.Sync())
		must(h.t, f.Close())
	}
	h.rotten = h.mark()
}

// heal marks what is bad, heals it, and verifies all.
func (h *healing) heal(byBackup bool) {
	h.t.Helper()
	report, err := scrubbed(h.repo, nil)
	if err != nil || len(report.Bad) != len(h.bad) {
		h.t.Fatalf("%d objects are bad, and the scrub has found %+v: %v", len(h.bad), report.Bad, err)
	}
	h.marked = h.mark()
	if byBackup {
		h.backup("vm1", h.disk)
	} else if _, err := scrubbed(h.repo, h.other); err != nil {
		h.t.Fatal(err)
	}
	h.healed = h.mark()
	if report, err := scrubbed(h.repo, nil); err != nil || !report.Clean() {
		h.t.Fatalf("it is not healed: %+v %v", report, err)
	}
	h.verified = h.mark()
}

func scrubbed(r, from *repo.Repo) (scrub.Report, error) {
	return scrub.Run(ctx, scrub.Options{Repo: r, Share: 1, HealFrom: from, Now: time.Now, Log: quiet})
}

// look fails unless a power cut after n writes has left what it may.
func (h *healing) look(mnt string, n int) error {
	r, _, err := repo.Open(mnt+"/"+h.name, world(durable.Ops{}))
	if err != nil {
		return err
	}
	for _, a := range h.acked {
		if a.mark <= n && !listed(r, a.job, a.id) {
			return fmt.Errorf("revision %s was acknowledged and is not there", a.id)
		}
	}
	marks, err := r.Marks()
	if err != nil {
		return err
	}
	whole := 0
	for _, key := range h.bad {
		dec, err := object.NewDecoder(block)
		if err != nil {
			return err
		}
		_, _, err = object.Fetch(ctx, r.Objects(), dec, key, nil, nil)
		switch {
		case err == nil:
			whole++
		case n >= h.healed:
			return fmt.Errorf("%s was healed and is bad: %w", key, err)
		case n >= h.marked && !marks[key]:
			return fmt.Errorf("%s was marked and is bad without a mark: %w", key, err)
		}
	}
	trust := ""
	err = eachRevision(r, func(rev repo.Revision) error {
		if rev.ID == h.acked[0].id {
			trust = rev.State.Trust
		}
		return rev.StateErr
	})
	if err != nil {
		return err
	}
	if n >= h.marked && whole < len(h.bad) && trust != repo.Distrusted {
		return fmt.Errorf("it was found damaged and is %s", trust)
	}
	if n >= h.verified && trust != repo.Verified { // a mark may come back: it costs one more look
		return fmt.Errorf("it was verified and is %s", trust)
	}
	return h.recovers(r)
}

// recovers fails unless a scrub, a backup and a scrub make everything verified.
func (h *healing) recovers(r *repo.Repo) error {
	if _, err := scrubbed(r, nil); err != nil {
		return fmt.Errorf("the next scrub: %w", err)
	}
	rev, err := backup(r, "vm1", "after", h.disk)
	if err != nil {
		return fmt.Errorf("the next backup: %w", err)
	}
	if report, err := scrubbed(r, nil); err != nil || !report.Clean() {
		return fmt.Errorf("the scrub after the next backup: %+v, %v", report, err)
	}
	if err := restored(r, rev, h.disk); err != nil {
		return err
	}
	return allWhole(r, func(repo.Revision) []byte { return h.disk })
}

package fault

import (
	"os"
	"path/filepath"
	"testing"

	"backy/pkg/repo"
)

// TestPurgeOnAFullDisk forgets a revision and purges where there is not a byte left: a disk on which no directory can be
// made for what is to go, nor the record be written. The reserve is given up for that, and is there again afterwards.
func TestPurgeOnAFullDisk(t *testing.T) {
	fileSystems(t, func(t *testing.T, fs string) {
		s, rnd := newSmall(t, fs), newRandom(t)
		for _, source := range []string{"second", "third"} {
			s.disks[source] = newDisk(rnd, 40)
			if _, err := backup(s.repo, "vm1", source, s.disks[source]); err != nil {
				t.Fatal(err)
			}
		}
		job, err := s.repo.Job("vm1")
		must(t, err)
		rev, err := job.Find("1")
		must(t, err)
		reserve := filepath.Join(s.repo.Base, repo.Dot, "reserve")
		before, err := os.Stat(reserve)
		must(t, err)

		release := s.fill(0)
		must(t, job.Forget(ctx, []string{rev.ID}, repo.Guard{}))
		report, err := s.repo.Purge(ctx, repo.PurgeOptions{Log: quiet})
		must(t, err)
		if report.Freed.Objects < 20 || len(report.Limbo) != 0 {
			t.Errorf("%+v", report)
		}
		after, err := os.Stat(reserve)
		must(t, err)
		if after.Size() != before.Size() {
			t.Errorf("the reserve has %d bytes, and had %d", after.Size(), before.Size())
		}
		s.whole(2)
		release()
	})
}

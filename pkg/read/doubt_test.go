package read_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"backy/pkg/disk"
	"backy/pkg/extent"
	"backy/pkg/read"
	"backy/pkg/repo"
)

// The disk itself doubts what it says: what it doubts is looked at, also where no map is to be checked. If it is wrong
// there, so may those before it be; if it is right, it is not relied on.
func TestDoubt(t *testing.T) {
	for name, tt := range map[string]struct {
		wrong bool
		says  string
	}{
		"a lie":         {true, "the change map of rbd:vms/vm1 is wrong: 1 of 1 blocks that it leaves out"},
		"a false alarm": {false, "what has changed is in doubt; everything is read and compared"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImage(t, alike(30*block))
			past := i.past(repo.ReadFull, repo.ReadCompare, repo.ReadMap)[1:]
			i.Lie = func(m extent.Map) (extent.Map, error) {
				if tt.wrong {
					m = nil
				}
				return m, fmt.Errorf("ask: %w", &disk.DoubtError{Offset: 7*block + 5, Length: 10, Why: "a guess"})
			}
			i.WriteAt([]byte("new"), map[bool]int64{true: 7, false: 20}[tt.wrong]*block)
			r, said, err := i.read(read.Options{Base: "last"})
			must(t, err)
			rev, err := i.store(r)
			must(t, err)
			i.f.Want(rev, i.Disk)
			base := past[1].ID
			want := []string{past[0].ID, base, rev.ID}
			if tt.wrong {
				base, want = past[0].ID, []string{past[0].ID, rev.ID}
			}
			if got := i.trusted()[1:]; !slices.Equal(got, want) || rev.Base != base || rev.Read != repo.ReadCompare || !strings.Contains(said, tt.says) {
				t.Errorf("trusted %q, want %q; base %s, want %s; read %s; said %s", got, want, rev.Base, base, rev.Read, said)
			}
		})
	}
}

package scrub

import (
	"context"
	"slices"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/repo"
)

// Pending is the newest distrusted revision of a job if it is worth verifying: if that was not done since it became
// distrusted, or if what it lost was healed since. nil where there is nothing to do.
func Pending(ctx context.Context, r *repo.Repo, job *repo.Job) (*repo.Revision, error) {
	list, _, err := job.List()
	if err != nil {
		return nil, err
	}
	for _, rev := range slices.Backward(list) {
		if rev.StateErr != nil || rev.State.Trust != repo.Distrusted {
			continue
		}
		if rev.State.Checked.IsZero() {
			return &rev, nil
		}
		if rev.State.Why != repo.WhyDamage {
			return nil, nil
		}
		marks, err := r.Marks()
		if err != nil {
			return nil, err
		}
		pages, err := blockmap.NewPages(r.Objects())
		if err != nil {
			return nil, err
		}
		s := &scrub{Options: Options{Repo: r}, marks: marks, found: map[object.Key]finding{}}
		v := &survey{s, pages, map[object.Key]bool{}, false}
		lost, err := v.revision(ctx, rev.Map())
		if err != nil || len(lost) > 0 {
			return nil, err
		}
		return &rev, nil
	}
	return nil, nil
}

package repo

import (
	"context"
	"slices"
	"time"
)

// DistrustMaps distrusts the revisions that change maps have made since the last read of a whole disk, full or compared, that
// is not newer than the base; those of a foreign tool are taken for such. For a map that was seen to be wrong about what has
// changed since the base may have been wrong before. why is for the events that tell of it. It returns those whose trust has
// changed, newest first, durably.
func (j *Job) DistrustMaps(ctx context.Context, base, why string) ([]Verdict, error) {
	var list []Verdict
	err := j.Edit(ctx, Guard{}, func(e *Edit) error {
		_, err := e.find(base)
		seen := err != nil // it was forgotten meanwhile
		for _, r := range slices.Backward(e.Revisions) {
			seen = seen || r.ID == base
			whole := r.Read == ReadFull || r.Read == ReadCompare
			if whole && seen {
				break
			}
			if whole || !r.FitBase() { // or distrusted for worse, or its trust is not known
				continue
			}
			e.Because(r.ID, why)
			list = append(list, Verdict{Job: j.Name, ID: r.ID, Time: r.Time, Was: r.State.Trust, Trust: Distrusted, Why: WhyMap, Damage: r.State.Damage})
			if err := e.Change(r.ID, func(s *State) error {
				s.Trust, s.Why, s.Checked = Distrusted, WhyMap, time.Time{}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

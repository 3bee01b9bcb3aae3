package scrub

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"backy/pkg/event"
	"backy/pkg/repo"
)

// Report says what was read and what was found. In the repository it is quarantine/<id>/report.json.
type Report struct {
	ID       string    `json:"id,omitempty"` // where it is kept, if it is
	Time     time.Time `json:"time"`         // when the run began
	Seconds  float64   `json:"seconds"`
	What     string    `json:"what"`
	Share    float64   `json:"share"`             // of it that was to be read, 0 to 1
	Complete bool      `json:"complete"`          // false: the time was over before that, or nothing was done
	Skipped  string    `json:"skipped,omitempty"` // why nothing was done

	Objects int64 `json:"objects"`          // that were read
	Read    int64 `json:"read"`             // their bytes, compressed
	Blocks  int64 `json:"blocks,omitempty"` // of the source that were compared

	Bad         []Bad      `json:"bad"`                    // objects that are bad, old and new
	Healed      []string   `json:"healed,omitempty"`       // keys of objects whose marks are gone
	Unknown     []Unknown  `json:"unknown,omitempty"`      // the first 100 that could not be read, which says nothing about them
	UnknownMore int        `json:"unknown_more,omitempty"` // and how many more
	Differs     []Mismatch `json:"differs,omitempty"`      // what is not as in the source, the first 1000
	DiffersMore int64      `json:"differs_more,omitempty"`
	NoVerdict   string     `json:"no_verdict,omitempty"` // why what differs says nothing about the revision
	Revisions   []Verdict  `json:"revisions"`            // whose trust or damage changed, or that are damaged

	// Of a repository: when the prefix of the name space was last read whole whose turn is longest ago; nil if one never
	// was.
	Oldest *time.Time `json:"oldest,omitempty"`
}

// Bad is a bad object.
type Bad struct {
	Key    string       `json:"key"`
	Reason string       `json:"reason"`
	Want   string       `json:"want"`          // the hash that its content has to have
	Got    string       `json:"got,omitempty"` // that it has, where it has content
	New    bool         `json:"new"`           // it was not known yet
	Places []repo.Place `json:"places"`        // revisions and ranges that reach it: the first 1000
	More   int64        `json:"more,omitempty"`
}

// Unknown is what could not be read.
type Unknown struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
}

// Mismatch is a block that is not as in the source.
type Mismatch struct {
	repo.Range
	Source string `json:"source"` // the hash of the block there, "zero" for one that is all zero
	Backup string `json:"backup"` // of that in the revision
	Kept   bool   `json:"kept"`   // both are kept beside the report, as OFFSET.source.zst and OFFSET.backup.zst
}

// Verdict is what is thought of a revision now.
type Verdict struct {
	Job    string       `json:"job"`
	ID     string       `json:"id"`
	Time   time.Time    `json:"time"`
	Was    string       `json:"was"`
	Trust  string       `json:"trust"`
	Why    string       `json:"why,omitempty"`
	Damage []repo.Range `json:"damage,omitempty"`
}

// Damaged reports whether data is bad: objects that were not healed, or what is not as in the source.
func (r Report) Damaged() bool {
	return len(r.Differs) > 0 && r.NoVerdict == "" || slices.ContainsFunc(r.Bad, func(b Bad) bool {
		return !slices.Contains(r.Healed, b.Key)
	})
}

// Clean reports whether all that was to be read was, and was right.
func (r Report) Clean() bool {
	return r.Complete && len(r.Bad)+len(r.Differs)+len(r.Unknown) == 0
}

const maxUnknown = 100

// unknown notes what could not be read.
func (s *scrub) unknown(what string, err error) {
	if len(s.report.Unknown) >= maxUnknown {
		s.report.UnknownMore++
		return
	}
	s.report.Unknown = append(s.report.Unknown, Unknown{what, err.Error()})
	s.Log.Warn("cannot read "+what+", which says nothing about it", "error", err)
}

// tell says that data is damaged, while it goes on.
func (s *scrub) tell(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.Log.Error(text)
	s.Events.Emit(event.Event{Kind: event.Damaged, Message: text})
}

// About lists the jobs that the report of an id, kept in the repository, is about: those with a revision that it found
// damaged, or whose trust it changed.
func About(r *repo.Repo, id string) ([]string, error) {
	q, err := r.Quarantine(id)
	if err != nil {
		return nil, err
	}
	text, err := q.Read()
	if err != nil {
		return nil, err
	}
	var report struct {
		Revisions []struct {
			Job string `json:"job"`
		} `json:"revisions"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("report %s: %w", id, err)
	}
	var jobs []string
	for _, r := range report.Revisions {
		if !slices.Contains(jobs, r.Job) {
			jobs = append(jobs, r.Job)
		}
	}
	return jobs, nil
}

// keep keeps the report if anything was found.
func (s *scrub) keep() error {
	r := &s.report
	if len(r.Bad)+len(r.Differs)+len(r.Unknown) == 0 {
		return nil
	}
	r.ID = s.quarantine.ID
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return s.quarantine.Write(append(text, '\n'))
}

package repo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"backy/pkg/object"
)

// Report says what was read and what was found, by a scrub, or by the check of a change map. In the repository it is
// quarantine/<id>/report.json.
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

	Bad         []BadObject `json:"bad"`                    // objects that are bad, old and new
	Healed      []string    `json:"healed,omitempty"`       // keys of objects whose marks are gone
	Unknown     []Unread    `json:"unknown,omitempty"`      // the first 100 that could not be read, which says nothing about them
	UnknownMore int         `json:"unknown_more,omitempty"` // and how many more
	Differs     []Mismatch  `json:"differs,omitempty"`      // what is not as in the source, the first 1000
	DiffersMore int64       `json:"differs_more,omitempty"`
	NoVerdict   string      `json:"no_verdict,omitempty"` // why what differs says nothing about the revision
	Revisions   []Verdict   `json:"revisions"`            // whose trust or damage changed, or that are damaged

	// Of a repository: when the prefix of the name space was last read whole whose turn is longest ago; nil if one never
	// was.
	Oldest *time.Time `json:"oldest,omitempty"`
}

// BadObject is a bad object in a Report.
type BadObject struct {
	Key    string  `json:"key"`
	Reason string  `json:"reason"`
	Want   string  `json:"want"`          // the hash that its content has to have
	Got    string  `json:"got,omitempty"` // that it has, where it has content
	New    bool    `json:"new"`           // it was not known yet
	Places []Place `json:"places"`        // revisions and ranges that reach it: the first 1000
	More   int64   `json:"more,omitempty"`
}

// Unread is what a Report says could not be read.
type Unread struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
}

// Mismatch is a block that is not as in the source.
type Mismatch struct {
	Range
	Source string `json:"source"` // the hash of the block there, "zero" for one that is all zero
	Backup string `json:"backup"` // of that in the revision
	Kept   bool   `json:"kept"`   // both are kept beside the report, as OFFSET.source.zst and OFFSET.backup.zst
}

// Verdict is what a Report says is thought of a revision now.
type Verdict struct {
	Job    string    `json:"job"`
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Was    string    `json:"was"`
	Trust  string    `json:"trust"`
	Why    string    `json:"why,omitempty"`
	Damage []Range   `json:"damage,omitempty"`
}

// Damaged reports whether data is bad: objects that were not healed, or what is not as in the source.
func (r Report) Damaged() bool {
	return len(r.Differs) > 0 && r.NoVerdict == "" || slices.ContainsFunc(r.Bad, func(b BadObject) bool {
		return !slices.Contains(r.Healed, b.Key)
	})
}

// Clean reports whether all that was to be read was, and was right.
func (r Report) Clean() bool {
	return r.Complete && len(r.Bad)+len(r.Differs)+len(r.Unknown) == 0
}

// Reports are kept in quarantine/<id>/: a file report.json and the evidence beside it.
const reportFile = "report.json"

// Quarantine is one report with its evidence.
type Quarantine struct {
	ID   string
	repo *Repo
}

// Quarantine opens the report of an id, or of the beginning of one; ErrNoReport where there is none.
func (r *Repo) Quarantine(id string) (Quarantine, error) {
	ids, err := r.Quarantines()
	if err != nil {
		return Quarantine{}, err
	}
	var found []string
	for _, have := range ids {
		if strings.HasPrefix(have, id) && id != "" {
			found = append(found, have)
		}
	}
	if len(found) != 1 {
		return Quarantine{}, fmt.Errorf("%w: %d have an id that begins with %q", ErrNoReport, len(found), id)
	}
	return Quarantine{found[0], r}, nil
}

// ErrNoReport is wrapped where a report does not exist.
var ErrNoReport = errors.New("no such report")

// NewQuarantine makes room for a report. Its directory is made when something is put there.
func (r *Repo) NewQuarantine() Quarantine { return Quarantine{NewID(), r} }

// Quarantines lists the ids of the reports.
func (r *Repo) Quarantines() ([]string, error) {
	entries, err := os.ReadDir(r.path("quarantine"))
	if err != nil {
		return nil, fmt.Errorf("list reports: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if isID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Put keeps a file of evidence.
func (q Quarantine) Put(name string, content []byte) error {
	if err := os.Mkdir(q.Path(), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep evidence: %w", err)
	}
	path := q.Path() + "/" + name
	temp := q.Path() + "/." + name
	err := q.repo.Ops.WriteFile(temp, content, 0o640)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("keep evidence: %w", err)
	}
	return nil
}

// MaxEvidence is of how many blocks a report keeps both forms.
const MaxEvidence = 16

// Evidence keeps both forms of the block at an offset, that of the source and that of the revision; nil is none.
func (q Quarantine) Evidence(offset int64, source, backup []byte) error {
	enc, err := object.NewEncoder()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"source": source, "backup": backup} {
		if content == nil {
			continue
		}
		frame, err := enc.Encode(nil, content)
		if err == nil {
			err = q.Put(fmt.Sprintf("%d.%s.zst", offset, name), frame)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// HashOf is how a report writes the hash of a block.
func HashOf(name object.Name) string {
	if name.IsZero() {
		return "zero"
	}
	return name.String()
}

// Keep keeps the report, whose id is the quarantine's then, and makes all of it durable.
func (q Quarantine) Keep(r *Report) error {
	r.ID = q.ID
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return q.Write(append(text, '\n'))
}

// Write puts the text of a report and makes all of it durable.
func (q Quarantine) Write(report []byte) error {
	err := q.Put(reportFile, report)
	for _, d := range []string{q.Path(), q.repo.path("quarantine")} {
		if err == nil {
			err = q.repo.Ops.DirPath(d)
		}
	}
	return err
}

// Path is the directory with the evidence.
func (q Quarantine) Path() string { return q.repo.path("quarantine", q.ID) }

// Read reads the report.
func (q Quarantine) Read() ([]byte, error) { return os.ReadFile(q.Path() + "/" + reportFile) }

// Delete removes the report with its evidence.
func (q Quarantine) Delete() error { return os.RemoveAll(q.Path()) }

package repo

import "time"

// Info is a revision as programs get it, in JSON and YAML.
type Info struct {
	ID        string    `json:"id" yaml:"id"`
	Job       string    `json:"job" yaml:"job"`
	Time      time.Time `json:"time" yaml:"time"`
	Source    string    `json:"source" yaml:"source"`
	Host      string    `json:"host" yaml:"host"`
	Size      int64     `json:"size" yaml:"size"`   // of the disk, bytes
	Block     int64     `json:"block" yaml:"block"` // bytes
	Root      string    `json:"root" yaml:"root"`
	Base      string    `json:"base,omitempty" yaml:"base,omitempty"`
	Snapshot  string    `json:"snapshot,omitempty" yaml:"snapshot,omitempty"`
	Read      string    `json:"read" yaml:"read"`
	ReadBytes int64     `json:"read_bytes" yaml:"read_bytes"`
	Changed   int64     `json:"changed" yaml:"changed"`
	Stored    int64     `json:"stored" yaml:"stored"`
	Duration  float64   `json:"duration" yaml:"duration"` // seconds
	Tags      []string  `json:"tags" yaml:"tags"`
	Trust     string    `json:"trust" yaml:"trust"` // trusted, verified, distrusted, or unknown
	Why       string    `json:"why,omitempty" yaml:"why,omitempty"`
	Protected bool      `json:"protected" yaml:"protected"`
	Damage    []Range   `json:"damage,omitempty" yaml:"damage,omitempty"`
}

// Unknown is the trust in a revision whose state cannot be read.
const Unknown = "unknown"

// Info describes the revision.
func (r Revision) Info() Info {
	i := Info{r.ID, r.Job, r.Time, r.Source, r.Host, r.Size, r.Block, FormatRoot(r.Root), r.Base, r.Snapshot, r.Read, r.ReadBytes, r.Changed, r.Stored,
		float64(r.Duration.Milliseconds()) / 1000, r.State.Tags, r.State.Trust, r.State.Why, r.State.Protected, r.State.Damage}
	if i.Tags == nil {
		i.Tags = []string{}
	}
	if r.StateErr != nil {
		i.Trust = Unknown
	}
	return i
}

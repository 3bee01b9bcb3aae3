// Package event is how the commands tell a front door, a scheduler or a script how they get on: one JSON object a line,
// on the file or descriptor that --events names. The scheduler publishes the same objects over NATS (package bus). The
// streams between the commands carry data only, and standard error carries words for people; what a program wants to know
// is here.
package event

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"time"
)

// Kind says what an event is about.
type Kind string

// The kinds of events.
const (
	Due        Kind = "due"        // a job is due: its work is queued; Tags says for what
	Started    Kind = "started"    // a stage begins its work
	Progress   Kind = "progress"   // how far a stage is; may be left out when there are many
	Committed  Kind = "committed"  // a revision is durable and visible; Revision, Tags, Duration and the figures are set
	Failed     Kind = "failed"     // a stage, or in Attempt the job as a whole, gave up; Message says why
	Warning    Kind = "warning"    // something to look at that did not stop the work; Message says what
	Damaged    Kind = "damaged"    // data was found bad; Message says which
	Verified   Kind = "verified"   // a revision was read whole and is right
	Distrusted Kind = "distrusted" // a revision may differ from what the disk was, from now on; Message says why
	Expired    Kind = "expired"    // a revision is Gone, or has Lost tags
	Purged     Kind = "purged"     // a purge came to its end; Freed and Objects are set
	Late       Kind = "late"       // a job's newest good revision is older than promised; Age is set
	Recovered  Kind = "recovered"  // a late job has a good revision that is young enough again; Age is set
)

// Kinds are all kinds that this version knows, in the order in which they come up.
func Kinds() []Kind {
	return []Kind{Due, Started, Progress, Committed, Failed, Warning, Damaged, Verified, Distrusted, Expired, Purged, Late, Recovered}
}

// Event is one line. A figure that is zero, like a text that is empty, is not known to the stage or not told, and is
// left out. All figures count bytes since the start of the stage, so that a later event stands for all earlier ones.
//
//	{"time":"2026-01-02T03:04:05.678901Z","kind":"progress","job":"vm1","stage":"read","done":4194304,"total":8589934592,"read":4194304}
type Event struct {
	Time     time.Time `json:"time"`               // when it happened, UTC
	Kind     Kind      `json:"kind"`               // one of the constants, or one of a newer version
	ID       string    `json:"id,omitempty"`       // of the event, see Identity; progress has none
	Job      string    `json:"job,omitempty"`      // the job's name; "" for what the whole repository is about
	Revision string    `json:"revision,omitempty"` // the revision's id
	Stage    string    `json:"stage,omitempty"`    // read, chunk, store, restore: the command's name without "backy-"
	Host     string    `json:"host,omitempty"`     // where the stage runs
	Task     string    `json:"task,omitempty"`     // --taskid

	Done    int64 `json:"done,omitempty"`    // how much of Total is behind us: what a progress bar shows
	Total   int64 `json:"total,omitempty"`   // how much work there is, in bytes; it may still change
	Read    int64 `json:"read,omitempty"`    // bytes read from the source, or from the repository in a restore
	Changed int64 `json:"changed,omitempty"` // bytes of the disk that differ from the base
	Stored  int64 `json:"stored,omitempty"`  // bytes that the repository grew by, compressed
	Freed   int64 `json:"freed,omitempty"`   // bytes that a purge deleted
	Objects int64 `json:"objects,omitempty"` // how many objects that were

	Tags     []string `json:"tags,omitempty"`     // due: that it is due for; else that the revision has, now
	Lost     []string `json:"lost,omitempty"`     // expired: tags that the revision had before
	Gone     bool     `json:"gone,omitempty"`     // expired: the revision is forgotten
	Attempt  int      `json:"attempt,omitempty"`  // failed: how often in a row, with this time
	Duration float64  `json:"duration,omitempty"` // seconds that the backup took, or the purge
	Age      float64  `json:"age,omitempty"`      // late, recovered: of the newest good revision, seconds

	Message string `json:"message,omitempty"` // one line for people
}

// Identity is the event's id: ID, or where that is empty, of committed the revision's id, of progress none, and of all
// others a digest of what the event says, with its time, which has nanoseconds. So an event that is passed on twice has
// the same id each time, and who has seen the id may leave the second one alone.
func (e Event) Identity() string {
	switch {
	case e.ID != "" || e.Kind == Progress:
		return e.ID
	case e.Kind == Committed && e.Revision != "":
		return e.Revision
	}
	e.Time = e.Time.UTC()
	text, err := json.Marshal(e)
	if err != nil { // a time or figure that JSON cannot write, so that nobody can pass the event on
		return ""
	}
	sum := sha256.Sum256(text)
	return base32.StdEncoding.EncodeToString(sum[:15])
}

// Package event is how the commands tell a front door, a scheduler or a script how they get on: one JSON object a line,
// on the file or descriptor that --events names. The streams between the commands carry data only, and standard error
// carries words for people; what a program wants to know is here.
package event

import "time"

// Kind says what an event is about.
type Kind string

// The kinds of events.
const (
	Started   Kind = "started"   // a stage begins its work
	Progress  Kind = "progress"  // how far a stage is; may be left out when there are many
	Committed Kind = "committed" // a revision is durable and visible; Revision and the figures are set
	Warning   Kind = "warning"   // something to look at that did not stop the work; Message says what
	Damaged   Kind = "damaged"   // data was found bad; Message says which
	Failed    Kind = "failed"    // a stage gave up; Message says why
)

// Event is one line. A figure that is zero, like a text that is empty, is not known to the stage or not told, and is
// left out. All figures count bytes since the start of the stage, so that a later event stands for all earlier ones.
//
//	{"time":"2026-01-02T03:04:05.678901Z","kind":"progress","job":"vm1","stage":"read","done":4194304,"total":8589934592,"read":4194304}
type Event struct {
	Time     time.Time `json:"time"`               // when it happened, UTC
	Kind     Kind      `json:"kind"`               // one of the constants, or one of a newer version
	Job      string    `json:"job,omitempty"`      // the job's name
	Revision string    `json:"revision,omitempty"` // the revision's id
	Stage    string    `json:"stage,omitempty"`    // read, chunk, store, restore: the command's name without "backy-"
	Host     string    `json:"host,omitempty"`     // where the stage runs
	Task     string    `json:"task,omitempty"`     // --taskid

	Done    int64 `json:"done,omitempty"`    // how much of Total is behind us: what a progress bar shows
	Total   int64 `json:"total,omitempty"`   // how much work there is, in bytes; it may still change
	Read    int64 `json:"read,omitempty"`    // bytes read from the source, or from the repository in a restore
	Changed int64 `json:"changed,omitempty"` // bytes of the disk that differ from the base
	Stored  int64 `json:"stored,omitempty"`  // bytes that the repository grew by, compressed

	Message string `json:"message,omitempty"` // one line for people
}

package sched

import (
	"errors"
	"time"
)

// JobStatus is what is told of a job to people and programs: by the API, its client and the metrics.
type JobStatus struct {
	Job            string     `json:"job"`
	SLA            string     `json:"sla"`         // SLAKept or SLABroken
	SLAOverdue     float64    `json:"sla_overdue"` // seconds: the age, where the SLA is broken; else 0
	Status         string     `json:"status"`      // one of the Status words
	LastTime       *time.Time `json:"last_time"`   // of the newest good revision; null where there is none
	LastTags       []string   `json:"last_tags"`
	LastDuration   float64    `json:"last_duration"` // seconds
	NextTime       *time.Time `json:"next_time"`     // null for a dead one
	NextTags       []string   `json:"next_tags"`
	ManualTags     []string   `json:"manual_tags"`     // tags that begin with manual:, of any revision
	ProblemReports []string   `json:"problem_reports"` // ids of quarantine reports about the job
	UnsyncedRevs   int        `json:"unsynced_revs"`
	LocalRevs      int        `json:"local_revs"`        // how many revisions there are
	Failures       int        `json:"failures"`          // in a row
	Distrusted     int        `json:"distrusted"`        // revisions
	Age            float64    `json:"age"`               // seconds since the newest good revision, or since the job exists
	Limit          float64    `json:"sla_limit"`         // seconds; an age above it breaks the SLA
	Message        string     `json:"message,omitempty"` // the last failure, where it was the last thing that happened
}

// The words of JobStatus.SLA.
const (
	SLAKept   = "OK"
	SLABroken = "TOO OLD"
)

// The words of JobStatus.Status.
const (
	StatusWaiting     = "waiting for deadline"
	StatusQueuedFast  = "waiting for worker slot (fast)"
	StatusQueuedSlow  = "waiting for worker slot (slow)"
	StatusRunningFast = "running (fast)"
	StatusRunningSlow = "running (slow)"
	StatusFailed      = "failed"
	StatusFinished    = "finished"
	StatusDead        = "Dead" // a directory with revisions, and no job
)

// ErrNoJob is wrapped where a job is named that the configuration does not have.
var ErrNoJob = errors.New("no such job")

// QueueLength is how much work of a pool and lane waits and runs.
type QueueLength struct {
	Pool    string `json:"pool"`
	Lane    string `json:"lane"` // fast or slow
	Waiting int    `json:"waiting"`
	Running int    `json:"running"`
}

// Figures are the numbers of one job for the metrics, beside those of its JobStatus.
type Figures struct {
	Job      string
	Revision bool // whether there is a revision; else the next four are 0
	Duration time.Duration
	Read     int64 // bytes read, changed and stored by the newest revision
	Changed  int64
	Stored   int64
	Failures uint64 // since the daemon's start
}

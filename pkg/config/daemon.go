package config

import (
	"time"

	"backy/pkg/schedule"
)

// Daemon is the configuration of the scheduler, backy.conf. pipeline.example is a complete one, with all keys.
type Daemon struct {
	Path      string    // of the file
	Changed   time.Time // when the file was changed last
	Global    Global
	API       API
	Peers     map[string]Peer // other schedulers, by name
	NATS      NATS
	Schedules map[string]schedule.Schedule
	Jobs      []ScheduledJob // by name
}

// Global is what concerns the scheduler as a whole.
type Global struct {
	BaseDir     string // base-dir: of the repository; an absolute path
	WorkerLimit int    // worker-limit: how many backups run at a time, in each lane

	// Callback is the shell command (backup-completed-callback) that runs after each backup: /bin/sh -c 'CALLBACK "$@"'
	// with the job's name for an argument, so that both a path and a path with arguments do. "" is none.
	Callback        string
	CallbackTimeout time.Duration // callback-timeout: the longest it may run

	JobTimeout   time.Duration // job-timeout: the longest a backup may run
	CompareEvery time.Duration // compare-interval: how often a job compares in place of using its change map; 0 is never
	PurgeEvery   time.Duration // purge-interval: how often space is freed; 0 is never
	FollowUps    []string      // follow-ups: those of FollowUps that this daemon does after a backup
	Pools        []string      // pools: whose jobs the worker in this daemon takes; nil is all
}

// FollowUps are what follows a backup.
var FollowUps = []string{"verify", "expire", "callback", "purge"}

// DefaultPool is that of a job that names none.
const DefaultPool = "default"

// API is where the scheduler answers, and whom.
type API struct {
	Addrs            []string          // addrs: to listen on; IP addresses or names of hosts
	Port             int               // port: 0 is any free one
	Tokens           map[string]string // tokens: a client's token and its name
	CLI              Peer              // cli-default: what the client uses; its URL may be ""
	Certificate, Key string            // paths of PEM files, for TLS; "" is none
}

// Peer is where a scheduler answers, and the token for it.
type Peer struct{ URL, Token string }

// NATS is where events and work go.
type NATS struct {
	URL      string        // url: of an existing server; "" is one inside the scheduler
	Token    string        // token: for that server, if it wants one
	Port     int           // port: of the one inside, on the loopback; 0 is any free one
	MaxAge   time.Duration // max-age: how long events are kept
	MaxBytes int64         // max-bytes: of all events
}

// ScheduledJob is a job as the scheduler knows it. What the file does not say is as Global has it.
type ScheduledJob struct {
	Name         string // a path below the base directory
	ScheduleName string
	Schedule     schedule.Schedule
	Source       Source
	Pool         string        // pool: a set of workers
	Pipeline     string        // pipeline: for the shell, in place of the built-in one; "" is none
	Timeout      time.Duration // timeout
	CompareEvery time.Duration // compare-interval
	MinAge       time.Duration // min-age: no younger revision is forgotten, unless by force
	Spot         SpotCheck     // spot-check
}

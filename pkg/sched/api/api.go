// Package api is the daemon's door for programs: HTTP with JSON, described in doc/openapi.yaml, and metrics for
// Prometheus. Who comes in shows a token from the configuration. Client is the other side of it.
package api

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"backy/pkg/config"
	"backy/pkg/sched"
)

// State is what the daemon tells of itself. Its methods are called from many goroutines at once, and answer from memory.
type State interface {
	// Status tells of the jobs whose names match filter (nil: all), those that are only a directory with revisions
	// among them, by name.
	Status(filter *regexp.Regexp) []sched.JobStatus

	// Config is the configuration that holds. It is not to be changed.
	Config() *config.Daemon

	// Queue tells how much work waits and runs, by pool and lane.
	Queue() []sched.QueueLength

	// Figures are those of all configured jobs.
	Figures() []sched.Figures

	// Verified is when that part of the repository was last read back whose last time is longest ago; zero where a part
	// never was.
	Verified() time.Time
}

// Control is the daemon, as far as the server asks it and tells it what to do, from many goroutines at once.
type Control interface {
	State

	// Run has a job run as soon as a worker is free; sched.ErrNoJob where the configuration does not have it.
	Run(job string) error

	// RunAll does that with all jobs.
	RunAll()

	// Reload reads the configuration again, which may take its time. Where that is wrong, the error is a config.Mistakes,
	// and the one before holds. Any other error says what of it cannot be had.
	Reload() error
}

// Options are what a Server is made of.
type Options struct {
	Control Control
	Log     *slog.Logger
	Now     func() time.Time
}

// Limits of the server. Who has no token gets no further than to use one of the connections for a moment.
const (
	maxConnections = 256 // at once; more wait in the kernel's queue
	maxHeader      = 16 << 10
	maxBody        = 64 << 10 // there is no request with a body; what comes is passed over
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = time.Minute // a reload included
	idleTimeout    = 30 * time.Second
)

// Server answers requests. Apply makes it listen; Ready says that there is something to tell.
type Server struct {
	control Control
	log     *slog.Logger
	http    *http.Server
	guard   *guard
	slots   chan struct{}
	cert    atomic.Pointer[tls.Certificate] // nil: without TLS
	ready   atomic.Bool

	mu        sync.Mutex // of what follows
	listeners map[string]*listener
	serving   sync.WaitGroup
	closed    bool
}

// Ready says that the daemon knows its jobs. Until then, who asks is told to come again: a daemon that knows of no late job
// yet is no good news.
func (s *Server) Ready() { s.ready.Store(true) }

// New makes a server that listens nowhere yet.
func New(o Options) *Server {
	s := &Server{
		control: o.Control, log: o.Log, guard: &guard{log: o.Log, now: o.Now},
		slots: make(chan struct{}, maxConnections), listeners: map[string]*listener{},
	}
	s.http = &http.Server{
		Handler: s.guard.wrap(s.whenReady(s.mux(o.Now))), MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// whenReady is next, once the daemon is ready. health is so at once.
func (s *Server) whenReady(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ready.Load() && r.URL.Path != healthPath {
			w.Header().Set("Retry-After", "10")
			fail(w, http.StatusServiceUnavailable, errStarting)
			return
		}
		next.ServeHTTP(w, r)
	})
}

var errStarting = errors.New("the daemon was just started and is still looking at its jobs; ask again")

// endpoint is one thing that can be asked for.
type endpoint struct {
	method, path string // as in an http.ServeMux
	handle       http.HandlerFunc
}

// healthPath is open to those without a token.
const healthPath = "/healthz"

// endpoints are all of the server's.
func (s *Server) endpoints(now func() time.Time) []endpoint {
	return []endpoint{
		{"GET", "/v1/status", s.status},
		{"GET", "/v1/jobs", s.jobs},
		{"POST", "/v1/jobs/{name}/run", s.run},
		{"POST", "/v1/runall", s.runAll},
		{"POST", "/v1/reload", s.reload},
		{"GET", "/v1/backups", s.backups},
		{"GET", "/metrics", metrics(s.control, now, s.log).ServeHTTP},
		{"GET", healthPath, health},
	}
}

// mux leads each request to its endpoint. What it has no endpoint for is told as an error like all others.
func (s *Server) mux(now func() time.Time) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no %s; doc/openapi.yaml says what there is", r.URL.Path))
	})
	for _, e := range s.endpoints(now) {
		mux.HandleFunc(e.method+" "+e.path, e.handle)
		mux.HandleFunc(e.path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", e.method)
			fail(w, http.StatusMethodNotAllowed, fmt.Errorf("%s is not for %s; use %s", r.URL.Path, r.Method, e.method))
		})
	}
	return mux
}

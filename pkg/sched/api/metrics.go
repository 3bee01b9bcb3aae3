package api

import (
	"log/slog"
	"math"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"backy/pkg/sched"
)

// maxScrapes is how many scrapes are answered at once; 10,000 jobs are 100,000 lines.
const maxScrapes = 4

// metrics answers Prometheus.
func metrics(state State, now func() time.Time, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(registry(state, now), promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	})
}

func registry(state State, now func() time.Time) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{state, now}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// collector asks the daemon each time that it is asked.
type collector struct {
	state State
	now   func() time.Time
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("backy_"+name, help, labels, nil)
}

// What is measured. README.md and doc/openapi.yaml name these.
var (
	jobAge        = describe("job_revision_age_seconds", "Age of the job's newest good revision; where there is none, how long the job exists.", "job")
	jobSLA        = describe("job_sla_seconds", "The age above which the job is late.", "job")
	jobLate       = describe("job_late", "1 if the job is late, else 0.", "job")
	jobRevisions  = describe("job_revisions", "Revisions of the job.", "job")
	jobDistrusted = describe("job_distrusted_revisions", "Distrusted revisions of the job.", "job")
	jobReports    = describe("job_problem_reports", "Quarantine reports about the job.", "job")
	jobDuration   = describe("job_last_duration_seconds", "How long the job's newest revision took.", "job")
	jobRead       = describe("job_last_read_bytes", "Bytes that the job's newest revision read from its source.", "job")
	jobChanged    = describe("job_last_changed_bytes", "Bytes of blocks that changed with the job's newest revision.", "job")
	jobStored     = describe("job_last_stored_bytes", "Bytes by which the job's newest revision made the repository grow.", "job")
	jobRow        = describe("job_failures_in_a_row", "Failures of the job since it last succeeded.", "job")
	jobFailures   = describe("job_failures_total", "Failures of the job since the daemon was started.", "job")
	waiting       = describe("queue_waiting", "Jobs that wait for a worker.", "pool", "lane")
	running       = describe("queue_running", "Jobs that run.", "pool", "lane")
	verification  = describe("repository_verification_age_seconds", "How long ago that part of the repository was read back whose last time is longest ago; +Inf if a part never was.")
)

// Describe is part of prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{jobAge, jobSLA, jobLate, jobRevisions, jobDistrusted, jobReports, jobDuration, jobRead, jobChanged,
		jobStored, jobRow, jobFailures, waiting, running, verification} {
		to <- d
	}
}

// Collect is part of prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, j := range c.state.Status(nil) {
		gauge(jobRevisions, float64(j.LocalRevs), j.Job)
		gauge(jobDistrusted, float64(j.Distrusted), j.Job)
		gauge(jobReports, float64(len(j.ProblemReports)), j.Job)
		if j.Status == sched.StatusDead {
			continue // nothing is promised of it
		}
		late := 0.0
		if j.SLA == sched.SLABroken {
			late = 1
		}
		gauge(jobAge, j.Age, j.Job)
		gauge(jobSLA, j.Limit, j.Job)
		gauge(jobLate, late, j.Job)
		gauge(jobRow, float64(j.Failures), j.Job)
	}
	for _, f := range c.state.Figures() {
		to <- prometheus.MustNewConstMetric(jobFailures, prometheus.CounterValue, float64(f.Failures), f.Job)
		if f.Revision {
			gauge(jobDuration, f.Duration.Seconds(), f.Job)
			gauge(jobRead, float64(f.Read), f.Job)
			gauge(jobChanged, float64(f.Changed), f.Job)
			gauge(jobStored, float64(f.Stored), f.Job)
		}
	}
	for _, q := range c.state.Queue() {
		gauge(waiting, float64(q.Waiting), q.Pool, q.Lane)
		gauge(running, float64(q.Running), q.Pool, q.Lane)
	}
	age := math.Inf(1)
	if at := c.state.Verified(); !at.IsZero() {
		age = max(0, c.now().Sub(at).Seconds())
	}
	gauge(verification, age)
}

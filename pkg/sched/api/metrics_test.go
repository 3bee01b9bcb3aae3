package api

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetrics(t *testing.T) {
	r := registry(newFake(), func() time.Time { return epoch.Add(time.Hour) })
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	want := `
# HELP backy_job_revision_age_seconds Age of the job's newest good revision; where there is none, how long the job exists.
# TYPE backy_job_revision_age_seconds gauge
backy_job_revision_age_seconds{job="new"} 0
backy_job_revision_age_seconds{job="web/db"} 200000
# HELP backy_job_late 1 if the job is late, else 0.
# TYPE backy_job_late gauge
backy_job_late{job="new"} 0
backy_job_late{job="web/db"} 1
# HELP backy_job_revisions Revisions of the job.
# TYPE backy_job_revisions gauge
backy_job_revisions{job="gone"} 2
backy_job_revisions{job="new"} 0
backy_job_revisions{job="web/db"} 5
# HELP backy_job_last_stored_bytes Bytes by which the job's newest revision made the repository grow.
# TYPE backy_job_last_stored_bytes gauge
backy_job_last_stored_bytes{job="web/db"} 10
# HELP backy_job_failures_total Failures of the job since the daemon was started.
# TYPE backy_job_failures_total counter
backy_job_failures_total{job="new"} 0
backy_job_failures_total{job="web/db"} 2
# HELP backy_queue_waiting Jobs that wait for a worker.
# TYPE backy_queue_waiting gauge
backy_queue_waiting{lane="fast",pool="default"} 3
# HELP backy_repository_verification_age_seconds How long ago that part of the repository was read back whose last time is longest ago; +Inf if a part never was.
# TYPE backy_repository_verification_age_seconds gauge
backy_repository_verification_age_seconds 3600
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "backy_job_revision_age_seconds", "backy_job_late", "backy_job_revisions",
		"backy_job_last_stored_bytes", "backy_job_failures_total", "backy_queue_waiting", "backy_repository_verification_age_seconds"); err != nil {
		t.Error(err)
	}
}

// The description names each metric of ours, and no other.
func TestMetricsAreDescribed(t *testing.T) {
	families, err := registry(newFake(), time.Now).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "backy_") {
			have = append(have, f.GetName())
		}
	}
	text, err := os.ReadFile("../../../doc/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	described := regexp.MustCompile(`\bbacky_\w+`).FindAllString(string(text), -1)
	slices.Sort(described)
	if !slices.Equal(have, described) {
		t.Errorf("there are\n%s\ndescribed are\n%s", strings.Join(have, "\n"), strings.Join(described, "\n"))
	}
}

package config

import (
	"strings"
	"testing"
	"time"
)

func TestSpotCheck(t *testing.T) {
	for text, want := range map[string]SpotCheck{
		"min-age: 1d\n":                          DefaultSpotCheck,
		"spot-check: {share: 2.5%, time: 30m}\n": {2.5, 30 * time.Minute},
		"spot-check:\n  share: 0%\n":             {0, 5 * time.Minute},
		"spot-check: {time: 1h}\n":               {1, time.Hour},
	} {
		job, err := ParseJob([]byte(text), "config")
		if err != nil || job.Spot != want {
			t.Errorf("%q: %v, %v, want %v", text, job, err, want)
		}
	}
	for text, want := range map[string]string{
		"spot-check: {share: 5}\n":    "config:1:21: share is a percentage",
		"spot-check: {share: 101%}\n": "share is a percentage",
		"spot-check: {share: NaN%}\n": "share is a percentage",
		"spot-check: {time: soon}\n":  "config:1:20:",
		"spot-check: {part: 1%}\n":    `unknown key "part"; there are: share, time`,
		"spot-check: much\n":          "config:1:",
	} {
		if _, err := ParseJob([]byte(text), "config"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

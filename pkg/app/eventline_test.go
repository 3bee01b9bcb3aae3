package app

import (
	"strings"
	"testing"
	"time"

	"backy/pkg/event"
)

func TestEventLine(t *testing.T) {
	at := time.Date(2026, 11, 21, 16, 29, 0, 5, time.Local)
	for _, test := range []struct {
		e    event.Event
		want string
	}{
		{event.Event{Kind: event.Due, Job: "vm1", Tags: []string{"daily", "weekly"}}, "due         vm1  daily,weekly"},
		{event.Event{Kind: event.Started, Job: "vm1", Stage: "read", Revision: "R1", Total: 5}, "started     vm1 (read)  R1"},
		{event.Event{Kind: event.Progress, Job: "vm1", Stage: "read", Done: 1 << 20, Total: 1 << 30}, "progress    vm1 (read)  1.0 MiB of 1.0 GiB"},
		{event.Event{Kind: event.Progress, Job: "vm1", Stage: "store", Stored: 1 << 20}, "progress    vm1 (store)  1.0 MiB stored"},
		{event.Event{Kind: event.Committed, Job: "vm1", Stage: "store", Revision: "R1", Tags: []string{"daily"}, Total: 10 << 30, Changed: 1 << 20, Stored: 512, Duration: 24.4},
			"committed   vm1  R1  daily  1.0 MiB of 10.0 GiB changed, 512 B stored, took 24 seconds"},
		{event.Event{Kind: event.Failed, Job: "vm1", Stage: "sched", Attempt: 3, Message: "no\nsuch\x1b[2Jdisk"}, "failed      vm1 (sched)  failed 3 times in a row  no such [2Jdisk"},
		{event.Event{Kind: event.Expired, Job: "vm1", Revision: "R1", Lost: []string{"daily"}, Gone: true, Message: "too many"}, "expired     vm1  R1  forgotten, without daily  too many"},
		{event.Event{Kind: event.Expired, Job: "vm1", Revision: "R1", Tags: []string{"weekly"}, Lost: []string{"daily"}}, "expired     vm1  R1  weekly  without daily"},
		{event.Event{Kind: event.Purged, Message: "5 objects freed"}, "purged      -  5 objects freed"},
		{event.Event{Kind: event.Distrusted, Job: "vm1", Revision: "R1", Message: "why"}, "distrusted  vm1  R1  why"},
		{event.Event{Kind: event.Late, Job: "vm1", Revision: "R1", Age: 90000, Message: "too old"}, "late        vm1  R1  age a day  too old"},
		{event.Event{Kind: event.Recovered, Job: "vm1", Age: 60}, "recovered   vm1  age a minute"},
		{event.Event{Kind: "of-a-newer-version"}, "of-a-newer-version  -"},
	} {
		test.e.Time = at
		if got, ok := strings.CutPrefix(EventLine(test.e), "2026-11-21 16:29:00  "); !ok || got != test.want {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}

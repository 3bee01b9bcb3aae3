package app

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"backy/pkg/event"
)

// EventLine is an event in one line for people, by the clocks of this host:
//
//	2026-11-21 16:29:00  committed   vm1  NkjcG4wtGr5uRyCsQeWXQd  daily  149.3 MiB of 10.0 GiB changed, 60.0 MiB stored, took 24 seconds
func EventLine(e event.Event) string {
	job := e.Job
	if job == "" {
		job = "-"
	}
	list := []string{e.Time.Local().Format(time.DateTime), fmt.Sprintf("%-10s", e.Kind), job}
	for _, word := range []string{e.Revision, strings.Join(e.Tags, ","), figures(e), e.Message} {
		if word != "" {
			list = append(list, word)
		}
	}
	if e.Stage != "" && (e.Kind == event.Started || e.Kind == event.Progress || e.Kind == event.Failed || e.Kind == event.Warning) {
		list[2] += " (" + e.Stage + ")"
	}
	return strings.Map(func(r rune) rune { // others may publish, too
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.Join(list, "  "))
}

// figures are an event's numbers, in words.
func figures(e event.Event) string {
	var list []string
	add := func(tell bool, format string, args ...any) {
		if tell {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	seconds := func(f float64) string { return Duration(time.Duration(f * float64(time.Second))) }
	switch e.Kind {
	case event.Progress:
		add(e.Total > 0, "%s of %s", Bytes(e.Done), Bytes(e.Total))
		add(e.Stored > 0, "%s stored", Bytes(e.Stored))
	case event.Committed:
		add(true, "%s of %s changed, %s stored, took %s", Bytes(e.Changed), Bytes(e.Total), Bytes(e.Stored), seconds(e.Duration))
	case event.Expired:
		add(e.Gone, "forgotten")
		add(len(e.Lost) > 0, "without %s", strings.Join(e.Lost, ","))
	case event.Failed:
		add(e.Attempt > 1, "failed %d times in a row", e.Attempt)
	case event.Late, event.Recovered:
		add(true, "age %s", seconds(e.Age))
	}
	return strings.Join(list, ", ")
}

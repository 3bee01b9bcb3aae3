package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/bus"
	"backy/pkg/event"
	"backy/pkg/schedule"
)

func eventsCommand() app.Command {
	return app.Command{
		Name:  "events",
		Usage: "print what happens",
		Help: `Prints the events that the scheduler keeps, and with --follow those to come, until Ctrl-C: one a line, for people or,
with --json, as an object. doc/events.md says what is in them. The scheduler has to run, or the NATS server that the configuration names.`,
		Examples: `backy-sched events --since 1d --kind failed,late
backy-sched events --follow --since 0s --job vm1
backy-sched events --json --kind committed | jq -r .job`,
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with those to come"},
			&cli.StringFlag{Name: "since", Usage: "only those since a `TIME`: a date as in 2026-11-21T10:00:00Z, or how long ago, as in 30m or 1d"},
			&cli.StringFlag{Name: "kind", Aliases: []string{"k"}, Usage: "only those of these `KINDS`, separated by commas"},
			&cli.BoolFlag{Name: "json", Usage: "each as a JSON object on a line of its own"},
			&cli.StringFlag{Name: "job", Aliases: []string{"j"}, Usage: "only those about a `JOB`"},
		},
		Action: events,
	}
}

func events(ctx context.Context, c *app.Context) error {
	f := bus.EventFilter{Follow: c.Bool("follow"), Job: c.String("job")}
	if text := c.String("since"); text != "" {
		ago, err := schedule.ParseDuration(text)
		if err == nil {
			f.Since = c.Now().Add(-ago)
		} else if f.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return app.Usagef("--since: %q is neither a date as in 2026-11-21T10:00:00Z nor a duration as in 30m or 1d", text)
		}
	}
	if text := c.String("kind"); text != "" {
		for word := range strings.SplitSeq(text, ",") {
			kind := event.Kind(strings.TrimSpace(word))
			if !slices.Contains(event.Kinds(), kind) {
				return app.Usagef("--kind: %q is no kind of event; they are: %s", kind, join(event.Kinds()))
			}
			f.Kinds = append(f.Kinds, kind)
		}
	}
	conf, err := readConfig(c)
	if err != nil {
		return err
	}
	url, token := conf.NATS.URL, conf.NATS.Token
	if url == "" {
		if url, token, err = bus.Local(conf.Global.BaseDir); err != nil {
			return err
		}
	}
	b, err := bus.Connect(ctx, url, token, c.Log)
	if err != nil {
		return err
	}
	defer b.Close()
	write := func(e event.Event) error {
		_, err := fmt.Fprintln(c.Stdout, app.EventLine(e))
		return err
	}
	if c.Bool("json") {
		out := json.NewEncoder(c.Stdout)
		write = func(e event.Event) error { return out.Encode(e) }
	}
	var last error // a message that is no event does not end it; after any other error nothing comes
	for e, err := range b.Events(ctx, f) {
		if last != nil {
			c.Log.Warn(last.Error())
		}
		if last = err; err != nil {
			continue
		}
		if err := write(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return last
}

func join(kinds []event.Kind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, ", ")
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"backy/pkg/app"
	"backy/pkg/repo"
)

// status lists revisions. A .rev that cannot be read is told of, and does not keep the others from being shown.
func status(ctx context.Context, c *app.Context) error {
	r, name, err := c.Repo()
	if err != nil {
		return err
	}
	var list []repo.Revision
	broken := 0
	jobs := r.Jobs(ctx)
	if name != "" {
		job, err := r.Job(name)
		if err != nil {
			return err
		}
		jobs = func(yield func(*repo.Job, error) bool) { yield(job, nil) }
	}
	for job, err := range jobs {
		if err != nil {
			broken++
			c.Log.Warn(err.Error())
			continue
		}
		revisions, bad, err := job.List()
		if err != nil {
			return err
		}
		if spec := c.String("revision"); spec != "all" {
			revisions, err = job.Select(spec)
			if err != nil && (name != "" || !errors.Is(err, repo.ErrNoRevision)) {
				return err // among all jobs, one that has none is no error
			}
		}
		list = append(list, revisions...)
		for _, b := range bad {
			broken++
			c.Log.Warn("a revision cannot be read", "file", b.Path, "error", b.Err)
		}
	}
	if err := show(c, list, name == ""); err != nil {
		return err
	}
	if broken > 0 {
		return app.Damaged("%d revisions or directories cannot be read or are left out, named above", broken)
	}
	return nil
}

// trust is what is thought of a revision, and whether it may go.
func trust(i repo.Info) string {
	text := i.Trust
	if i.Why != "" {
		text += " (" + i.Why + ")"
	}
	if i.Protected {
		text += ", protected"
	}
	return text
}

func show(c *app.Context, list []repo.Revision, all bool) error {
	infos := make([]repo.Info, len(list))
	for i, r := range list {
		infos[i] = r.Info()
	}
	switch {
	case c.Bool("json") && c.Bool("yaml"):
		return app.Usagef("--json and --yaml cannot be had at once")
	case c.Bool("json"):
		return json.NewEncoder(c.Stdout).Encode(infos)
	case c.Bool("yaml"):
		text, err := yaml.Marshal(infos)
		if err == nil {
			_, err = c.Stdout.Write(text)
		}
		return err
	}
	t := app.Table{Columns: []app.Column{{Title: "Date (" + app.Zone() + ")"}, {Title: "ID"}, {Title: "Size", Right: true}, {Title: "Changed", Right: true},
		{Title: "Stored", Right: true}, {Title: "Duration", Right: true}, {Title: "Tags"}, {Title: "Trust"}, {Title: "Server"}}}
	if all {
		t.Columns = slices.Insert(t.Columns, 0, app.Column{Title: "Job"})
	}
	stored := int64(0)
	for i, r := range list {
		row := []string{r.Time.Local().Format(time.DateTime), r.ID, app.Bytes(r.Size), app.Bytes(r.Changed), app.Bytes(r.Stored), app.Duration(r.Duration),
			strings.Join(r.State.Tags, ","), trust(infos[i]), ""} // all revisions lie on this server
		if all {
			row = slices.Insert(row, 0, r.Job)
		}
		t.Row(row...)
		stored += r.Stored
	}
	if _, err := t.WriteTo(c.Stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.Stdout, "%d revisions containing %s data (estimated)\n", len(list), app.Bytes(stored))
	return err
}

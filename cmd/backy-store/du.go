package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"backy/pkg/app"
	"backy/pkg/repo"
)

var duVerb = app.Command{
	Name: "du", Usage: "what jobs hold, and what space they take",
	Help: `Shows for each job, or that of -b, and for the repository:

  Virtual       the disks of all revisions, in whole blocks; that is Sparse + Shared + Exclusive
  Sparse        blocks of these that are all zero
  Shared        blocks that another job has, too
  Exclusive     blocks that no other job has
  Deduplicated  blocks that no other job has, each counted once; of the repository all blocks, each counted once
  Compressed    what these take on the disk, with their maps: what comes free if all of the job is forgotten

What no revision needs, and a purge would free, is not counted.`,
	Examples: `backy-store du -b /srv/backy
backy-store du -b /srv/backy/vm1 --json`,
	Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON, in bytes"}},
	Action: du,
}

func du(ctx context.Context, c *app.Context) error {
	r, name, err := c.Repo()
	if err != nil {
		return err
	}
	lost := 0
	all, jobs, err := r.Usage(ctx, func(err error) {
		lost++
		c.Log.Error(err.Error())
	})
	if err != nil {
		return err
	}
	if name != "" {
		var one []repo.Usage
		for _, u := range jobs {
			if u.Job == name {
				one = append(one, u)
			}
		}
		if jobs = one; len(jobs) == 0 {
			return fmt.Errorf("%s is no job: it has neither revisions nor a config", name)
		}
	}
	if c.Bool("json") {
		err = json.NewEncoder(c.Stdout).Encode(map[string]any{"jobs": jobs, "repository": all})
	} else {
		t := app.Table{Columns: []app.Column{{Title: "Job"}}}
		for _, title := range []string{"Revisions", "Virtual", "Sparse", "Shared", "Exclusive", "Deduplicated", "Compressed"} {
			t.Columns = append(t.Columns, app.Column{Title: title, Right: true})
		}
		for _, u := range append(jobs, all) {
			job := u.Job
			if job == "" {
				job = "(repository)"
			}
			t.Row(job, strconv.Itoa(u.Revisions), app.Bytes(u.Virtual), app.Bytes(u.Sparse), app.Bytes(u.Shared), app.Bytes(u.Exclusive), app.Bytes(u.Deduplicated), app.Bytes(u.Compressed))
		}
		_, err = t.WriteTo(c.Stdout)
	}
	if err == nil && lost > 0 {
		err = app.Damaged("%d things cannot be read, and are not counted; backy scrub tells more", lost)
	}
	return err
}

package main

import (
	"backy/pkg/app"
	"backy/pkg/freeze"
	"backy/pkg/schedule"
)

// freezer is what is done around the making of the snapshot; nil is nothing.
func freezer(c *app.Context) (freeze.Freezer, error) {
	limit, err := schedule.ParseDuration(c.String("freeze-time"))
	h := &freeze.Hooks{Freeze: c.String("freeze"), Thaw: c.String("thaw"), Limit: limit, Now: c.Now, Log: c.Log}
	switch {
	case err != nil:
		return nil, app.Usagef("--freeze-time: %w", err)
	case limit <= 0:
		return nil, app.Usagef("--freeze-time %s: want some time", c.String("freeze-time"))
	case h.Freeze != "" && h.Thaw == "":
		return nil, app.Usagef("--freeze without --thaw: what is frozen has to be thawed again")
	case h.Freeze == "" && h.Thaw != "":
		return nil, app.Usagef("--thaw without --freeze: there is nothing to thaw")
	}
	var vm freeze.Freezer
	if name := c.String("freeze-vm"); name != "" {
		if vm, err = machine(c, name); err != nil {
			return nil, err
		}
	}
	if h.Freeze == "" {
		return vm, nil
	}
	_, job, err := c.RepoIfAny()
	if err != nil {
		return nil, err
	}
	h.Env = []string{"BACKY_JOB=" + job, "BACKY_SOURCE=" + c.Args().First()}
	if vm != nil {
		return freeze.Nest(h, vm), nil
	}
	return h, nil
}

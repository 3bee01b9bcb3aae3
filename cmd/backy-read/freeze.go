package main

import (
	"backy/pkg/app"
	"backy/pkg/disk"
	"backy/pkg/freeze"
	"backy/pkg/read"
	"backy/pkg/schedule"
)

// freezer is what is done around the making of the snapshot; nil is nothing. Where no snapshot is going to be made, it would
// never run, and is refused.
func freezer(c *app.Context, o read.Options) (freeze.Freezer, error) {
	limit, err := schedule.ParseDuration(c.String("freeze-time"))
	h := &freeze.Hooks{
		Freeze: c.String("freeze"), Thaw: c.String("thaw"), Limit: limit, Env: []string{"BACKY_JOB=" + o.Job, "BACKY_SOURCE=" + o.Source}, Now: c.Now, Log: c.Log,
	}
	vm := c.String("freeze-vm")
	_, snapshots := o.Disk.(disk.Snapshotter)
	fixed, ok := o.Disk.(disk.Fixed)
	switch {
	case err != nil:
		return nil, app.Usagef("--freeze-time: %w", err)
	case limit <= 0:
		return nil, app.Usagef("--freeze-time %s: want some time", c.String("freeze-time"))
	case h.Freeze != "" && h.Thaw == "":
		return nil, app.Usagef("--freeze without --thaw: what is frozen has to be thawed again")
	case h.Freeze == "" && h.Thaw != "":
		return nil, app.Usagef("--thaw without --freeze: there is nothing to thaw")
	case h.Freeze == "" && vm == "":
		return nil, nil
	case !snapshots || ok && fixed.Fixed():
		return nil, app.Usagef("of %s no snapshot is made, so there is nothing to freeze for: --freeze and --freeze-vm are for images of Ceph", o.Source)
	case o.Repo == nil:
		return nil, app.Usagef("a snapshot is made for a job only, and so is frozen only for one: -b DIR")
	}
	if vm == "" {
		return h, nil
	}
	m, err := machine(c, vm)
	if err != nil || h.Freeze == "" {
		return m, err
	}
	return freeze.Nest(h, m), nil
}

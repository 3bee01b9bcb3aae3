package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"backy/pkg/event"
)

// again is the exit code that asks to run a pipeline again.
const again = 75

// Backup is backy-read | backy-chunk | backy-store: one revision of one disk.
type Backup struct {
	Dir    string // the job's directory
	Source string // the disk's address; "-" is Options.Stdin, which cannot be read again
	Base   string // the revision to compare with, as backy-read names one; "" for none

	Shared             []string // flags of all stages
	Read, Chunk, Store []string // flags of one
	ReadEnv            []string // NAME=VALUE, for backy-read alone: what must not stand on a command line

	// Again, if not nil, is told before the pipeline is run once more.
	Again func(stage string)
}

// stages are the commands of the pipeline with their flags.
func (b *Backup) stages() ([]Stage, error) {
	var list []Stage
	for _, s := range []struct {
		name string
		args []string
	}{{"backy-read", b.Read}, {"backy-chunk", b.Chunk}, {"backy-store", b.Store}} {
		path, err := Find(s.name)
		if err != nil {
			return nil, err
		}
		args := append([]string{"-b", b.Dir}, b.Shared...)
		args = append(append(args, Events()...), s.args...)
		var env []string
		if s.name == "backy-read" {
			env = b.ReadEnv
			if b.Base != "" {
				args = append(args, "--base="+b.Base)
			}
			args = append(args, "--", b.Source)
		}
		list = append(list, Stage{Name: s.name, Path: path, Args: args, Env: env})
	}
	return list, nil
}

// Run makes the backup. Where a stage asks for it (exit code 75: what it built on went away meanwhile), all is run again,
// once, and without a change map. The event is that of the commit; nil where there was none. o.Events gets what the stages
// tell, but of a failure only what the stage tells that failed by itself. The error is that of the function Run.
func (b *Backup) Run(ctx context.Context, o Options) (committed *event.Event, err error) {
	stages, err := b.stages()
	if err != nil {
		return nil, err
	}
	committed, err = runOnce(ctx, stages, o)
	var failure *Failure
	if !errors.As(err, &failure) || failure.Code != again {
		return committed, err
	}
	if b.Source == "-" {
		return nil, fmt.Errorf("%w: it asks to be run again, but standard input cannot be read twice; begin anew", err)
	}
	if b.Again != nil {
		b.Again(failure.Stage)
	}
	// A change map tells what changed since one revision, and the next run may build on another.
	b.Read = slices.DeleteFunc(b.Read, func(flag string) bool { return strings.HasPrefix(flag, "--map=") })
	if stages, err = b.stages(); err != nil {
		return nil, err
	}
	return runOnce(ctx, stages, o)
}

// runOnce runs the pipeline once. What its stages tell goes on to o.Events; a failure only of the stage that failed by
// itself.
func runOnce(ctx context.Context, stages []Stage, o Options) (committed *event.Event, err error) {
	tell := o.Events
	if tell == nil {
		tell = func(event.Event) {}
	}
	failed := make(map[string]event.Event)
	o.Events = func(e event.Event) {
		switch e.Kind {
		case event.Failed:
			failed["backy-"+e.Stage] = e
			return
		case event.Committed:
			committed = &e
		}
		tell(e)
	}
	err = Run(ctx, stages, o)
	if failure := (*Failure)(nil); errors.As(err, &failure) {
		if e, told := failed[failure.Stage]; told {
			tell(e)
		}
	}
	return committed, err
}

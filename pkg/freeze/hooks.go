package freeze

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// DefaultLimit is how long a hook may take where nothing is said.
const DefaultLimit = 30 * time.Second

// Hooks is a Freezer that runs commands of the shell (/bin/sh -c), each in a process group of its own, which is killed at
// the limit. What they say is logged, line by line. They find the snapshot's name in BACKY_SNAPSHOT.
//
// A freeze that fails or takes too long is a warning. Thaw always runs after it: if the freeze failed, for it may have frozen
// something; if the snapshot failed; if ctx was cancelled; if this process is killed. It may run twice. A thaw that fails is
// tried once more, and then an error: somebody has to look after the machine now, not when its disk was read.
type Hooks struct {
	Freeze, Thaw string        // "" is none
	Limit        time.Duration // of each of them; 0 is DefaultLimit
	Env          []string      // NAME=VALUE, beside the environment of this process
	Now          func() time.Time
	Log          *slog.Logger
}

// Around freezes, makes the snapshot, and thaws.
func (h *Hooks) Around(ctx context.Context, s Snapshot) (err error) {
	g, err := h.watch(s)
	if err != nil {
		h.Log.WarnContext(ctx, "nothing is frozen, because nobody would thaw it if this process was killed; the snapshot is made all the same", "error", err)
		return s.Make(ctx)
	}
	defer g.stop()
	begun := h.Now()
	if h.Freeze != "" {
		if err := h.run(ctx, "freeze", h.Freeze, s, g.pipe); err != nil && ctx.Err() == nil {
			h.Log.WarnContext(ctx, "nothing is frozen, or not all; the snapshot is made all the same, of a disk in use", "command", h.Freeze, "error", err)
		}
	}
	if err = context.Cause(ctx); err == nil {
		err = s.Make(ctx)
	}
	return errors.Join(err, h.thaw(context.WithoutCancel(ctx), s, begun))
}

// thaw thaws what was frozen since some time.
func (h *Hooks) thaw(ctx context.Context, s Snapshot, begun time.Time) error {
	if h.Thaw == "" {
		return nil
	}
	err := h.run(ctx, "thaw", h.Thaw, s, nil)
	if err != nil {
		h.Log.WarnContext(ctx, "the thaw failed; trying once more", "command", h.Thaw, "error", err)
		err = h.run(ctx, "thaw", h.Thaw, s, nil)
	}
	took := h.Now().Sub(begun).Round(time.Millisecond)
	if err != nil {
		return fmt.Errorf("WHAT WAS FROZEN MAY STILL BE FROZEN, for %s now: thaw it by hand, and mend the thaw command: %s: %w", took, h.Thaw, err)
	}
	h.Log.InfoContext(ctx, "frozen and thawed again for the snapshot "+s.Name, "took", took)
	return nil
}

// holding runs a command and holds descriptor 3 for as long: what the command leaves behind does not have it.
const holding = `/bin/sh -c "$1" 3>&-
exit $?`

// run runs a command until it ends, or the limit is over, or ctx is cancelled. keep, if not nil, is held open until it ends,
// also when this process was killed.
func (h *Hooks) run(ctx context.Context, what, command string, s Snapshot, keep *os.File) error {
	limit := h.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s, and was killed", limit))
	defer cancel()
	said := &lines{pass: func(text string) { h.Log.InfoContext(ctx, what+": "+text) }}
	defer said.flush()
	cmd := exec.CommandContext(limited, "/bin/sh", "-c", command)
	cmd.Env = h.environment(s)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond // for what the command has left behind, with its standard error
	if keep != nil {
		cmd.Args = []string{"/bin/sh", "-c", holding, "backy-freeze", command}
		cmd.ExtraFiles = []*os.File{keep}
	}
	err := cmd.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return nil
	case limited.Err() != nil:
		return context.Cause(limited)
	}
	return err
}

func (h *Hooks) environment(s Snapshot) []string {
	return append(append(os.Environ(), h.Env...), "BACKY_SNAPSHOT="+s.Name)
}

// Package pipeline joins commands by kernel pipes, as a shell does, and watches them, as a shell does not: it says which
// of them failed first, ends the others then, and lets none of them outlive it.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"backy/pkg/event"
)

// pipeSize is what a pipe between two stages holds, in bytes: a hop costs half as much as with the kernel's 64 KiB.
const pipeSize = 1 << 20

// Events are the arguments that make a stage of ours write its events where Run reads them.
func Events() []string { return []string{"--events", "fd:3"} }

// Stage is one command.
type Stage struct {
	Name string   // for messages
	Path string   // of the program; without a slash it is looked for in PATH
	Args []string // without the program's name
	Env  []string // NAME=VALUE, beside that of Options
}

// Options are what the stages share. The zero value runs them without input, and drops what comes out.
type Options struct {
	Stdin  *os.File  // of the first stage; nil is /dev/null
	Stdout io.Writer // of the last stage; nil is /dev/null, and an *os.File is written to by the stage itself

	// Stderr gets what all stages say there, whole lines at a time; nil drops it. What a stage says after it was told to
	// end is left out, unless it is the one that failed by itself: the reason is what another stage has said.
	Stderr io.Writer

	// Events is called with each event of each stage, one at a time; each stage has descriptor 3 to write them to then.
	// A line that is no event is passed over.
	Events func(event.Event)

	// Grace is how long a stage that was told to end (SIGTERM) may take until it is killed; 0 is 5 s.
	Grace time.Duration

	Dir string   // where the stages run; "" is where this process does
	Env []string // NAME=VALUE, beside the environment of this process

	// Outlive lets the stages go on where this process is killed: they are not told to end then. Stdout and Stderr have
	// to be nil or an *os.File, which the stages write to themselves; a pipe that nobody reads any more would end them.
	Outlive bool
}

// Run starts the stages, each one's output being the next one's input, and waits for all of them. It returns nil if and
// only if all have exited with 0.
//
// When one fails, the others are told to end. The error is then the *Failure of the first stage, in the order of the
// pipeline, that failed by itself. What follows from another's failure is not by itself: death by SIGPIPE, because who
// reads has ended; and an end that Run ordered. A stage that complains about a stream that was cut off comes after the one
// that cut it off, so it is not the first.
//
// When ctx is cancelled, all are told to end, and the error is the cause of that. Run never returns before all stages have
// ended. Where a stage cannot be started, the ones before it are ended.
//
// Each stage is the leader of a process group of its own, so that Ctrl-C reaches only us, and what a stage has started is
// told to end with it; and, unless it is to outlive us, each stage is told to end when this process ends, however that
// happens.
func Run(ctx context.Context, stages []Stage, o Options) error {
	p := &pipeline{o: o, failed: make(chan struct{})}
	if p.o.Grace == 0 {
		p.o.Grace = 5 * time.Second
	}
	if p.o.Outlive {
		return p.run(ctx, stages)
	}
	// The kernel sends the parent's death signal when the thread that started the child ends, not the process: this
	// goroutine keeps its thread to itself until all children have ended.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- p.run(ctx, stages)
	}()
	return <-done
}

// pipeline is a run.
type pipeline struct {
	o        Options
	children []*child
	once     sync.Once
	failed   chan struct{} // closed when a stage has failed

	mu     sync.Mutex // one event, one line of Stderr at a time
	events sync.WaitGroup
}

// child is a stage that was started.
type child struct {
	Stage
	cmd   *exec.Cmd
	said  *lines        // nil: nobody listens, or the stage speaks for itself
	ended chan struct{} // closed when err and cmd.ProcessState are set
	err   error         // of cmd.Wait

	mu   sync.Mutex
	sent []syscall.Signal // by us, while it lived
}

func (p *pipeline) run(ctx context.Context, stages []Stage) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := p.start(stages); err != nil {
		p.end()
		return err
	}
	all := make(chan struct{})
	go func() {
		for _, c := range p.children {
			<-c.ended
		}
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done():
	case <-p.failed:
	}
	p.end()
	err := p.verdict(context.Cause(ctx))
	if failure := (*Failure)(nil); errors.As(err, &failure) {
		p.explain(failure)
	}
	return err
}

// explain passes on what the stage that failed by itself said late: it may have been told to end, because another one had
// failed of that, before its words had come through.
func (p *pipeline) explain(f *Failure) {
	for _, c := range p.children {
		if c.Name == f.Stage && c.said != nil && len(c.said.kept) > 0 {
			c.said.say(c.said.kept)
		}
	}
}

// end tells all stages that still run to end, and waits until all have, and with them what they have started.
func (p *pipeline) end() {
	for _, c := range p.children {
		c.signal(syscall.SIGTERM)
	}
	patience := time.NewTimer(p.o.Grace)
	defer patience.Stop()
	over := false
	for _, c := range p.children {
		select {
		case <-c.ended:
		case <-patience.C:
			over = true
			for _, c := range p.children {
				c.signal(syscall.SIGKILL)
			}
			<-c.ended
		}
	}
	for _, c := range p.children {
		if c.told() {
			over = c.empty(patience, over)
		}
	}
	p.events.Wait()
}

// empty waits until nothing is left of the process group of a stage that was told to end; what is left when the patience is
// over is killed. The group's number is nobody else's as long as it has a process.
func (c *child) empty(patience *time.Timer, over bool) bool {
	group := -c.cmd.Process.Pid
	for syscall.Kill(group, 0) == nil && !over {
		select {
		case <-patience.C:
			over = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	if over {
		_ = syscall.Kill(group, syscall.SIGKILL)
	}
	return over
}

// signal sends s to the process group of a stage that has not ended.
func (c *child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ended: // its number may be someone else's by now
	default:
		if syscall.Kill(-c.cmd.Process.Pid, s) == nil {
			c.sent = append(c.sent, s)
		}
	}
}

// told says whether the stage was told to end.
func (c *child) told() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent) > 0
}

// start starts the stages.
func (p *pipeline) start(stages []Stage) (err error) {
	var input *os.File // the end of the pipe that the next stage reads from
	defer func() { err = errors.Join(err, closeFile(input)) }()
	for i, s := range stages {
		cmd := exec.Command(s.Path, s.Args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if !p.o.Outlive {
			cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
		}
		cmd.Dir = p.o.Dir
		if p.o.Env != nil || s.Env != nil {
			cmd.Env = append(append(os.Environ(), p.o.Env...), s.Env...)
		}
		cmd.WaitDelay = time.Second // for what a stage has started, and left with its standard error
		switch {
		case input != nil:
			cmd.Stdin = input
		case p.o.Stdin != nil && i == 0:
			cmd.Stdin = p.o.Stdin
		}
		var read, write *os.File
		if i < len(stages)-1 {
			if read, write, err = pipe(); err != nil {
				return fmt.Errorf("a pipe for %s: %w", s.Name, err)
			}
			cmd.Stdout = write
		} else if p.o.Stdout != nil {
			cmd.Stdout = p.o.Stdout
		}
		err := p.launch(s, cmd)
		err = errors.Join(err, closeFile(write), closeFile(input))
		input = read
		if err != nil {
			return err
		}
	}
	return nil
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// pipe makes a big pipe. Its ends block, as commands expect; os.Pipe's do not.
func pipe() (read, write *os.File, err error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	_, _ = unix.FcntlInt(uintptr(fd[1]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one is slower, no more
	return os.NewFile(uintptr(fd[0]), "|0"), os.NewFile(uintptr(fd[1]), "|1"), nil
}

// launch starts one stage, and what listens to it.
func (p *pipeline) launch(s Stage, cmd *exec.Cmd) error {
	c := &child{Stage: s, cmd: cmd, ended: make(chan struct{})}
	switch {
	case p.o.Stderr == nil:
	case p.o.Outlive:
		cmd.Stderr = p.o.Stderr
	default:
		c.said = &lines{mu: &p.mu, w: p.o.Stderr, late: c.told}
		cmd.Stderr = c.said
	}
	var heard, tell *os.File
	if p.o.Events != nil {
		var err error
		if heard, tell, err = os.Pipe(); err != nil {
			return fmt.Errorf("a pipe for the events of %s: %w", s.Name, err)
		}
		cmd.ExtraFiles = []*os.File{tell}
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", s.Name, err), closeFile(heard), closeFile(tell))
	}
	p.children = append(p.children, c)
	if heard != nil {
		_ = tell.Close() // it is the child's now
		p.events.Go(func() { p.listen(heard) })
	}
	go func() {
		err := cmd.Wait()
		if c.said != nil {
			c.said.flush()
		}
		if heard != nil { // what is in the pipe can be read; but nobody waits for a grandchild that kept it open
			_ = heard.SetReadDeadline(time.Now().Add(time.Second))
		}
		c.mu.Lock()
		c.err = err
		close(c.ended)
		c.mu.Unlock()
		if !cmd.ProcessState.Success() {
			p.once.Do(func() { close(p.failed) })
		}
	}()
	return nil
}

// listen passes on the events of a stage.
func (p *pipeline) listen(f *os.File) {
	defer f.Close()
	r := event.NewReader(f)
	for {
		e, err := r.Next()
		if bad := (*event.LineError)(nil); errors.As(err, &bad) {
			continue
		}
		if err != nil {
			// Nobody must be stopped by a pipe that is full because we did not understand it.
			_, _ = io.Copy(io.Discard, f)
			return
		}
		p.mu.Lock()
		p.o.Events(e)
		p.mu.Unlock()
	}
}

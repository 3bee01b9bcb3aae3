package freeze

import (
	"os"
	"os/exec"
	"syscall"
)

// guard is a shell that thaws when this process is killed. It waits at the other end of a pipe. A line says that all is
// well, and it ends; the pipe's end says that we are gone.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File // the end that we hold, and the freeze: it is over when both are, so that no thaw overtakes the freeze
}

// waiting is what a guard does. Who ends us by a signal to all of our service must not end it before; so nothing is frozen
// before it says that it is ready.
const waiting = `trap '' HUP INT QUIT TERM
echo ready
exec > /dev/null
read -r over && exit 0
trap - HUP INT QUIT TERM
exec /bin/sh -c "$1" < /dev/null`

// watch starts a guard, in a session of its own, so that what ends our process group or terminal does not end it.
func (h *Hooks) watch(s Snapshot) (*guard, error) {
	if h.Thaw == "" {
		return &guard{}, nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", "-c", waiting, "backy-thaw", h.Thaw)
	cmd.Env = h.environment(s)
	cmd.Stdin = read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		write.Close()
		return nil, err
	}
	g := &guard{cmd, write}
	if _, err := said.Read(make([]byte, len("ready\n"))); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

// stop tells the guard that it is not needed any more.
func (g *guard) stop() {
	if g.cmd == nil {
		return
	}
	_, _ = g.pipe.WriteString("\n") // if it is gone, it is
	_ = g.pipe.Close()
	_ = g.cmd.Wait()
}

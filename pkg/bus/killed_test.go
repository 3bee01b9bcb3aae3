package bus

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// child has a bus in dir, publishes, and takes work, and then waits to be killed.
func child(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	b, err := Open(ctx, options(dir))
	fail(err)
	for i := range 100 {
		fail(b.Publish(ctx, committed("vm1", fmt.Sprint("R", i))))
	}
	_, err = b.Push(ctx, Work{Job: "vm1", Pool: "default", Lane: "fast", Due: moment})
	fail(err)
	_, err = b.Pull(ctx, "default", "fast")
	fail(err)
	handled := 0
	fail(b.Consume(ctx, Consumer{Name: "callback"}, func(context.Context, Delivery) error {
		if handled++; handled == 51 {
			fmt.Println("ready")
			select {}
		}
		return nil
	}))
}

// What was acknowledged is there after a kill -9, the work is still taken, and the consumer goes on with the event that it
// had not handled.
func TestAKilledScheduler(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BUS_TEST_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		t.Errorf("it says %q", line)
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()

	b, log := openLogged(t, dir)
	if said := log.String(); said != "" { // being killed damages nothing
		t.Errorf("it says %s", said)
	}
	if got := all(t, b, EventFilter{}); len(got) != 100 || got[99] != "committed vm1 R99" {
		t.Errorf("%d events are kept", len(got))
	}
	if added, err := b.Push(t.Context(), Work{Job: "vm1", Pool: "default", Lane: "slow"}); added || err != nil {
		t.Errorf("what the killed one works on was queued again: %v", err)
	}
	// A delivery that was under way is given out again once Wait is over, which is now as short as said here. What was
	// handled in the last moment before may come again.
	ctx, done := context.WithCancel(t.Context())
	seen := map[string]bool{}
	err = b.Consume(ctx, Consumer{Name: "callback", Wait: 100 * time.Millisecond}, func(_ context.Context, d Delivery) error {
		seen[d.ID] = true
		for i := 50; i < 100; i++ {
			if !seen[fmt.Sprint("R", i)] {
				return nil
			}
		}
		done()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

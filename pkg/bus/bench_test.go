package bus

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"backy/pkg/event"
)

// Ten thousand jobs, of which the stream has a few events each, with a pool's workers and five consumers: what it costs to
// tell, to queue, and to do nothing.
func BenchmarkTenThousandJobs(b *testing.B) {
	const jobs = 10000
	o := options(b.TempDir())
	o.MaxBytes = 1 << 30
	for b.Loop() {
		bus, err := Open(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		measure := func(unit string, n int, f func(i int) error) {
			start := time.Now()
			for i := range n {
				if err := f(i); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(time.Since(start).Microseconds())/float64(n), unit)
		}
		job := func(i int) string { return fmt.Sprint("group/vm", i%jobs) }
		measure("us/committed", jobs, func(i int) error {
			return bus.Publish(b.Context(), event.Event{Kind: event.Committed, Job: job(i), Revision: fmt.Sprint(b.N, "-", i), Tags: []string{"daily"}})
		})
		measure("us/progress", jobs, func(i int) error {
			return bus.Publish(b.Context(), event.Event{Kind: event.Progress, Job: job(i / 50), Done: int64(i)})
		})
		measure("us/push", jobs, func(i int) error {
			_, err := bus.Push(b.Context(), Work{Job: job(i), Pool: "default", Lane: "fast"})
			return err
		})
		measure("us/waiting", 1, func(int) error { _, err := bus.Waiting(b.Context()); return err })
		measure("us/queues", 10, func(int) error { _, err := bus.Queues(b.Context()); return err })
		measure("us/newest", 1, func(int) error {
			n := 0
			for _, err := range bus.Events(b.Context(), EventFilter{Kinds: []event.Kind{event.Committed}, Newest: true}) {
				if n++; err != nil {
					return err
				}
			}
			if n != jobs {
				return fmt.Errorf("%d are the newest", n)
			}
			return nil
		})
		measure("us/task", jobs, func(int) error {
			t, err := bus.Pull(b.Context(), "default", "fast")
			if err == nil {
				err = t.Done()
			}
			return err
		})
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapInuse>>20), "MiB-heap")
		for i := range 5 {
			go bus.Consume(b.Context(), Consumer{Name: fmt.Sprint("c", i), Kinds: []event.Kind{event.Purged}}, func(context.Context, Delivery) error { return nil })
			go bus.Pull(b.Context(), "default", []string{"fast", "slow"}[i%2])
		}
		const rest = 10 * time.Second
		time.Sleep(rest * 3 / 2) // what was put off is written
		before := cpu()
		time.Sleep(rest)
		b.ReportMetric(100*(cpu()-before).Seconds()/rest.Seconds(), "%idle-cpu")
		bus.Close()
	}
}

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

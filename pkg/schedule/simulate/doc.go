// Package simulate runs many jobs through weeks of virtual time, by pkg/schedule as the scheduler uses it, to see whether
// promises are kept and the load is even. It has tests alone; scripts/bench runs them with 10,000 jobs:
//
//	go test ./pkg/schedule/simulate -v -sched.jobs=10000 -sched.days=30
//
// Modelled are plans, lanes with workers, the queue, back-off, failures at random, jobs that always fail, new jobs, a
// scheduler that is off for half a day, and restarts that forget the queue and the failures. Backups take as long as
// random numbers say; nothing else takes time.
package simulate

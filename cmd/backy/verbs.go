package main

import (
	"fmt"
	"os"
	"syscall"

	"backy/pkg/app"
	"backy/pkg/pipeline"
)

// verb is one that another command has.
type verb struct {
	name    string
	command string
	same    bool // the command has it as a verb, too; else it is what the command does by itself
	usage   string
}

// verbs are those that are not backy's own, in the order of --help.
var verbs = []verb{
	{"init", "backy-store", true, "make a repository"},
	{"status", "backy-store", true, "list the revisions of a job, or of all"},
	{"restore", "backy-restore", false, "write a revision to a disk, a file or standard output"},
	{"tags", "backy-store", true, "set, add or remove the tags of revisions"},
	{"protect", "backy-store", true, "keep revisions for good"},
	{"unprotect", "backy-store", true, "let protected revisions go again"},
	{"forget", "backy-store", true, "remove revisions"},
	{"expire", "backy-expire", false, "forget the revisions that have had their time"},
	{"purge", "backy-store", true, "free the space of what no revision needs any more"},
	{"du", "backy-store", true, "what jobs hold, and what space they take"},
	{"export", "backy-store", true, "write a revision as a tar stream"},
	{"import", "backy-store", true, "store such a stream"},
	{"verify", "backy-scrub", true, "read revisions back whole, and trust them again if they are right"},
	{"distrust", "backy-store", true, "mark revisions that may differ from what the disk was"},
	{"scrub", "backy-scrub", false, "read back what the repository holds, and find what is bad"},
	{"check", "backy-check", false, "tell a monitoring system whether all jobs are backed up in time"},
	{"scheduler", "backy-sched", true, "back up each job when it is due: the daemon"},
	{"client", "backy-sched", true, "ask the scheduler, and tell it what to do"},
	{"read", "backy-read", false, "stage of a backup: a disk to extents"},
	{"chunk", "backy-chunk", false, "stage of a backup: extents to objects"},
	{"store", "backy-store", false, "stage of a backup: objects to a revision"},
}

// elsewhere are the verbs for --help.
func elsewhere() []app.Command {
	var list []app.Command
	for _, v := range verbs {
		usage := v.usage
		if _, err := pipeline.Find(v.command); err != nil {
			usage += " (" + v.command + " is not installed)"
		}
		list = append(list, app.Command{Name: v.name, Usage: usage})
	}
	return list
}

// handOver becomes the command that has the verb in argv, if the verb is not backy's own. Where ok, that failed, which
// has been said.
func handOver(argv []string) (code int, ok bool) {
	name, rest := app.Verb(argv)
	if name == "help" {
		name, rest = app.Verb(rest)
		rest = append(rest, "--help")
	}
	for _, v := range verbs {
		if v.name == name {
			return v.fail(v.exec(rest)), true
		}
	}
	return 0, false
}

// fail says why the verb's command cannot be run, as that would.
func (v verb) fail(err error) int {
	if v.name == "check" {
		return app.FailPlugin(err)
	}
	return app.Fail("backy", err)
}

// exec becomes the verb's command. It returns only if it cannot.
func (v verb) exec(args []string) error {
	path, err := pipeline.Find(v.command)
	if err != nil {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	argv := []string{v.command}
	if v.same {
		argv = append(argv, v.name)
	}
	return fmt.Errorf("%s: run %s: %w", v.name, path, syscall.Exec(path, append(argv, args...), os.Environ()))
}

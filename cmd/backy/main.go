// Backy is the front door: it makes a backup by joining read, chunk and store, and runs the command that has any other
// verb.
package main

import (
	"os"

	"backy/pkg/app"
)

func main() {
	if code, ok := handOver(os.Args[1:]); ok {
		os.Exit(code)
	}
	app.Main(command())
}

func command() app.Command {
	return app.Command{
		Name:  "backy",
		Usage: "block-based backup of virtual machines and volumes",
		Help: `A repository is a base directory with jobs below it; a job is a directory that holds the revisions of
one disk. The job is named with -b, or is the current directory. A revision is named with -r: by a
count back (0 is the newest), last or first, its id or the beginning of it, a tag, or a date.

backup joins the commands backy-read, backy-chunk and backy-store by pipes. Every other verb belongs
to a command that can be called by its own name, too: "backy restore" is backy-restore. They are
looked for beside backy, then in PATH; BACKY_READ, BACKY_CHUNK, BACKY_STORE, BACKY_RESTORE and so on
can name others.`,
		Examples: `# make a repository, back up a volume, look at what is there
backy init /srv/backy
backy backup -b /srv/backy/vm1 /dev/vg0/vm1 -t daily
backy status -b /srv/backy/vm1
# get the newest revision back, into a new file, or over a volume
backy restore -b /srv/backy/vm1 vm1.img
backy restore -b /srv/backy/vm1 --force /dev/vg0/vm1`,
		Verbs: append([]app.Command{backupCommand()}, elsewhere()...),
	}
}

package pipeline

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"backy/pkg/config"
	"backy/pkg/open"
	"backy/pkg/repo"
	"backy/pkg/schedule"
)

// From has the backup read what a job's configuration says, and as it says.
func (b *Backup) From(s config.Source) error {
	address, err := s.Address()
	if err != nil {
		return err
	}
	b.Source = address
	if s.FullAlways {
		b.Read = append(b.Read, "--full")
	}
	if s.Freeze != "" {
		b.Read = append(b.Read, "--freeze="+s.Freeze, "--thaw="+s.Thaw, "--freeze-time="+schedule.FormatDuration(s.FreezeTime))
	}
	if s.VM != "" {
		b.Read = append(b.Read, "--freeze-vm="+s.VM)
	}
	if s.ConsulToken != "" {
		b.ReadEnv = append(b.ReadEnv, "CONSUL_HTTP_TOKEN="+s.ConsulToken)
	}
	return nil
}

// Same says whether two addresses name the same disk.
func Same(a, b string) bool {
	full := func(s string) string {
		address, err := open.Parse(s)
		if err == nil {
			address, err = address.Absolute()
		}
		if err != nil {
			return s
		}
		return address.String()
	}
	return full(a) == full(b)
}

// Look is what can be seen of a source whose changes can be seen, of a regular file: SIZE,MTIME,CTIME, the times in
// nanoseconds, as `backy-scrub spot --since` takes it. "" of all others.
func Look(source string) string {
	a, err := open.Parse(source)
	if err != nil || a.Scheme != "file" || source == "-" {
		return ""
	}
	info, err := os.Stat(a.Rest)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	var st unix.Stat_t
	if unix.Stat(a.Rest, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d,%d,%d", st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// Snapshots says whether snapshots are made of a source, so that there is something to sweep.
func Snapshots(source string) bool {
	a, err := open.Parse(source)
	return err == nil && a.Scheme == "rbd" && !strings.Contains(a.Rest, "@")
}

// Spot are the arguments with which backy-scrub compares a sample of a revision with its source: with the snapshot that
// was read, or with a file that still looks as it did before, which is what since says. nil where there is neither.
func Spot(source, since, revision string, s config.SpotCheck) []string {
	a, err := open.Parse(source)
	args := []string{"spot", "-r", revision, "--percent=" + strconv.FormatFloat(s.Percent, 'f', -1, 64)}
	switch {
	case s.Percent == 0:
		return nil
	case Snapshots(source):
		args = append(args, "--source="+source+"@"+repo.SnapshotName(revision))
	case err == nil && a.Scheme == "rbd":
		args = append(args, "--source="+source)
	case since != "":
		args = append(args, "--source="+source, "--since="+since)
	default:
		return nil
	}
	if s.Time > 0 {
		args = append(args, "--max-duration="+schedule.FormatDuration(s.Time))
	}
	return args
}

// Sweep are the arguments with which backy-read removes the snapshots that a job has no more need for. The source has them:
// see Snapshots.
func Sweep(source, dir string) []string { return []string{source, "--sweep", "-b", dir} }

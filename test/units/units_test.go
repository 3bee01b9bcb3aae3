package units

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"backy/pkg/app/apptest"
)

const source = "../../scripts/systemd"

// exposure is the most that `systemd-analyze security` may say of a service, in tenths: from 0, nothing, to 100, all.
const exposure = "30"

// image makes the root of a system with the units and the programs that they name, and returns it with the names of the
// units, where a template has an instance.
func image(t *testing.T) (root string, units []string) {
	t.Helper()
	root = t.TempDir()
	system := filepath.Join(root, "usr/lib/systemd/system")
	if err := os.CopyFS(system, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(system, os.DirFS("/usr/lib/systemd/system")); err != nil { // what ours refer to
		t.Skip(err)
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		units = append(units, strings.Replace(e.Name(), "@.", "@vm1.", 1))
		for _, path := range programs(t, e.Name()) {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, path), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root, units
}

var execLine = regexp.MustCompile(`(?m)^Exec\w+=(.*)$`)

// commands are what a unit runs.
func commands(t *testing.T, unit string) (list [][]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(source, unit))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range execLine.FindAllSubmatch(text, -1) {
		list = append(list, strings.Fields(string(m[1])))
	}
	return list
}

func programs(t *testing.T, unit string) (list []string) {
	for _, argv := range commands(t, unit) {
		list = append(list, argv[0])
	}
	return list
}

func analyze(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(path, append(args, "--no-pager")...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil || args[0] == "verify" && said.Len() > 0 {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, &said)
	}
}

func TestVerify(t *testing.T) {
	root, units := image(t)
	if len(units) != 11 {
		t.Errorf("there are %d units: %s", len(units), units)
	}
	analyze(t, append([]string{"verify", "--root=" + root}, units...)...)
}

func TestExposure(t *testing.T) {
	root, units := image(t)
	units = slices.DeleteFunc(units, func(u string) bool { return !strings.HasSuffix(u, ".service") })
	for _, u := range units {
		analyze(t, "security", "--offline=true", "--root="+root, "--threshold="+exposure, u)
	}
}

// The commands are tried as they stand in the units, but with a repository and programs of our own.
func TestCommands(t *testing.T) {
	dir := t.TempDir()
	bin, base, conf := apptest.Build(t, ""), filepath.Join(dir, "srv"), filepath.Join(dir, "backy.conf")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	run := func(argv ...string) {
		t.Helper()
		for i, arg := range argv {
			argv[i] = strings.NewReplacer("/usr/bin", bin, "/srv/backy", base, "/etc/backy.conf", conf, "%I", "web/vm-1").Replace(arg)
		}
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
	run("/usr/bin/backy", "init", "/srv/backy")
	if err := os.MkdirAll(filepath.Join(base, "web/vm-1"), 0o750); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(base, "web/vm-1/config"), "source: {type: file, filename: "+conf+"}\nschedule: {daily: {interval: 1d, keep: 9}}\n")
	write(conf, "global: {base-dir: srv}\nschedules: {s: {daily: {interval: 1d, keep: 9}}}\njobs: {web/vm-1: {schedule: s, source: {type: file, filename: /x}}}\n")
	tried := 0
	for _, unit := range []string{"backy-backup@.service", "backy-expire.service", "backy-purge.service", "backy-scrub.service", "backy-check.service", "backy-sched.service"} {
		for _, argv := range commands(t, unit) {
			switch {
			case filepath.Base(argv[0]) == "backy-sched": // which would not end by itself
				argv = append(argv, "--check-config")
			case argv[0] == "/bin/kill":
				continue
			}
			run(argv...)
			tried++
		}
	}
	if tried != 6 {
		t.Errorf("%d commands were tried, want 6", tried)
	}
}

package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestJob(t *testing.T) {
	for _, test := range []struct{ name, text, address string }{
		{"a file", "source:\n  type: file\n  filename: /var/lib/images/vm1.img\n", "/var/lib/images/vm1.img"},
		{"all keys", "source: {type: file, filename: /dev/vg0/vm1, cow: false}\nschedule: default", "/dev/vg0/vm1"},
		{"a path from the job's directory", "source: {type: file, filename: ../vm1.img}", "/srv/backy/vm1.img"},
		{"a name that looks like something else", "source: {type: file, filename: 'rbd:x'}", "/srv/backy/vm1/rbd:x"},
		{"a schedule of its own", "source: {type: file, filename: /x}\nschedule:\n  daily: {interval: 1d, keep: 9}", "/x"},
		{"comments", "# written by hand\nsource: # here\n  type: file # there\n  filename: /x\n", "/x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, err := ParseJob([]byte(test.text), "/srv/backy/vm1/config")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := job.Source.Address(); err != nil || got != test.address {
				t.Errorf("got %s, %v, want %s", got, err, test.address)
			}
			rules, err := job.Rules()
			if (rules != nil || err != nil) != strings.Contains(test.text, "schedule") {
				t.Errorf("schedule %v, %v", rules, err)
			}
			if job.Source.Cow == strings.Contains(test.text, "cow: false") {
				t.Errorf("cow is %t", job.Source.Cow)
			}
		})
	}
}

func TestFrozenSource(t *testing.T) {
	job, err := ParseJob([]byte("source: {type: ceph, pool: vms, namespace: a, image: vm1, full-always: true, freeze: ssh vm1 freeze, thaw: ssh vm1 thaw, freeze-time: 1m}"), "/srv/backy/vm1/config")
	if err != nil {
		t.Fatal(err)
	}
	job.Source.at = ""
	if want := (Source{Type: TypeRBD, Pool: "vms", Namespace: "a", Image: "vm1", FullAlways: true, Freeze: "ssh vm1 freeze", Thaw: "ssh vm1 thaw", FreezeTime: time.Minute}); job.Source != want {
		t.Errorf("got %+v", job.Source)
	}
	job, err = ParseJob([]byte("source: {type: flyingcircus, pool: vms, image: vm1, vm: vm1}"), "/srv/backy/vm1/config")
	if err != nil || job.Source.FreezeTime != DefaultFreezeTime {
		t.Errorf("%+v %v", job, err)
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no YAML", "source: {type: file", "vm1/config:1:9: "},
		{"no mapping", "- a\n", "vm1/config:1:"},
		{"an unknown key", "source: {type: file, filename: /x}\nshedule: x\n", `vm1/config:2:1: unknown key "shedule"; there are: min-age, schedule, since, source, spot-check`},
		{"an unknown key of the source", "source:\n  type: file\n  filename: /x\n  pool: rbd\n", `vm1/config:4:3: unknown key "pool"; there are: cow, filename, type`},
		{"a key twice", "source:\n  type: file\n  type: file\n  filename: /x\n", `vm1/config:3:3: "type" is there twice, first in line 2`},
		{"a source twice", "source: {type: file, filename: /x}\nsource: {type: file, filename: /y}\n", `vm1/config:2:1: "source" is there twice, first in line 1`},
		{"no type", "source:\n  filename: /x\n", "vm1/config:2:3: source has no type: it is one of file, "},
		{"no filename", "source:\n  type: file\n", "vm1/config:2:3: source has no filename: the path of an image file or block device"},
		{"a wrong value", "source:\n  type: file\n  filename: /x\n  cow: 12\n", "vm1/config:4:8: "},
		{"a file that cannot be frozen", "source: {type: file, filename: /x, freeze: sync}\n", `vm1/config:1:36: unknown key "freeze"; there are: cow, filename, type`},
		{"freeze alone", "source: {type: rbd, pool: a, image: b, freeze: sync}\n", "vm1/config:1:10: source has no thaw: what is frozen has to be thawed again, by a command"},
		{"thaw alone", "source: {type: ceph, pool: a, image: b, thaw: sync}\n", "vm1/config:1:10: source has no freeze: a command, before the one that thaws"},
		{"no time to freeze", "source: {type: ceph, pool: a, image: b, freeze: a, thaw: b, freeze-time: 0}\n", "vm1/config:1:74: freeze-time: 0s is too short: want 1s or more"},
		{"a source that is no mapping", "source: /x\n", "vm1/config:1:9: "},
		{"empty", "", "vm1/config: it is empty"},
		{"two documents", "source: {type: file, filename: /x}\n---\nschedule: x\n", "vm1/config: it has more than one document"},
		{"far too long", strings.Repeat("#", maxFile+1), "vm1/config: it is longer than 1048576 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseJob([]byte(test.text), "vm1/config")
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestSourceOfAnotherVersion(t *testing.T) {
	job, err := ParseJob([]byte("schedule: default\nsource:\n  type: tape\n  drive: st0\n"), "vm1/config")
	if err != nil || job.Source.Type != "tape" {
		t.Fatalf("it is kept: %+v, %v", job, err)
	}
	want := `vm1/config:3:3: source type "tape" is not known to this version of backy; it knows: file, rbd (or ceph, ceph-rbd), flyingcircus`
	if _, err := job.Source.Address(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	job, err = ParseJob([]byte("schedule: default\n"), "vm1/config")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := job.Source.Address(); err == nil || err.Error() != "vm1/config: it has no source" {
		t.Errorf("without a source: %v", err)
	}
}

func TestReadJob(t *testing.T) {
	d := t.TempDir()
	if _, err := ReadJob(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(filepath.Join(d, JobFile), []byte("source: {type: file, filename: disk.img}\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	job, err := ReadJob(d)
	if err != nil || job.Source.Filename != filepath.Join(d, "disk.img") {
		t.Errorf("%+v, %v", job, err)
	}
}

func FuzzParseJob(f *testing.F) {
	for _, text := range []string{
		"source: {type: file, filename: /x, cow: true}\nschedule: default\n", "source:\n  type: ceph\n  pool: rbd\n", "", "---\n---\n", "- a", "source: &a\n  type: *a\n",
		"a: &a [x, x]\nsource: *a", "source: null", "\xff", "source: !!binary x", "source: |\n  text\n", "? {a: b}\n: c",
		"schedule: {daily: {interval: 1d, keep: 9}, 1: {interval: 60, keep: 1}}\nmin-age: 1w\n", "schedule: {a: null}", "schedule: {? [x]: {}}", "schedule: {a: {interval: &x 1d, keep: *x}}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		job, err := ParseJob(text, "/srv/backy/vm1/config")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "/srv/backy/vm1/config:") {
				t.Errorf("an error without its place: %v", err)
			}
			return
		}
		if a, err := job.Source.Address(); err == nil && !filepath.IsAbs(a) {
			t.Errorf("address %q", a)
		}
	})
}

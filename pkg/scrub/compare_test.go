package scrub_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backy/pkg/disk"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
	"backy/pkg/scrub"
)

// A comparison with the source reads each block, those too that are zero in one of them, and the last one, which is short.
func TestCompare(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*repotest.Disk)
		want   []repo.Range
	}{
		{"nothing", func(*repotest.Disk) {}, nil},
		{"a byte", func(d *repotest.Disk) { d.WriteAt([]byte{1}, 3*block+5) }, []repo.Range{at(3, block)}},
		{"zero here", func(d *repotest.Disk) { d.WriteAt([]byte{1}, 5*block) }, []repo.Range{at(5, block)}},
		{"zero there", func(d *repotest.Disk) { d.Punch(0, block) }, []repo.Range{at(0, block)}},
		{"the last byte", func(d *repotest.Disk) { d.WriteAt([]byte{0}, 20*block+999) }, []repo.Range{at(20, 1000)}},
		{"neighbours", func(d *repotest.Disk) { d.WriteAt([]byte{1, 1}, 3*block-1) }, []repo.Range{at(2, 2*block)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := repotest.New(t)
			d := noisy(20, 1, 0, 3, 20)
			rev := backup(t, f, "vm1", d)
			test.change(d)
			o := options(f)
			o.Revisions, o.Source, o.SourceName = []repo.Revision{rev}, d, "disk"
			report := run(t, o)
			if report.Blocks != 21 || report.Damaged() != (test.want != nil) {
				t.Errorf("%+v", report)
			}
			if test.want == nil {
				trust(t, f, rev, "verified")
				return
			}
			trust(t, f, rev, "distrusted source", test.want...)
			dir := filepath.Join(f.Base, ".backy/quarantine", report.ID)
			for _, m := range report.Differs {
				for _, name := range []string{"source", "backup"} {
					if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%d.%s.zst", m.Offset, name))); err != nil || !m.Kept {
						t.Error(err)
					}
				}
			}
			if j, _ := f.Repo.Job("vm1"); true {
				if _, err := j.Base("last"); !errors.Is(err, repo.ErrNoRevision) {
					t.Errorf("it is a base still: %v", err)
				}
			}
		})
	}
}

func TestCompareOtherSize(t *testing.T) {
	f := repotest.New(t)
	rev := backup(t, f, "vm1", noisy(20, 1, 0))
	o := options(f)
	o.Revisions, o.Source, o.SourceName = []repo.Revision{rev}, repotest.NewDisk(5), "disk"
	if _, err := scrub.Run(ctx, o); err == nil || !strings.Contains(err.Error(), "not what was backed up") {
		t.Errorf("%v", err)
	}
}

func TestUnreadableSource(t *testing.T) {
	f := repotest.New(t)
	d := noisy(20, 1, 0, 3)
	rev := backup(t, f, "vm1", d)
	distrust(t, f, rev, repo.WhyMap)
	d.Fail = func(off int64) error {
		if off == 3*block {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	o := options(f)
	o.Revisions, o.Source, o.SourceName = []repo.Revision{rev}, d, "disk"
	if report := run(t, o); len(report.Unknown) != 1 || report.Clean() || report.Damaged() {
		t.Errorf("%+v", report)
	}
	trust(t, f, rev, "distrusted map")
}

// dated is a disk that tells when it was written to.
type dated struct {
	*repotest.Disk
	states []disk.State // one for each look
}

func (d *dated) Stat() (disk.State, error) {
	s := d.states[0]
	if len(d.states) > 1 {
		d.states = d.states[1:]
	}
	return s, nil
}

// A spot check says nothing about a revision where the source may have changed since, or changes meanwhile.
func TestSpotCheck(t *testing.T) {
	then := disk.State{Size: 20*block + 1000, Modified: time.Unix(1, 0), Changed: time.Unix(1, 0)}
	later := then
	later.Modified = time.Unix(2, 0)
	for _, test := range []struct {
		name    string
		since   disk.State
		looks   []disk.State
		skipped bool
		want    string
	}{
		{"as it was", then, []disk.State{then}, false, "distrusted source"},
		{"changed before", then, []disk.State{later}, true, "trusted"},
		{"changed meanwhile", then, []disk.State{then, later}, false, "trusted"},
		{"without times", disk.State{Size: then.Size}, []disk.State{{Size: then.Size}}, true, "trusted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := repotest.New(t)
			d := noisy(20, 1, 0, 3, 20)
			rev := backup(t, f, "vm1", d)
			for b := range int64(21) {
				d.WriteAt([]byte{77, 78}, b*block)
			}
			o := options(f)
			o.Revisions, o.Source, o.SourceName = []repo.Revision{rev}, &dated{d, test.looks}, "disk"
			o.Share, o.Changed, o.Since = 0.01, true, &test.since
			report := run(t, o)
			if (report.Skipped != "") != test.skipped || report.Clean() || !test.skipped && report.Blocks != 1 {
				t.Errorf("%+v", report)
			}
			got := get(t, f, rev)
			if s := strings.TrimSpace(got.Trust + " " + got.Why); s != test.want {
				t.Errorf("it is %q, want %q", s, test.want)
			}
		})
	}
}

// The sample of a spot check is of what changed, and each block has the same chance, the last one too, also where there
// is no time for all.
func TestSample(t *testing.T) {
	f := repotest.New(t)
	d := noisy(20, 1, 0, 3, 20)
	backup(t, f, "vm1", d)
	d.WriteAt([]byte("new"), 7*block)
	d.Punch(3*block, block)
	d.WriteAt([]byte("new"), 20*block)
	rev := backup(t, f, "vm1", d)
	for b := range int64(21) {
		d.WriteAt([]byte{77, 78}, b*block)
	}
	times := map[int64]int{}
	r := rand.New(rand.NewPCG(3, 3))
	for range 60 {
		o := options(f)
		o.Revisions, o.Source, o.SourceName, o.Random = []repo.Revision{rev}, d, "disk", r
		o.Share, o.Changed = 0.01, true
		for _, m := range run(t, o).Differs {
			times[m.Offset/block]++
		}
	}
	if len(times) != 3 || times[3]+times[7]+times[20] != 60 || min(times[3], times[7], times[20]) < 8 {
		t.Errorf("%v", times)
	}
}

func TestSampleWithoutSource(t *testing.T) {
	f := repotest.New(t)
	rev := backup(t, f, "vm1", noisy(20, 1, 0, 3, 5, 20))
	o := options(f)
	o.Revisions, o.Share = []repo.Revision{rev}, 0.5
	if report := run(t, o); report.Objects != 2 || !report.Clean() {
		t.Errorf("%+v", report)
	}
	trust(t, f, rev, "trusted")
	for _, key := range f.Chunks(rev) {
		f.Spoil(key, false)
	}
	if report := run(t, o); len(report.Bad) != 2 {
		t.Errorf("%+v", report)
	}
}

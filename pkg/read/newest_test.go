package read_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// A change map tells what changed since one revision. If nobody says which that is, it is the newest; where that is no base,
// what changed between it and the last that is fit is in no map. So everything is compared.
func TestMapOfAnotherRevision(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(newest string) error
		base  string // "" is the id of the first revision
		mode  string
	}{
		"the newest is fit":              {func(string) error { return nil }, "last", repo.ReadMap},
		"the newest is distrusted":       {func(newest string) error { return os.WriteFile(newest+".state", distrusted.Bytes(), 0o640) }, "last", repo.ReadCompare},
		"the newest cannot be read":      {func(newest string) error { return os.WriteFile(newest+".rev", []byte("?"), 0o640) }, "latest", repo.ReadCompare},
		"the one before it is meant":     {func(newest string) error { return os.WriteFile(newest+".rev", []byte("?"), 0o640) }, "0", repo.ReadCompare},
		"the newest has no state":        {func(newest string) error { return os.Remove(newest + ".state") }, "last", repo.ReadCompare},
		"it is said which one it is for": {func(newest string) error { return os.WriteFile(newest+".state", distrusted.Bytes(), 0o640) }, "", repo.ReadMap},
	} {
		t.Run(name, func(t *testing.T) {
			f := repotest.New(t)
			d := filled(1, 5*block)
			first := f.Backup(d)
			before := d.Clone()
			d.WriteAt([]byte("new"), 3*block)
			newest := f.Backup(d)
			must(t, tt.spoil(filepath.Join(f.Job.Dir(), newest.ID)))
			if tt.base == "" {
				tt.base = first.ID
			}
			var said bytes.Buffer
			s := newSource(t, d)
			got, err := run(t, f, s, read.Options{Base: tt.base, Map: rbd(), Log: slog.New(slog.NewTextHandler(&said, nil))})
			must(t, err)
			if warned := strings.Contains(said.String(), "everything is read and compared"); got.note.Mode != tt.mode || warned != (tt.mode == repo.ReadCompare) {
				t.Errorf("%s; said %s", got.note.Mode, &said)
			}
			if tt.mode == repo.ReadCompare {
				got.want(t, before, s)
			}
		})
	}
}

var distrusted = repo.State{Trust: repo.Distrusted, Why: repo.WhySource}

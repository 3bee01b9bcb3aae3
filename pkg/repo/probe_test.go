package repo_test

import (
	"os"
	"path/filepath"
	"testing"

	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// What a writer that was killed while it probed has left is removed by the next one, and in the pool by a purge.
func TestProbesAreSwept(t *testing.T) {
	f := repotest.New(t)
	f.Backup(repotest.NewDisk(repotest.Block))
	inPool := filepath.Join(f.Repo.Base, repo.Dot, "chunks", ".probe-"+repo.NewID())
	inJob := filepath.Join(f.Job.Dir(), ".probe-"+repo.NewID())
	leave := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(path string) {
		t.Helper()
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
	leave(inPool)
	leave(inJob)
	f.Backup(repotest.NewDisk(repotest.Block))
	gone(inPool)
	gone(inJob)
	leave(inPool)
	if _, err := f.Repo.Purge(t.Context(), repo.PurgeOptions{Log: repotest.Quiet}); err != nil {
		t.Fatal(err)
	}
	gone(inPool)
}

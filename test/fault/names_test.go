package fault

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"backy/pkg/durable"
	"backy/pkg/repo"
)

// forgetful stands for a file system that keeps no name that it was not told to keep, as every file system may do: on
// some, the syncs that come later hide that an earlier one is missing. It watches the calls, and notes which names are
// durable.
type forgetful struct {
	t       *testing.T
	base    string
	durable map[string]bool // paths
}

// all notes all names below a directory, as syncfs makes them durable.
func (f *forgetful) all(dir string) {
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		f.durable[path] = true
		return err
	})
	if err != nil {
		f.t.Error(err)
	}
}

// entries notes the names in a directory, as fsync makes them durable.
func (f *forgetful) entries(dir string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		f.t.Error(err)
	}
	for _, e := range list {
		f.durable[filepath.Join(dir, e.Name())] = true
	}
}

// cut removes every name below the base directory that is not durable.
func (f *forgetful) cut() {
	err := filepath.WalkDir(f.base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || f.durable[path] {
			return err
		}
		if err := os.RemoveAll(path); err != nil || !d.IsDir() {
			return err
		}
		return fs.SkipDir
	})
	if err != nil {
		f.t.Error(err)
	}
}

// TestNamesAreDurable backs up a job whose directories are made on the way, then loses all names that nobody made
// durable. Some objects were put in place by a backup that came to nothing: their names are made durable by the one that
// finds them.
func TestNamesAreDurable(t *testing.T) {
	cases := []struct {
		name   string
		syncfs string // what a syncfs is taken to keep: all, objects (what lies in .backy), or nothing
		not    string // a directory whose fsync is taken out
		lost   bool
	}{
		{"all calls are made", "all", "", false},
		{"without syncfs", "nothing", "", true},
		{"without the fsync of the job's directory", "all", "a/b/c", true},
		// With a syncfs that keeps objects alone, it shows that each directory is also kept by itself.
		{"all calls are made, and syncfs keeps less", "objects", "", false},
		{"without the fsync of the base directory", "objects", ".", true},
		{"without the fsync of a", "objects", "a", true},
		{"without the fsync of a/b", "objects", "a/b", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			r, err := repo.Init(base, block, world(durable.Ops{}))
			if err != nil {
				t.Fatal(err)
			}
			f := &forgetful{t, base, map[string]bool{}}
			f.all(base)
			r.Ops = durable.Ops{
				Syncfs: func(*os.File) error {
					switch c.syncfs {
					case "all":
						f.all(base)
					case "objects":
						f.all(filepath.Join(base, repo.Dot))
					}
					return nil
				},
				FsyncDir: func(d *os.File) error {
					name, err := filepath.Rel(base, d.Name())
					if name != c.not {
						f.entries(d.Name())
					}
					return err
				},
			}
			disk := newDisk(rand.New(rand.NewPCG(1, 1)), 8)
			cut := func(in io.Reader) io.Reader { return io.LimitReader(in, 800<<10) }
			if _, err := backupThrough(r, "a/b/c", "cut", disk, cut); err == nil || poolSize(t, r) == 0 {
				t.Fatalf("the stream was cut: %v, with %d bytes in the pool", err, poolSize(t, r))
			}
			rev, err := backup(r, "a/b/c", "disk", disk)
			if err != nil {
				t.Fatal(err)
			}
			if c.syncfs == "objects" { // the .state is syncfs's to keep, too
				f.durable[filepath.Join(base, rev.Job, rev.ID+".state")] = true
			}
			f.cut()
			if err := kept(r, rev, disk); (err != nil) != c.lost {
				t.Errorf("lost: %v; want that to be so: %v", err, c.lost)
			}
		})
	}
}

// kept fails unless a revision is still there, and whole.
func kept(r *repo.Repo, rev repo.Revision, disk []byte) error {
	job, err := r.Job(rev.Job)
	if err != nil {
		return err
	}
	again, err := job.Get(rev.ID)
	if err == nil {
		err = again.StateErr
	}
	if err != nil {
		return err
	}
	return restored(r, again, disk)
}

// TestInitIsDurable makes a repository in a directory that is made on the way, and loses all names that nobody made
// durable.
func TestInitIsDurable(t *testing.T) {
	for _, not := range []string{"", ".", "a", "a/srv", "a/srv/.backy"} {
		t.Run("without the fsync of "+not, func(t *testing.T) {
			base := t.TempDir()
			f := &forgetful{t, base, map[string]bool{base: true}}
			_, err := repo.Init(filepath.Join(base, "a/srv"), block, world(durable.Ops{FsyncDir: func(d *os.File) error {
				name, err := filepath.Rel(base, d.Name())
				if name != not {
					f.entries(d.Name())
				}
				return err
			}}))
			if err != nil {
				t.Fatal(err)
			}
			f.cut()
			r, _, err := repo.Open(filepath.Join(base, "a/srv"), world(durable.Ops{}))
			if err == nil {
				_, err = backup(r, "vm1", "disk", distinct(newRandom(t), 2))
			}
			if (err != nil) != (not != "") {
				t.Errorf("without the fsync of %q: %v", not, err)
			}
		})
	}
}

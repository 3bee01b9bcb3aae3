package fault

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/restore"
)

// crowd is a repository with all at work in it at once: one writer for each job, and whoever reads, expires and purges. Any
// of them may be killed at any moment.
type crowd struct {
	t    *testing.T
	repo *repo.Repo
	tmp  string
	end  time.Time

	mu    sync.Mutex
	disks map[string][sha256.Size]byte // hash of the disk, by revision
	runs  map[string]int               // by who, and how it ended
}

// member is one of the crowd, with its own chance.
type member struct {
	*crowd
	name  string
	rnd   *rand.Rand
	usual time.Duration // that its command takes
}

// TestSoakCrowd runs 4 backups, 2 scrubs, 2 restores, expire and purge at once, again and again, and kills some of them.
// No restore ever gives something else than what was backed up, no scrub ever finds damage; at the end every revision
// that is listed restores byte for byte, and two purges leave no object that no revision reaches.
func TestSoakCrowd(t *testing.T) {
	c := &crowd{t: t, repo: newRepo(t), tmp: t.TempDir(), disks: map[string][sha256.Size]byte{}, runs: map[string]int{}}
	c.end = time.Now().Add(time.Duration(soak(30, 600)) * time.Second)
	rnd := newRandom(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	join := func(name string, act func(*member)) {
		m := &member{crowd: c, name: name, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0)), usual: time.Second}
		all.Go(func() {
			for time.Now().Before(c.end) && !t.Failed() {
				act(m)
			}
		})
	}
	common := newDisk(rnd, 12) // all jobs begin with it, so that they share blocks
	for i := range 4 {
		disk := common
		job := fmt.Sprintf("vm%d", i)
		c.configure(job)
		join("backup", func(m *member) {
			disk = change(m.rnd, disk, 4)
			if m.rnd.IntN(8) == 0 {
				disk = common
			}
			m.backup(job, disk)
		})
	}
	join("scrub", func(m *member) { m.run("backy-scrub", "-b", c.repo.Base) })
	join("scrub", func(m *member) {
		m.run("backy-scrub", "-b", filepath.Join(c.repo.Base, fmt.Sprintf("vm%d", m.rnd.IntN(4))))
	})
	for range 2 {
		join("restore", func(m *member) { m.restore() })
	}
	join("expire", func(m *member) { m.run("backy-expire", "-b", c.repo.Base) })
	join("purge", func(m *member) { m.run("backy-store", "purge", "-b", c.repo.Base, "--force") })
	all.Wait()
	t.Logf("%v", c.runs)
	for _, who := range []string{"backup", "scrub", "restore", "expire", "purge"} {
		if c.runs[who+" done"] == 0 || c.runs[who+" killed"] == 0 {
			t.Errorf("%s was never done, or never killed, so this shows little", who)
		}
	}
	c.atEnd()
}

// configure gives a job a schedule by which something expires all the time.
func (c *crowd) configure(job string) {
	dir := filepath.Join(c.repo.Base, job)
	must(c.t, os.Mkdir(dir, 0o750))
	must(c.t, os.WriteFile(filepath.Join(dir, "config"), []byte("schedule:\n  test: {interval: 1s, keep: 3}\n"), 0o640))
}

// backup makes a revision of a disk, or not, and remembers what it is of.
func (m *member) backup(job string, disk []byte) {
	dir, image := filepath.Join(m.repo.Base, job), filepath.Join(m.tmp, job)
	if err := os.WriteFile(image, disk, 0o640); err != nil {
		m.t.Error(err)
		return
	}
	stages := []*exec.Cmd{
		command(m.t, "backy-read", "-b", dir, "--base", "last", image),
		command(m.t, "backy-chunk", "-b", dir),
		command(m.t, "backy-store", "-b", dir, "-t", "test"),
	}
	m.watch(stages)
	j, err := m.repo.Job(job)
	if err != nil {
		m.t.Error(err)
		return
	}
	list, broken, err := j.List()
	if err != nil || len(broken) > 0 {
		m.t.Errorf("list %s: %v %v", job, broken, err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rev := range list { // only we make revisions of this job, and nothing takes the newest
		if _, known := m.disks[rev.ID]; !known {
			m.disks[rev.ID] = sha256.Sum256(disk)
		}
	}
}

// restore restores a revision that may expire meanwhile. It has then to be whole all the same, or not to begin.
func (m *member) restore() {
	var list []repo.Revision
	if err := eachRevision(m.repo, func(rev repo.Revision) error { list = append(list, rev); return nil }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Error(err)
	}
	if len(list) == 0 {
		time.Sleep(10 * time.Millisecond)
		return
	}
	rev := list[m.rnd.IntN(len(list))]
	target := filepath.Join(m.tmp, fmt.Sprintf("restored-%d", m.rnd.Uint64()))
	defer os.Remove(target)
	defer os.Remove(target + ".partial")
	restore := command(m.t, "backy-restore", "-b", filepath.Join(m.repo.Base, rev.Job), "-r", rev.ID, target)
	if !m.watch([]*exec.Cmd{restore}, rev) {
		return
	}
	disk, err := os.ReadFile(target)
	m.mu.Lock()
	want, known := m.disks[rev.ID]
	m.mu.Unlock()
	if err != nil || known && sha256.Sum256(disk) != want {
		m.t.Errorf("revision %s of %s is not the disk that was backed up: %v", rev.ID, rev.Job, err)
	}
}

func (m *member) run(name string, args ...string) {
	m.watch([]*exec.Cmd{command(m.t, name, args...)})
}

// watch runs commands, kills one of them now and then, and reports whether all ended well. The revisions are what they
// read: if one is forgotten, they may fail.
func (m *member) watch(stages []*exec.Cmd, reads ...repo.Revision) bool {
	begin := time.Now()
	start(m.t, stages...)
	if m.rnd.IntN(3) == 0 {
		victim := stages[m.rnd.IntN(len(stages))].Process
		wait := time.Duration(m.rnd.Int64N(int64(m.usual)))
		kill := time.AfterFunc(wait, func() { _ = victim.Kill() })
		defer kill.Stop()
	}
	killed, well := false, true
	for _, c := range stages {
		_ = c.Wait()
		killed = killed || !c.ProcessState.Exited()
		well = well && c.ProcessState.Success()
	}
	end := "done"
	switch {
	case killed:
		end = "killed"
	case well:
		m.usual = time.Since(begin)
	default:
		end = m.excuse(stages, reads)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs[m.name+" "+end]++
	return well && !killed
}

// excuse says why nobody is to blame for a failure, or fails the test.
func (m *member) excuse(stages []*exec.Cmd, reads []repo.Revision) string {
	words := ""
	for _, c := range stages {
		switch code := c.ProcessState.ExitCode(); {
		case code == 75:
			return "again"
		case code == 1 && slices.ContainsFunc(reads, func(rev repo.Revision) bool { return !listed(m.repo, rev.Job, rev.ID) }):
			return "too late"
		case code != 0:
			words += fmt.Sprintf("%s: %v: %s\n", filepath.Base(c.Path), c.ProcessState, said(c))
		}
	}
	m.t.Errorf("%s: %s", m.name, words)
	return "failed"
}

// atEnd looks at what is left when all have gone.
func (c *crowd) atEnd() {
	must(c.t, objectsWhole(c.repo))
	bad, err := c.repo.Bads()
	if err != nil || len(bad) > 0 {
		c.t.Errorf("nothing was damaged, and there are marks: %v %v", bad, err)
	}
	for range 2 {
		purge := command(c.t, "backy-store", "purge", "-b", c.repo.Base, "--force")
		if err := purge.Run(); err != nil {
			c.t.Errorf("purge: %v: %s", err, said(purge))
		}
	}
	reached, n := map[string]bool{}, 0
	pages, err := blockmap.NewPages(c.repo.Objects())
	must(c.t, err)
	must(c.t, eachRevision(c.repo, func(rev repo.Revision) error {
		n++
		if rev.StateErr != nil || rev.State.Trust == repo.Distrusted {
			return fmt.Errorf("revision %s of %s: %+v, %v", rev.ID, rev.Job, rev.State, rev.StateErr)
		}
		sum := sha256.New()
		report, err := restore.Run(ctx, restore.Options{Repo: c.repo, Revision: rev, Stream: sum, Log: quiet})
		if err != nil || len(report.Damage) > 0 {
			return fmt.Errorf("restore %s of %s: %v %v", rev.ID, rev.Job, report.Damage, err)
		}
		if want, known := c.disks[rev.ID]; !known || [sha256.Size]byte(sum.Sum(nil)) != want {
			return fmt.Errorf("revision %s of %s is not the disk that was backed up", rev.ID, rev.Job)
		}
		return blockmap.Walk(ctx, pages, rev.Map(), blockmap.Visitor{
			Page: func(_ int, name object.Name) (bool, error) {
				reached[object.Key{Kind: object.Page, Name: name}.String()] = true
				return true, nil
			},
			Block: func(_ int64, _, name object.Name) error {
				reached[object.Key{Kind: object.Chunk, Name: name}.String()] = true
				return nil
			},
		})
	}))
	dot, left := filepath.Join(c.repo.Base, repo.Dot), 0
	for _, kind := range object.Kinds {
		must(c.t, eachFile(pool(c.repo, kind), func(path string, _ fs.FileInfo) error {
			name, err := filepath.Rel(dot, path)
			if err == nil && !reached[filepath.ToSlash(name)] {
				left++
			}
			return err
		}))
	}
	limbo := 0
	err = eachFile(filepath.Join(dot, "limbo"), func(path string, _ fs.FileInfo) error { limbo++; return nil })
	if err != nil && !errors.Is(err, fs.ErrNotExist) || left > 0 || limbo > 0 {
		c.t.Errorf("two purges have left %d objects that nobody reaches, and %d files in limbo: %v", left, limbo, err)
	}
	c.t.Logf("%d revisions, which reach %d objects", n, len(reached))
}

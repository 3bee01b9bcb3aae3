//go:build ceph

package ceph

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/pkg/disk/rbd/rbdtest"
	"backy/pkg/repo"
)

// bin is where the commands are, once they are built.
var bin string

var build = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-tags", "ceph,pacific", "-o", bin, "backy/cmd/...").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the commands: %w\n%s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) {
	os.Exit(func() int {
		defer rbdtest.Stop()
		var err error
		if bin, err = os.MkdirTemp("", "backy-ceph"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(bin)
		return m.Run()
	}())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// limit is the longest that a command may take; one that waits for a daemon is given time.
const limit = 3 * time.Minute

// command is one of backy's, from the source, as the user that README tells to make; or one of Ceph's, as who administers
// it. Its standard error is kept. It does not outlive the test.
func command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	must(t, build())
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, name, args...)
	if strings.HasPrefix(name, "backy") {
		c = exec.CommandContext(ctx, filepath.Join(bin, name), args...)
		c.Env = append(os.Environ(), "CEPH_ARGS=--id backup")
	}
	c.Stderr = new(bytes.Buffer)
	return c
}

// said is what a command wrote on its standard error.
func said(c *exec.Cmd) string { return strings.TrimSpace(c.Stderr.(*bytes.Buffer).String()) }

// name is what a command is called.
func name(c *exec.Cmd) string { return filepath.Base(c.Path) }

// failed is the error of a command with all that it has said.
func failed(c *exec.Cmd, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, said(c))
}

// output runs a command and returns what it wrote on its standard output.
func output(c *exec.Cmd) (string, error) {
	out, err := c.Output()
	return strings.TrimSpace(string(out)), failed(c, err)
}

// start starts commands, joined by pipes as a shell does.
func start(t testing.TB, stages ...*exec.Cmd) {
	t.Helper()
	var ends []*os.File
	for i := range stages[1:] {
		r, w, err := os.Pipe()
		must(t, err)
		stages[i].Stdout, stages[i+1].Stdin = w, r
		ends = append(ends, r, w)
	}
	for _, c := range stages {
		must(t, c.Start())
	}
	for _, f := range ends {
		f.Close()
	}
}

// wait waits for the commands of a pipe, all of which have to succeed.
func wait(stages ...*exec.Cmd) error {
	var all error
	for _, c := range stages {
		all = errors.Join(all, failed(c, c.Wait()))
	}
	return all
}

// oneLine fails the test unless a command has ended with this exit code and one line that says why, with these words.
func oneLine(t testing.TB, c *exec.Cmd, code int, words ...string) {
	t.Helper()
	text := said(c)
	if c.ProcessState.ExitCode() != code {
		t.Errorf("%s ended with %v, want exit code %d: %s", name(c), c.ProcessState, code, text)
	}
	if text == "" || strings.Contains(text, "\n") || len(text) > 400 {
		t.Errorf("%s said, and it is not one line:\n%s", name(c), text)
	}
	says(t, c, words...)
}

// says fails the test unless a command has said these words.
func says(t testing.TB, c *exec.Cmd, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(said(c), word) {
			t.Errorf("%s does not say %q: %s", name(c), word, said(c))
		}
	}
}

// hash is that of the first so many bytes that a command writes, of all if that is 0, and how many it wrote.
func hash(c *exec.Cmd, first int64) (sum string, n int64, err error) {
	out, err := c.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := c.Start(); err != nil {
		return "", 0, err
	}
	sum, n, err = hashOf(out, first)
	return sum, n, errors.Join(err, failed(c, c.Wait()))
}

func hashOf(in io.Reader, first int64) (sum string, n int64, err error) {
	if first == 0 {
		first = math.MaxInt64
	}
	h := sha256.New()
	n, err = io.Copy(h, io.LimitReader(in, first))
	if err != nil {
		return "", n, err
	}
	rest, err := io.Copy(io.Discard, in)
	return hex.EncodeToString(h.Sum(nil)), n + rest, err
}

// opened opens a file for f.
func opened(path string, f func(*os.File) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return f(file)
}

// together does several things at once.
func together(list ...func() error) error {
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, f := range list {
		all.Go(func() { errs[i] = f() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// job is a job in a repository of its own.
type job struct {
	t    testing.TB
	repo *repo.Repo
	name string
}

func newJob(t testing.TB) *job {
	r, err := repo.Init(t.TempDir(), repo.MinBlock, repo.World{Now: time.Now})
	must(t, err)
	return &job{t, r, "vm1"}
}

func (j *job) dir() string { return filepath.Join(j.repo.Base, j.name) }

// read is backy-read with arguments, on the last revision, chunk and store are the stages after it.
func (j *job) read(args ...string) *exec.Cmd {
	return command(j.t, "backy-read", append([]string{"-b", j.dir(), "--base", "last"}, args...)...)
}

func (j *job) chunk(args ...string) *exec.Cmd {
	return command(j.t, "backy-chunk", append([]string{"-b", j.dir()}, args...)...)
}

func (j *job) store() *exec.Cmd { return command(j.t, "backy-store", "-b", j.dir(), "-t", "test") }

// stages are the commands of a backup, of which backy-read has these arguments.
func (j *job) stages(args ...string) []*exec.Cmd {
	return []*exec.Cmd{j.read(args...), j.chunk(), j.store()}
}

// last is the newest revision.
func (j *job) last() repo.Revision {
	j.t.Helper()
	list := j.list()
	if len(list) == 0 {
		j.t.Fatal("there is no revision")
	}
	return list[len(list)-1]
}

// backup backs an image up by the pipe of the commands, and returns the revision and the reader, which may have said
// something.
func (j *job) backup(args ...string) (repo.Revision, *exec.Cmd) {
	j.t.Helper()
	stages := j.stages(args...)
	return j.pipe(stages...), stages[0]
}

// pipe runs stages, which have to commit a revision, and returns that.
func (j *job) pipe(stages ...*exec.Cmd) repo.Revision {
	j.t.Helper()
	n := len(j.list())
	start(j.t, stages...)
	must(j.t, wait(stages...))
	list := j.list()
	if len(list) != n+1 {
		j.t.Fatalf("there were %d revisions, and after a backup %d", n, len(list))
	}
	return list[n]
}

// list are the revisions, oldest first.
func (j *job) list() []repo.Revision {
	j.t.Helper()
	job, err := j.repo.Job(j.name)
	must(j.t, err)
	list, broken, err := job.List()
	must(j.t, err)
	if len(broken) > 0 {
		j.t.Fatalf("%s: %v", broken[0].Path, broken[0].Err)
	}
	return list
}

// want fails the test unless a revision is, to the byte, what rbd export says that an image or a snapshot is.
func (j *job) want(rev repo.Revision, image string) {
	j.t.Helper()
	want, _, err := hash(command(j.t, "rbd", "export", "--no-progress", image, "-"), 0)
	must(j.t, err)
	got, _, err := hash(command(j.t, "backy-restore", "-b", j.dir(), "-r", rev.ID, "-"), 0)
	must(j.t, err)
	if got != want {
		j.t.Errorf("revision %s is not rbd:%s", rev.ID, image)
	}
}

// underWay starts a backup and waits until some blocks of it are in the repository.
func (j *job) underWay(stages ...*exec.Cmd) {
	j.t.Helper()
	before := j.objects()
	start(j.t, stages...)
	until(j.t, func() bool { return j.objects() > before+4 })
}

// objects is the number of objects in the repository, and of those on their way into it.
func (j *job) objects() (n int) {
	for _, dir := range []string{"tmp", "chunks"} {
		_ = filepath.WalkDir(filepath.Join(j.repo.Base, repo.Dot, dir), func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.HasSuffix(d.Name(), ".zst") {
				n++
			}
			return nil // what goes meanwhile does not matter
		})
	}
	return n
}

// until waits until something has happened.
func until(t testing.TB, happened func() bool) {
	t.Helper()
	for begin := time.Now(); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > limit {
			t.Fatal("what has to happen does not")
		}
	}
}

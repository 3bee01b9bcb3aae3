package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	revSuffix   = ".rev"
	stateSuffix = ".state"
)

// maxName keeps the name of a job's lock file within what file systems take.
const maxName = 240

var segment = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$`)

// CheckJob refuses what is no job's name: a path of segments of A-Za-z0-9_- and single inner dots, each of which starts
// with a letter or digit.
func CheckJob(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("a job's name has %d characters, more than %d", len(name), maxName)
	}
	for part := range strings.SplitSeq(name, "/") {
		if !segment.MatchString(part) {
			return fmt.Errorf("%.100q is no job's name: want letters, digits, _ and -, single dots inside, starting with a letter or digit", name)
		}
	}
	return nil
}

// Job is a named disk, and the directory with its revisions.
type Job struct {
	Name string
	repo *Repo
}

// Job returns the job of this name, whether its directory exists or not.
func (r *Repo) Job(name string) (*Job, error) {
	if name == "" {
		return nil, fmt.Errorf("%s is a repository's base directory; name a job's directory below it with -b", r.Base)
	}
	return &Job{name, r}, CheckJob(name)
}

// Dir is the job's directory.
func (j *Job) Dir() string { return filepath.Join(j.repo.Base, filepath.FromSlash(j.Name)) }

// Exists fails where the job has no directory: mostly its name is mistyped.
func (j *Job) Exists() error {
	_, err := os.Stat(j.Dir())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no job %s in %s", j.Name, j.repo.Base)
	}
	return err
}

func (j *Job) file(name string) string { return filepath.Join(j.Dir(), name) }

// Broken is a .rev that cannot be read.
type Broken struct {
	Path string
	Err  error
}

// List returns the job's revisions, oldest first, and the .rev files that cannot be read. A job without a directory has
// none.
func (j *Job) List() ([]Revision, []Broken, error) {
	entries, err := os.ReadDir(j.Dir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("list revisions: %w", err)
	}
	var list []Revision
	var broken []Broken
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), revSuffix)
		if !ok || !isID(id) {
			continue
		}
		r, err := j.Get(id)
		if errors.Is(err, ErrNoRevision) {
			continue // forgotten since
		}
		if err != nil {
			broken = append(broken, Broken{j.file(e.Name()), err})
			continue
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Revision) int {
		return cmpOr(a.Time.Compare(b.Time), strings.Compare(a.ID, b.ID))
	})
	return list, broken, nil
}

func cmpOr(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

// ErrNoRevision is wrapped where a revision does not exist.
var ErrNoRevision = errors.New("no such revision")

// Get reads one revision by its id.
func (j *Job) Get(id string) (Revision, error) {
	text, err := readSmall(j.file(id + revSuffix))
	if leadsNowhere(j.file(id+revSuffix), err) {
		return Revision{}, fmt.Errorf("%s is a symbolic link that leads nowhere", j.file(id+revSuffix))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Revision{}, fmt.Errorf("%w: %s has no %s", ErrNoRevision, j.Name, id)
	}
	if err != nil {
		return Revision{}, err
	}
	r, err := ParseRevision(text)
	if err == nil && r.ID != id {
		err = fmt.Errorf("it is that of %s", r.ID)
	}
	if err != nil {
		return Revision{}, fmt.Errorf("%s: %w", j.file(id+revSuffix), err)
	}
	r.Job = j.Name
	text, err = readSmall(j.file(id + stateSuffix))
	if err == nil {
		r.State, err = ParseState(text)
	}
	if err != nil {
		r.StateErr = fmt.Errorf("the state of %s cannot be read: %w", id, err)
	}
	return r, nil
}

// Base is the revision to build on: the one that the spec names, which has to be fit; for "last", the newest that is
// fit. ErrNoRevision where there is none.
func (j *Job) Base(spec string) (Revision, error) {
	if spec != "last" && spec != "latest" {
		r, err := j.Find(spec)
		if err == nil && !r.FitBase() {
			err = fmt.Errorf("revision %s is no base: it is distrusted, or its state is not known", r.ID)
		}
		return r, err
	}
	list, _, err := j.List()
	if err != nil {
		return Revision{}, err
	}
	for _, r := range slices.Backward(list) {
		if r.FitBase() {
			return r, nil
		}
	}
	return Revision{}, fmt.Errorf("%w of %s is fit to build on", ErrNoRevision, j.Name)
}

// StrayError is of revisions where no job can be: purge keeps what they need, and everybody else leaves them out.
type StrayError struct{ Path, Advice string }

func (e *StrayError) Error() string {
	return fmt.Sprintf("there are revisions in %q that are left out, for it can be no job: %s", e.Path, e.Advice)
}

// Jobs walks the base directory for jobs: directories that have a revision or a config. A directory that cannot be read
// is yielded as an error, and so is a *StrayError, and the walk goes on behind it. Symbolic links are not followed.
func (r *Repo) Jobs(ctx context.Context) iter.Seq2[*Job, error] {
	return func(yield func(*Job, error) bool) { r.jobsBelow(ctx, "", yield) }
}

// jobsBelow walks a directory, "" for the base; false is that all is to end.
func (r *Repo) jobsBelow(ctx context.Context, name string, yield func(*Job, error) bool) bool {
	err := context.Cause(ctx)
	if err != nil {
		yield(nil, fmt.Errorf("list jobs: %w", err))
		return false
	}
	entries, err := os.ReadDir(filepath.Join(r.Base, filepath.FromSlash(name)))
	switch {
	case errors.Is(err, fs.ErrNotExist) && name != "": // removed since
		return true
	case err != nil:
		return yield(nil, fmt.Errorf("list jobs: %w", err))
	case name != "" && slices.ContainsFunc(entries, isJobFile) && !yield(&Job{name, r}, nil):
		return false
	}
	if name == "" && slices.ContainsFunc(entries, isRevFile) && !yield(nil, &StrayError{r.Base, "move them into a job's directory below it"}) {
		return false
	}
	for _, e := range entries {
		switch below := path.Join(name, e.Name()); {
		case !e.IsDir() || e.Name() == Dot || e.Name() == "lost+found":
		case CheckJob(e.Name()) != nil:
			if err := r.stray(ctx, below); err != nil && !yield(nil, err) {
				return false
			}
		case !r.jobsBelow(ctx, below, yield):
			return false
		}
	}
	return true
}

// stray fails if there are revisions in or below a directory whose name no part of a job's can be.
func (r *Repo) stray(ctx context.Context, name string) error {
	top := filepath.Join(r.Base, filepath.FromSlash(name))
	found := false
	var failed error
	_ = filepath.WalkDir(top, func(_ string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			failed = context.Cause(ctx)
			return fs.SkipAll
		case err != nil && !errors.Is(err, fs.ErrNotExist): // there may be others behind it
			failed = err
		case err != nil:
		case e.IsDir() && (e.Name() == Dot || e.Name() == "lost+found"):
			return fs.SkipDir
		case !e.IsDir() && isRevFile(e):
			found = true
			return fs.SkipAll
		}
		return nil
	})
	switch {
	case found:
		return &StrayError{top, "rename it, to letters, digits, _ and -, single dots inside, starting with a letter or digit"}
	case failed != nil:
		return fmt.Errorf("list jobs: %w", failed)
	}
	return nil
}

func isJobFile(e fs.DirEntry) bool { return e.Name() == "config" || isRevFile(e) }

func isRevFile(e fs.DirEntry) bool {
	id, ok := strings.CutSuffix(e.Name(), revSuffix)
	return ok && isID(id)
}

package scrub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"backy/pkg/chunk"
	"backy/pkg/object"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
	"backy/pkg/scrub"
)

var ctx = context.Background()

const block = repotest.Block

// backup makes a revision of a disk, as backy backup would.
func backup(t testing.TB, f *repotest.Fixture, job string, d *repotest.Disk) repo.Revision {
	t.Helper()
	for range 2 {
		rev, err := try(f, job, d)
		if again := (*repo.AgainError)(nil); errors.As(err, &again) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	t.Fatal("it asks to be run again, again and again")
	return repo.Revision{}
}

func try(f *repotest.Fixture, job string, d *repotest.Disk) (repo.Revision, error) {
	j, err := f.Repo.Job(job)
	if err != nil {
		return repo.Revision{}, err
	}
	g := *f
	g.Job = j
	var extents, objects bytes.Buffer
	if err := read.Run(ctx, read.Options{Out: &extents, Disk: d, Source: "disk", Repo: f.Repo, Job: job, Base: "last", Now: f.Now, Log: repotest.Quiet}); err != nil {
		return repo.Revision{}, err
	}
	if err := chunk.Run(ctx, chunk.Options{In: &extents, Out: &objects, Repo: f.Repo, Job: job, Now: f.Now, Log: repotest.Quiet}); err != nil {
		return repo.Revision{}, err
	}
	return g.Commit(objects.Bytes())
}

// noisy is a disk of n blocks and a bit, with noise in those that are named.
func noisy(n int64, seed uint64, blocks ...int64) *repotest.Disk {
	d := repotest.NewDisk(n*block + 1000)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, b := range blocks {
		d.WriteAt(repotest.Noise(r, min(block, d.Size()-b*block)), b*block)
	}
	return d
}

func options(f *repotest.Fixture) scrub.Options {
	var mu sync.Mutex
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return f.Now()
	}
	return scrub.Options{Repo: f.Repo, Share: 1, Now: now, Log: repotest.Quiet}
}

func run(t testing.TB, o scrub.Options) scrub.Report {
	t.Helper()
	r, err := scrub.Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// get reads a revision's state as it is now.
func get(t testing.TB, f *repotest.Fixture, rev repo.Revision) repo.State {
	t.Helper()
	j, _ := f.Repo.Job(rev.Job)
	r, err := j.Get(rev.ID)
	if err = errors.Join(err, r.StateErr); err != nil {
		t.Fatal(err)
	}
	return r.State
}

func trust(t testing.TB, f *repotest.Fixture, rev repo.Revision, want string, ranges ...repo.Range) {
	t.Helper()
	s := get(t, f, rev)
	got := strings.TrimSpace(s.Trust + " " + s.Why)
	if got != want || !slices.Equal(s.Damage, ranges) {
		t.Errorf("revision %s is %q with damage %v, want %q with %v", rev.ID, got, s.Damage, want, ranges)
	}
}

// distrust changes the state of a revision.
func distrust(t testing.TB, f *repotest.Fixture, rev repo.Revision, why string) {
	t.Helper()
	j, _ := f.Repo.Job(rev.Job)
	if err := j.Change(ctx, rev.ID, func(s *repo.State) error {
		s.Trust, s.Why = repo.Distrusted, why
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func at(block_, n int64) repo.Range { return repo.Range{Offset: block_ * block, Length: n} }

// scopes are the ways to read all of one job.
func scopes(f *repotest.Fixture) map[string]scrub.Options {
	list, _, _ := f.Job.List()
	all, byJob := options(f), options(f)
	byJob.Revisions = list
	return map[string]scrub.Options{"repository": all, "job": byJob}
}

func TestWhatIsRightIsVerified(t *testing.T) {
	for _, scope := range []string{"repository", "job"} {
		t.Run(scope, func(t *testing.T) {
			f := repotest.New(t)
			d := noisy(20, 1, 0, 3, 4, 19, 20)
			first := backup(t, f, "vm1", d)
			d.WriteAt([]byte("changed"), 4*block)
			second := backup(t, f, "vm1", d)
			empty := backup(t, f, "vm1", repotest.NewDisk(5*block))
			report := run(t, scopes(f)[scope])
			if !report.Clean() || report.Damaged() || report.ID != "" {
				t.Errorf("%+v", report)
			}
			if report.Objects != 6+2 { // chunks and pages, each once
				t.Errorf("%d objects were read, want 8", report.Objects)
			}
			for _, rev := range []repo.Revision{first, second, empty} {
				trust(t, f, rev, "verified")
			}
			if oldest := report.Oldest; (oldest != nil) != (scope == "repository") {
				t.Errorf("oldest is %v", oldest)
			}
		})
	}
}

// A bad chunk is found, with all revisions and places that reach it; a backup heals it, also that of another job; and a
// scrub after it verifies all.
func TestBadChunk(t *testing.T) {
	for _, scope := range []string{"repository", "job"} {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprint(scope, " gone ", gone), func(t *testing.T) {
				f := repotest.New(t)
				d := noisy(20, 1, 0, 3, 20)
				same := make([]byte, block)
				d.ReadAt(same, 3*block)
				d.WriteAt(same, 7*block) // and so it is at two places
				first := backup(t, f, "vm1", d)
				other := backup(t, f, "group/vm2", d)
				bad := f.Chunks(first)[1]
				d.WriteAt([]byte("changed"), 0)
				second := backup(t, f, "vm1", d)
				d.Punch(3*block, block)
				third := backup(t, f, "vm1", d)
				d.Punch(7*block, block)
				fourth := backup(t, f, "vm1", d)
				f.Spoil(bad, gone)

				report := run(t, scopes(f)[scope])
				if len(report.Bad) != 1 || report.Bad[0].Key != bad.String() || len(report.Bad[0].Places) != 7 || !report.Bad[0].New || !report.Damaged() {
					t.Fatalf("%+v", report.Bad)
				}
				trust(t, f, first, "distrusted damage", at(3, block), at(7, block))
				trust(t, f, second, "distrusted damage", at(3, block), at(7, block))
				trust(t, f, third, "distrusted damage", at(7, block))
				trust(t, f, fourth, "verified")
				trust(t, f, other, "distrusted damage", at(3, block), at(7, block))
				bads, err := f.Bads()
				if err != nil || len(bads) != 1 || len(bads[0].Places) != 7 || bads[0].Key != bad {
					t.Errorf("marks: %+v, %v", bads, err)
				}
				if q, err := f.Quarantine(report.ID[:5]); err != nil {
					t.Error(err)
				} else if text, err := q.Read(); err != nil || !bytes.Contains(text, []byte(bad.Name.String())) {
					t.Errorf("%s, %v", text, err)
				}
				again := run(t, scopes(f)[scope])
				if len(again.Bad) != 1 || again.Bad[0].New {
					t.Errorf("the second time: %+v", again.Bad)
				}

				d = noisy(20, 1, 0, 3, 20)
				backup(t, f, "group/vm2", d)
				report = run(t, options(f))
				if !report.Clean() {
					t.Errorf("after a backup: %+v", report)
				}
				for _, rev := range []repo.Revision{first, second, third, fourth, other} {
					trust(t, f, rev, "verified")
				}
				f.Want(first, func() *repotest.Disk { d.WriteAt(same, 7*block); return d }())
			})
		}
	}
}

// A bad page is all the blocks below it.
func TestBadPage(t *testing.T) {
	for _, scope := range []string{"repository", "job"} {
		t.Run(scope, func(t *testing.T) {
			f := repotest.New(t)
			d := noisy(3000, 1, 0, 1025, 3000)
			rev := backup(t, f, "vm1", d)
			f.Spoil(f.Pages(rev)[2], scope == "job") // of blocks 1024 to 2047
			report := run(t, scopes(f)[scope])
			if len(report.Bad) != 1 {
				t.Fatalf("%+v", report.Bad)
			}
			trust(t, f, rev, "distrusted damage", at(1024, 1024*block))
			backup(t, f, "vm1", d)
			if report := run(t, scopes(f)[scope]); !report.Clean() {
				t.Errorf("after a backup: %+v", report)
			}
			trust(t, f, rev, "verified")
		})
	}
}

// One random bit of each of 200 objects is flipped. Each flip that alters content is found and named, in all revisions that
// have it, and the next backup with a scrub leaves all verified. In the soak they are flipped one after the other, each
// after the one before was healed; else 50 at once.
func TestSoakBitRot(t *testing.T) {
	f := repotest.New(t)
	d := noisy(209, 1, first(210)...)
	revisions := []repo.Revision{backup(t, f, "vm1", d)}
	d.WriteAt(repotest.Noise(rand.New(rand.NewPCG(3, 3)), block), 0) // so that block 0 is not the same in all
	revisions = append(revisions, backup(t, f, "vm2", d))
	chunks := f.Chunks(revisions[1])
	atOnce, seed := 50, uint64(7)
	if os.Getenv("BACKY_SOAK") == "full" {
		atOnce, seed = 1, rand.Uint64()
		t.Logf("seed %d", seed)
	}
	r := rand.New(rand.NewPCG(seed, 7))
	altered := 0
	order := r.Perm(200)
	for len(order) > 0 {
		altered += rot(t, f, r, chunks, order[:atOnce], revisions)
		order = order[atOnce:]
		revisions = append(revisions, backup(t, f, "vm2", d))
		if report := run(t, options(f)); !report.Clean() {
			t.Fatalf("after a backup: %+v", report)
		}
		for _, rev := range revisions {
			trust(t, f, rev, "verified")
		}
	}
	if altered < 190 { // some bits of a frame mean nothing
		t.Errorf("only %d of 200 alter content", altered)
	}
}

// rot flips a bit in some of the chunks, whose numbers are those of the blocks of vm2, and fails unless a scrub finds and
// names just those that do not decode any more. It returns how many that were.
func rot(t *testing.T, f *repotest.Fixture, r *rand.Rand, chunks []object.Key, victims []int, revisions []repo.Revision) int {
	t.Helper()
	dec, _ := object.NewDecoder(int(block))
	want := map[string]bool{}
	for _, i := range victims {
		path := f.Objects().Path(chunks[i])
		frame, err := os.ReadFile(path)
		if err != nil || len(frame) < 64<<10 {
			t.Fatalf("%d bytes, %v", len(frame), err)
		}
		bit := r.IntN(8 * len(frame))
		frame[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, frame, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := dec.Decode(chunks[i], nil, frame); err == nil {
			continue
		}
		for _, rev := range revisions {
			if i > 0 || rev.Job == "vm2" {
				want[fmt.Sprintf("%s %s %d", chunks[i], rev.ID, int64(i)*block)] = true
			}
		}
	}
	got := map[string]bool{}
	report := run(t, options(f))
	for _, b := range report.Bad {
		for _, p := range b.Places {
			got[fmt.Sprintf("%s %s %d", b.Key, p.Revision, p.Offset)] = true
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("found %v\nwant  %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	return len(report.Bad)
}

// What a purge has moved to limbo is read, too: it may be on its way back. What nobody reaches is not looked after there.
func TestLimboIsRead(t *testing.T) {
	f := repotest.New(t)
	d := noisy(5, 1, 0, 1, 2)
	old := backup(t, f, "vm1", d)
	gone := f.Chunks(old)[2]
	d.WriteAt(repotest.Noise(rand.New(rand.NewPCG(4, 4)), block), 2*block)
	rev := backup(t, f, "vm1", d)
	j, _ := f.Repo.Job("vm1")
	if err := j.Forget(ctx, []string{old.ID}, repo.Guard{}); err != nil {
		t.Fatal(err)
	}
	needed := f.Chunks(rev)[1]
	for _, key := range []object.Key{gone, needed} {
		f.Spoil(key, false)
		limbo := filepath.Join(f.Repo.Base, repo.Dot, "limbo", "1", filepath.FromSlash(key.String()))
		if err := errors.Join(os.MkdirAll(filepath.Dir(limbo), 0o750), os.Rename(f.Objects().Path(key), limbo)); err != nil {
			t.Fatal(err)
		}
	}
	report := run(t, options(f))
	if len(report.Bad) != 1 || report.Bad[0].Key != needed.String() || len(report.Bad[0].Places) != 1 {
		t.Errorf("%+v", report.Bad)
	}
	trust(t, f, rev, "distrusted damage", at(1, block))
}

// first are the blocks from 0 on.
func first(n int) []int64 {
	blocks := make([]int64, n)
	for i := range blocks {
		blocks[i] = int64(i)
	}
	return blocks
}

// Runs of a share go round: each object is read once, and what is bad is found in one of them.
func TestShares(t *testing.T) {
	f := repotest.New(t)
	rev := backup(t, f, "vm1", noisy(60, 1, first(60)...))
	f.Spoil(f.Chunks(rev)[10], false)
	f.Spoil(f.Chunks(rev)[11], true)
	objects, bad := int64(0), 0
	for i := range 7 {
		o := options(f)
		o.Share = 0.1428
		report := run(t, o)
		objects += report.Objects
		for _, b := range report.Bad {
			if b.New {
				bad++
			}
		}
		if done := report.Oldest != nil; done != (i == 6) {
			t.Errorf("run %d: all was verified once: %v", i, done)
		}
	}
	if objects != 60 || bad != 2 { // 60 chunks, one of which is missing, and a page
		t.Errorf("%d objects were read, want 60; %d new ones were bad", objects, bad)
	}
	trust(t, f, rev, "distrusted damage", at(10, 2*block))
	o := options(f)
	o.Share = 0.3
	run(t, o)
	if s := get(t, f, rev); s.Trust == repo.Verified {
		t.Error("a part of it was read, and it is verified")
	}
}

// What cannot be read is unknown: nothing is marked or distrusted, nothing is verified.
func TestUnreadableIsUnknown(t *testing.T) {
	for _, scope := range []string{"repository", "job"} {
		t.Run(scope, func(t *testing.T) {
			f := repotest.New(t)
			rev := backup(t, f, "vm1", noisy(20, 1, 0, 3, 20))
			path := f.Objects().Path(f.Chunks(rev)[1])
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o750)); err != nil { // read(2): EISDIR
				t.Fatal(err)
			}
			report := run(t, scopes(f)[scope])
			if len(report.Unknown) != 1 || len(report.Bad) != 0 || report.Damaged() || report.Clean() {
				t.Errorf("%+v", report)
			}
			if report.Oldest != nil {
				t.Error("all is said to be read")
			}
			trust(t, f, rev, "trusted")
			if marks, _ := f.Marks(); len(marks) > 0 {
				t.Errorf("marks: %v", marks)
			}
		})
	}
}

func TestWhoLiftsDistrust(t *testing.T) {
	for _, test := range []struct {
		why    string
		lift   bool
		source bool
		want   string
	}{
		{repo.WhyDamage, false, false, "verified"},
		{repo.WhyOperator, false, false, "distrusted operator"},
		{repo.WhyOperator, true, false, "verified"},
		{repo.WhyMap, true, false, "distrusted map"},
		{repo.WhySource, true, false, "distrusted source"},
		{repo.WhyMap, false, true, "verified"},
		{repo.WhySource, false, true, "verified"},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			f := repotest.New(t)
			d := noisy(20, 1, 0, 3, 20)
			rev := backup(t, f, "vm1", d)
			distrust(t, f, rev, test.why)
			rev.State = get(t, f, rev)
			o := options(f)
			o.Lift, o.Revisions = test.lift, []repo.Revision{rev}
			if test.source {
				o.Source, o.SourceName = d, "disk"
			}
			run(t, o)
			trust(t, f, rev, test.want)
			if get(t, f, rev).Checked.IsZero() {
				t.Error("that it was read is not noted")
			}
		})
	}
}

// Where the time is over, what was read counts, and nothing is verified that was not read.
func TestTimeIsOver(t *testing.T) {
	for _, scope := range []string{"repository", "job"} {
		f := repotest.New(t)
		rev := backup(t, f, "vm1", noisy(20, 1, 0, 3, 20))
		o := scopes(f)[scope]
		o.Limit = 2 * time.Second // the clock goes on by one whenever somebody looks
		report := run(t, o)
		if report.Complete || report.Clean() {
			t.Errorf("%+v", report)
		}
		trust(t, f, rev, "trusted")
		if scope == "job" {
			continue
		}
		runs := 1
		for o.Limit = 900 * time.Second; report.Oldest == nil && runs < 20; runs++ {
			report = run(t, o)
		}
		if runs < 3 || runs == 20 {
			t.Errorf("it took %d runs to come round", runs)
		}
	}
}

func TestHealFrom(t *testing.T) {
	f, g := repotest.New(t), repotest.New(t)
	d := noisy(3000, 1, 0, 3, 1025, 3000)
	rev := backup(t, f, "vm1", d)
	twin := backup(t, g, "vm1", d)
	chunks, pages := f.Chunks(rev), f.Pages(rev)
	f.Spoil(chunks[0], false)
	f.Spoil(chunks[1], true)
	f.Spoil(pages[2], true)
	f.Spoil(chunks[3], false)
	g.Spoil(chunks[3], false) // no good copy there either
	if twin.Root != rev.Root {
		t.Fatal("not the same")
	}
	o := options(f)
	o.HealFrom = g.Repo
	report := run(t, o)
	if len(report.Healed) != 3 || !report.Damaged() {
		t.Errorf("%+v", report)
	}
	trust(t, f, rev, "distrusted damage", at(3000, 1000))
	if marks, err := f.Marks(); len(marks) != 1 || !marks[chunks[3]] || err != nil {
		t.Errorf("marks: %v, %v", marks, err)
	}
	backup(t, g, "vm1", d)
	run(t, options(g))
	backup(t, g, "vm1", d)
	o.Share = 0 // what is known to be bad is healed without reading anything
	if report := run(t, o); len(report.Healed) != 1 || report.Objects != 0 {
		t.Errorf("%+v", report)
	}
	if report := run(t, options(f)); !report.Clean() {
		t.Errorf("%+v", report)
	}
	trust(t, f, rev, "verified")
	f.Want(rev, d)
}

// What was bad and is good again, whoever did that, loses its mark.
func TestGoodAgain(t *testing.T) {
	for _, scope := range []string{"repository", "job"} {
		f := repotest.New(t)
		rev := backup(t, f, "vm1", noisy(20, 1, 0, 3))
		for _, key := range append(f.Chunks(rev), f.Pages(rev)...) {
			if err := f.Mark(key, "it was said to be"); err != nil {
				t.Fatal(err)
			}
		}
		if report := run(t, scopes(f)[scope]); len(report.Healed) != 3 || len(report.Bad) != 0 {
			t.Errorf("%+v", report)
		}
		trust(t, f, rev, "verified")
	}
}

// A scrub that is ended halfway has marked what is bad up to where the next one begins, and calls nothing verified.
func TestEndedHalfway(t *testing.T) {
	f := repotest.New(t)
	rev := backup(t, f, "vm1", noisy(60, 1, first(60)...))
	for _, key := range f.Chunks(rev) {
		f.Spoil(key, false)
	}
	ctx, cancel := context.WithCancel(ctx)
	o := options(f)
	now, looks := o.Now, 0
	o.Now = func() time.Time {
		if looks++; looks == 2000 { // once for each of 4096 prefixes
			cancel()
		}
		return now()
	}
	var said bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&said, nil))
	if _, err := scrub.Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	cursor, err := f.ScrubCursor()
	marks, merr := f.Marks()
	if err = errors.Join(err, merr); err != nil {
		t.Fatal(err)
	}
	prefixes := cursor.Position / repo.ScrubUnit
	if prefixes < 1900 || prefixes > 2100 || cursor.Verified != (repo.ScrubCursor{}).Verified {
		t.Errorf("the next run begins at %d of 4096", prefixes)
	}
	for _, key := range f.Chunks(rev) {
		if passed := int64(key.Name[0])<<4|int64(key.Name[1])>>4 < prefixes; marks[key] != passed {
			t.Errorf("%s was passed: %v, is marked: %v", key, passed, marks[key])
		}
		if told := strings.Contains(said.String(), key.String()+" is bad: "); told != marks[key] {
			t.Errorf("%s is marked: %v, told of: %v", key, marks[key], told)
		}
	}
	o = options(f)
	o.Share = 0.5
	if report := run(t, o); len(report.Bad) != 60 {
		t.Errorf("%d are bad", len(report.Bad))
	}
	trust(t, f, rev, "distrusted damage", repo.Range{Length: 60 * block})
}

// What is missing from a revision that is forgotten meanwhile is nobody's loss.
func TestForgottenMeanwhile(t *testing.T) {
	f := repotest.New(t)
	rev := backup(t, f, "vm1", noisy(20, 1, 0, 3))
	list, _, _ := f.Job.List()
	f.Spoil(f.Chunks(rev)[0], true)
	if err := f.Job.Forget(ctx, []string{rev.ID}, repo.Guard{Force: true}); err != nil {
		t.Fatal(err)
	}
	o := options(f)
	o.Revisions = append(list, list...) // two, so that no session protects them
	if report := run(t, o); len(report.Bad)+len(report.Unknown) != 0 {
		t.Errorf("%+v", report)
	}
	if marks, _ := f.Marks(); len(marks) > 0 {
		t.Errorf("marks: %v", marks)
	}
}

// What is missing, and was needed by a revision alone that is forgotten, is nobody's loss any more, and not told of for ever.
func TestForgottenSince(t *testing.T) {
	f := repotest.New(t)
	d := noisy(20, 1, 0, 3)
	old := backup(t, f, "vm1", d)
	d.WriteAt(repotest.Noise(rand.New(rand.NewPCG(2, 2)), block), 0)
	rev := backup(t, f, "vm1", d)
	mine := f.Chunks(rev)
	key := f.Chunks(old)[slices.IndexFunc(f.Chunks(old), func(k object.Key) bool { return !slices.Contains(mine, k) })]
	f.Spoil(key, true)
	if report := run(t, options(f)); len(report.Bad) != 1 {
		t.Fatalf("%+v", report)
	}
	if err := f.Job.Forget(ctx, []string{old.ID}, repo.Guard{}); err != nil {
		t.Fatal(err)
	}
	if report := run(t, options(f)); !report.Clean() {
		t.Errorf("%+v", report)
	}
	if marks, _ := f.Marks(); len(marks) > 0 {
		t.Errorf("marks: %v", marks)
	}
}

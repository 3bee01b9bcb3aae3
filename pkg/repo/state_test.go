package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// made is a job with n revisions, a minute apart, and their ids, oldest first.
func made(t *testing.T, j *Job, n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		r, err := backup(t, j, "", content{fmt.Sprint("content ", i)}, WriterOptions{}, nil)
		ids = append(ids, must(t, r, err).ID)
	}
	return ids
}

func addTag(tag string) func(*State) error {
	return func(s *State) error {
		s.Tags = append(s.Tags, tag)
		return nil
	}
}

func distrust(s *State) error {
	s.Trust, s.Why = Distrusted, WhyOperator
	return nil
}

func left(t *testing.T, j *Job) []string {
	t.Helper()
	list, _, err := j.List()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	return ids
}

func TestChange(t *testing.T) {
	j := newJob(t)
	id := made(t, j, 1)[0]
	path := j.file(id + stateSuffix)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// What a newer version wrote stays.
	if err := os.WriteFile(path, append(text, "colour: green\n"...), 0o640); err != nil {
		t.Fatal(err)
	}
	// What a change that was killed left does not matter.
	if err := os.WriteFile(j.file("."+id+stateSuffix), []byte("half"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := j.Change(ctx, id, addTag("manual:x")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if want := strings.Replace(string(text), "[daily]", `[daily, "manual:x"]`, 1) + "colour: green\n"; err != nil || string(got) != want {
		t.Errorf("the state is\n%s, %v; want\n%s", got, err, want)
	}
	if list, err := filepath.Glob(j.file(".*")); err != nil || len(list) > 0 {
		t.Errorf("%v stayed", list)
	}

	// What fails changes nothing.
	refusal := errors.New("no")
	if err := j.Change(ctx, id, func(s *State) error { s.Tags[0] = "spoilt"; return refusal }); !errors.Is(err, refusal) {
		t.Error(err)
	}
	if err := j.Change(ctx, id, addTag("a b")); err == nil || !strings.Contains(err.Error(), `"a b" is no tag`) {
		t.Error(err)
	}
	if err := j.Change(ctx, id, func(s *State) error { s.Trust = "blind"; return nil }); err == nil || !strings.Contains(err.Error(), "would not be readable") {
		t.Error(err)
	}
	if err := j.Change(ctx, NewID(), addTag("x")); !errors.Is(err, ErrNoRevision) {
		t.Error(err)
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(got) {
		t.Errorf("a refused change made it\n%s", again)
	}

	// A state that cannot be read is not made up.
	if err := os.WriteFile(path, []byte("format: 1\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := j.Change(ctx, id, addTag("x")); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Error(err)
	}
}

// Of changes at once, none is lost.
func TestChangesAtOnce(t *testing.T) {
	j := newJob(t)
	id := made(t, j, 1)[0]
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			if err := j.Change(ctx, id, addTag(fmt.Sprint("manual:", i))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	r, err := j.Get(id)
	if must(t, r, err); len(r.State.Tags) != 11 {
		t.Errorf("the tags are %v", r.State.Tags)
	}
}

// Who waits for the lock in vain is told who has it.
func TestChangeLocked(t *testing.T) {
	j := newJob(t)
	id := made(t, j, 1)[0]
	lock, err := j.repo.lock(lockName(j.Name, "state"), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	err = j.Change(short, id, addTag("x"))
	if held := (*HeldError)(nil); !errors.As(err, &held) || !strings.Contains(err.Error(), fmt.Sprintf("the state of vm1 is locked by %s", whoami())) {
		t.Error(err)
	}
}

// What may be forgotten. Revisions are 0 the oldest to 3 the newest.
func TestForget(t *testing.T) {
	type prepare func(t *testing.T, j *Job, ids []string)
	change := func(at int, f func(*State) error) prepare {
		return func(t *testing.T, j *Job, ids []string) {
			if err := j.Change(ctx, ids[at], f); err != nil {
				t.Fatal(err)
			}
		}
	}
	protect := func(s *State) error { s.Protected = true; return nil }
	spoil := func(at int, suffix string) prepare {
		return func(t *testing.T, j *Job, ids []string) {
			if err := os.WriteFile(j.file(ids[at]+suffix), []byte("x"), 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		prepare []prepare
		forget  []int
		minAge  time.Duration
		refused string // "": it works
		force   bool   // then it works by force
	}{
		{name: "one", forget: []int{1}},
		{name: "all but one", forget: []int{3, 0, 1}},
		{name: "none"},
		{name: "the last ones", forget: []int{0, 1, 2, 3}, refused: "revisions of vm1: none would be left", force: true},
		{name: "a protected one", prepare: []prepare{change(1, protect)}, forget: []int{0, 1}, refused: "it is protected; unprotect it first"},
		{name: "beside a protected one", prepare: []prepare{change(1, protect)}, forget: []int{0}},
		{name: "the last good one", prepare: []prepare{change(1, distrust), change(0, distrust), change(2, distrust)}, forget: []int{3}, refused: "no good one would be left, only distrusted ones", force: true},
		{name: "a distrusted one", prepare: []prepare{change(1, distrust)}, forget: []int{1}},
		{name: "of distrusted ones", prepare: []prepare{change(0, distrust), change(1, distrust), change(2, distrust), change(3, distrust)}, forget: []int{1}},
		{name: "a young one", minAge: time.Hour, forget: []int{2}, refused: "it is only 1m0s old, and the job keeps all that is younger than 1h", force: true},
		{name: "old enough", minAge: 30 * time.Second, forget: []int{2}},
		{name: "one without a state", prepare: []prepare{spoil(1, stateSuffix)}, forget: []int{1}, refused: "its state cannot be read, so it may be protected", force: true},
		{name: "one that cannot be read", prepare: []prepare{spoil(1, revSuffix)}, forget: []int{1}, refused: "it cannot be read", force: true},
		{name: "a good one beside unreadable ones", prepare: []prepare{spoil(0, revSuffix), spoil(1, stateSuffix), spoil(2, revSuffix)}, forget: []int{3}, refused: "no good one would be left", force: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := newJob(t)
			ids := made(t, j, 4)
			for _, p := range tt.prepare {
				p(t, j, ids)
			}
			var gone, stay []string
			for i, id := range ids {
				if slices.Contains(tt.forget, i) {
					gone = append(gone, id)
				} else {
					stay = append(stay, id)
				}
			}
			err := j.Forget(ctx, gone, Guard{MinAge: tt.minAge})
			if tt.refused != "" {
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Force != tt.force || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("%v; want %s", err, tt.refused)
				}
				for _, id := range ids {
					if _, err := os.Lstat(j.file(id + revSuffix)); err != nil {
						t.Fatal(err)
					}
				}
				if err = j.Forget(ctx, gone, Guard{MinAge: tt.minAge, Force: true}); !tt.force {
					if err == nil {
						t.Fatal("force helps")
					}
					return
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				_, rev := os.Lstat(j.file(id + revSuffix))
				_, state := os.Lstat(j.file(id + stateSuffix))
				if want := slices.Contains(stay, id); (rev == nil) != want || (state == nil) != want {
					t.Errorf("%s: %v, %v", id, rev, state)
				}
			}
		})
	}
}

// A clock that is behind makes revisions young, not old.
func TestForgetAheadOfClock(t *testing.T) {
	j := newJob(t)
	ids := made(t, j, 2)
	j.repo.Now = func() time.Time { return start.Add(-24 * time.Hour) }
	err := j.Forget(ctx, ids[:1], Guard{MinAge: time.Second})
	if err == nil || !strings.Contains(err.Error(), "ahead of the clock") {
		t.Error(err)
	}
}

// One that is not there, or is refused, keeps the others from being forgotten.
func TestForgetAllOrNone(t *testing.T) {
	j := newJob(t)
	ids := made(t, j, 3)
	if err := j.Forget(ctx, []string{ids[0], NewID()}, Guard{}); !errors.Is(err, ErrNoRevision) {
		t.Error(err)
	}
	if got := left(t, j); !slices.Equal(got, ids) {
		t.Errorf("%v are left of %v", got, ids)
	}
	if err := j.Forget(ctx, append(ids[:2:2], ids[0]), Guard{}); err != nil { // twice is as good as once
		t.Error(err)
	}
	if got := left(t, j); !slices.Equal(got, ids[2:]) {
		t.Errorf("%v are left of %v", got, ids)
	}
}

// A state is durable before it takes the old one's place; a .rev is gone for good before its state goes, for what has no
// state might be protected.
func TestDurableOrder(t *testing.T) {
	j := newJob(t)
	ids := made(t, j, 2)
	failure := errors.New("the disk is gone")
	exists := func(id, suffix string) bool { _, err := os.Lstat(j.file(id + suffix)); return err == nil }

	before, _ := os.ReadFile(j.file(ids[0] + stateSuffix))
	j.repo.Ops.Fdatasync = func(f *os.File) error {
		if now, _ := os.ReadFile(j.file(ids[0] + stateSuffix)); string(now) != string(before) {
			t.Error("the state is in place before it is durable")
		}
		return failure
	}
	if err := j.Change(ctx, ids[0], addTag("x")); !errors.Is(err, failure) {
		t.Error(err)
	}
	j.repo.Ops.Fdatasync = nil
	if now, _ := os.ReadFile(j.file(ids[0] + stateSuffix)); string(now) != string(before) {
		t.Error("a state that is not durable took the old one's place")
	}

	synced := 0
	j.repo.Ops.FsyncDir = func(d *os.File) error {
		if d.Name() != j.Dir() {
			t.Errorf("fsync of %s", d.Name())
		}
		synced++
		return nil
	}
	if err := j.Change(ctx, ids[0], addTag("x")); err != nil || synced != 1 {
		t.Errorf("%v; %d fsyncs of the job's directory", err, synced)
	}

	j.repo.Ops.FsyncDir = func(*os.File) error {
		if exists(ids[0], revSuffix) || !exists(ids[0], stateSuffix) {
			t.Error("the .rev has to be gone, and the .state to be there, until that is durable")
		}
		return failure
	}
	if err := j.Forget(ctx, ids[:1], Guard{}); !errors.Is(err, failure) {
		t.Error(err)
	}
	if !exists(ids[0], stateSuffix) {
		t.Error("the state is gone although the .rev may come back")
	}
}

// On a full disk, states can be changed and revisions be forgotten: the reserve is given up for that, and set aside again
// as soon as there is space.
func TestFullDisk(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4", "btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) { testFullDisk(t, small(t, kind)) })
	}
}

// small mounts a small disk.
func small(t *testing.T, kind string) string {
	t.Helper()
	mount := t.TempDir()
	if kind == "tmpfs" {
		if err := unix.Mount("backy-test", mount, kind, 0, "size=128m"); err != nil {
			t.Skipf("mount a small disk: %v", err)
		}
	} else {
		mkfs, err := exec.LookPath("mkfs." + kind)
		if err != nil || os.Getuid() != 0 {
			t.Skipf("%v, or not root", err)
		}
		image := filepath.Join(t.TempDir(), "image")
		f, err := os.Create(image)
		if err == nil {
			err = errors.Join(f.Truncate(map[string]int64{"ext4": 64 << 20, "btrfs": 128 << 20, "xfs": 320 << 20}[kind]), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", mkfs, err, out)
		}
		if out, err := exec.Command("mount", "-o", "loop", image, mount).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	return mount
}

func testFullDisk(t *testing.T, mount string) {
	r, err := Init(filepath.Join(mount, "base"), MinBlock, world())
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.Job("vm1")
	if err != nil {
		t.Fatal(err)
	}
	ids := made(t, j, 3)
	size := func() int64 {
		i, err := os.Stat(r.path("reserve"))
		if err != nil {
			t.Fatal(err)
		}
		return i.Size()
	}
	whole := size()
	if whole == 0 {
		t.Fatal("there is no reserve")
	}
	ballast := filepath.Join(mount, "ballast")
	fill(t, ballast)
	if err := os.WriteFile(filepath.Join(mount, "more"), make([]byte, 8192), 0o640); !NoSpace(err) {
		t.Fatalf("the disk is not full: %v", err)
	}

	for i := range 20 {
		if err := j.Change(ctx, ids[0], addTag(fmt.Sprint("manual:", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Forget(ctx, ids[1:2], Guard{}); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Get(ids[0]); err != nil || len(got.State.Tags) != 21 {
		t.Errorf("%v, %v", got.State.Tags, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := r.Ops.DirPath(mount); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		t.Fatal(err)
	}
	if err := j.Change(ctx, ids[0], addTag("manual:end")); err != nil {
		t.Fatal(err)
	}
	if got := size(); got != whole {
		t.Errorf("the reserve has %d bytes, want %d", got, whole)
	}
}

// fill writes until nothing more fits, down to the last block.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for piece := make([]byte, size); err == nil; {
			_, err = f.Write(piece)
		}
		if !NoSpace(err) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := f.Sync(); err != nil && !NoSpace(err) {
		t.Fatal(err)
	}
}

// While somebody has the reserve open, another who closes it does not take the space away again.
func TestReserveShared(t *testing.T) {
	j := newJob(t)
	size := func() int64 {
		i, err := os.Stat(j.repo.path("reserve"))
		if err != nil {
			t.Fatal(err)
		}
		return i.Size()
	}
	whole := size()
	first, second := j.repo.OpenReserve(), j.repo.OpenReserve()
	tries := 0
	if err := first.Do(func() error { tries++; return map[int]error{1: unix.ENOSPC}[tries] }); err != nil || tries != 2 || !first.Given() || size() != 0 {
		t.Errorf("%v after %d tries, the reserve has %d bytes", err, tries, size())
	}
	if err := first.Close(); err != nil || size() != 0 {
		t.Errorf("%v, and the reserve has %d bytes", err, size())
	}
	if err := second.Do(func() error { return fmt.Errorf("x: %w", unix.ENOSPC) }); !NoSpace(err) || !strings.Contains(err.Error(), "is full, and the reserve did not help") {
		t.Error(err)
	}
	if err := second.Close(); err != nil || size() != whole {
		t.Errorf("%v, and the reserve has %d bytes, want %d", err, size(), whole)
	}
	// Where somebody removed it, it is made again.
	if err := os.Remove(j.repo.path("reserve")); err != nil {
		t.Fatal(err)
	}
	none := j.repo.OpenReserve()
	if err := none.Do(func() error { return fs.ErrExist }); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if err := none.Close(); err != nil || size() != whole {
		t.Errorf("%v, and the reserve has %d bytes, want %d", err, size(), whole)
	}
}

// A base that is distrusted while a backup builds on it makes the backup's revision distrusted too.
func TestDoubtIsInherited(t *testing.T) {
	j := newJob(t)
	id := made(t, j, 1)[0]
	r, err := backup(t, j, id, content{"other"}, WriterOptions{}, func(*Writer) {
		if err := j.Change(ctx, id, distrust); err != nil {
			t.Fatal(err)
		}
	})
	if must(t, r, err); r.FitBase() || r.State.Why != WhyOperator {
		t.Errorf("the state is %+v", r.State)
	}
	if r, err = j.Get(r.ID); must(t, r, err).FitBase() {
		t.Errorf("the state on disk is %+v", r.State)
	}
}

// However much is damaged, a state can be read again, and says no less than is damaged.
func TestMuchDamage(t *testing.T) {
	s := State{Tags: []string{}, Trust: Distrusted, Why: WhyDamage}
	for i := range int64(100001) {
		s.Damage = append(s.Damage, Range{i << 30, 1 << 22})
	}
	got, err := ParseState(s.Bytes())
	if err != nil || len(got.Damage) > maxRanges {
		t.Fatalf("%d ranges, %v", len(got.Damage), err)
	}
	at := 0
	for _, r := range s.Damage {
		for got.Damage[at].Offset+got.Damage[at].Length < r.Offset+r.Length {
			at++
		}
		if got.Damage[at].Offset > r.Offset {
			t.Fatalf("%v is left out", r)
		}
	}
}

// What reads as a state or a revision is written so that it reads as the same; however it comes, it is read or refused.
func FuzzState(f *testing.F) {
	f.Add(State{Tags: []string{"daily", "manual:x"}, Trust: Distrusted, Why: WhyDamage, Protected: true, Damage: []Range{{0, 1 << 22}}}.Bytes())
	f.Add(State{Tags: []string{}, Trust: Trusted}.Bytes())
	f.Add(Revision{ID: NewID(), Time: start, Block: MinBlock, Read: ReadFull, Duration: time.Second}.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := ParseState(text); err == nil && len(s.Damage) <= maxRanges {
			once := s.Bytes()
			again, err := ParseState(once)
			if err != nil || string(again.Bytes()) != string(once) {
				t.Fatalf("%q became %q, %v", text, once, err)
			}
		}
		if r, err := ParseRevision(text); err == nil {
			once := r.Bytes()
			again, err := ParseRevision(once)
			if err != nil || string(again.Bytes()) != string(once) {
				t.Fatalf("%q became %q, %v", text, once, err)
			}
		}
	})
}

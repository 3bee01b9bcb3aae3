package repo

import (
	"errors"
	"os"
	"testing"

	"backy/pkg/object"
	"backy/pkg/object/objecttest"
)

func TestBadObjectsAreHealed(t *testing.T) {
	j := newJob(t)
	first, err := backup(t, j, "", content{"a", "b", "c"}, WriterOptions{}, nil)
	first = must(t, first, err)
	key, _ := objecttest.Object(t, object.Chunk, "b", MinBlock)
	if err := os.WriteFile(j.repo.pool.Path(key), []byte("rotten"), 0o640); err != nil {
		t.Fatal(err)
	}
	var again *AgainError
	if err := j.repo.MarkBad(&object.BadError{Key: key, Reason: "rotten"}, object.Key{}); !errors.As(err, &again) {
		t.Errorf("mark: %v", err)
	}
	second, err := backup(t, j, first.ID, content{"a", "b", "c", "d"}, WriterOptions{}, nil)
	whole(t, j, must(t, second, err))
	whole(t, j, first)
	if marks, err := j.repo.Marks(); err != nil || len(marks) != 0 {
		t.Errorf("marks left: %v, %v", marks, err)
	}
	if second.State.Trust != Trusted {
		t.Errorf("second is %s", second.State.Trust)
	}
}

// What is found bad while a backup is under way is healed by it where it sends a copy, and never reused where it does not.
func TestFoundBadMeanwhile(t *testing.T) {
	rot := func(j *Job, word string) {
		key, _ := objecttest.Object(t, object.Chunk, word, MinBlock)
		if err := errors.Join(os.WriteFile(j.repo.pool.Path(key), []byte("rotten"), 0o640), j.repo.Mark(key, "rotten")); err != nil {
			t.Fatal(err)
		}
	}
	j := newJob(t)
	first, err := backup(t, j, "", content{"a", "unsent b"}, WriterOptions{}, func(w *Writer) {
		key, frame := objecttest.Object(t, object.Chunk, "unsent b", MinBlock)
		if err := w.Put(ctx, key, frame); err != nil {
			t.Fatal(err)
		}
	})
	first = must(t, first, err)

	// The one that is sent is marked before it comes, as backy-chunk does it: the copy is taken.
	_, err = backup(t, j, "", content{"unsent b"}, WriterOptions{}, func(w *Writer) {
		rot(j, "a")
		key, frame := objecttest.Object(t, object.Chunk, "a", MinBlock)
		if err := w.Put(ctx, key, frame); err != nil {
			t.Fatal(err)
		}
	})
	if marks, merr := j.repo.Marks(); errors.Join(err, merr) != nil || len(marks) != 0 {
		t.Errorf("marks left: %v, %v, %v", marks, err, merr)
	}
	whole(t, j, first)

	// The one that is not sent is marked by somebody else: the commit does not count on it.
	_, err = backup(t, j, "", content{"unsent b"}, WriterOptions{}, func(*Writer) { rot(j, "unsent b") })
	if again := (*AgainError)(nil); !errors.As(err, &again) {
		t.Errorf("it was committed with what is bad: %v", err)
	}

	// One that this session stored itself and that somebody missed before it was there is good.
	key, _ := objecttest.Object(t, object.Chunk, "c", MinBlock)
	third, err := backup(t, j, "", content{"c"}, WriterOptions{}, func(*Writer) {
		if err := j.repo.Mark(key, "it is missing"); err != nil {
			t.Fatal(err)
		}
	})
	if third = must(t, third, err); third.State.Trust != Trusted {
		t.Errorf("third is %+v", third.State)
	}
	whole(t, j, third)
	if marks, err := j.repo.Marks(); err != nil || marks[key] {
		t.Errorf("marks left: %v, %v", marks, err)
	}
}

// A commit that inherits a bad name all the same says where.
func TestInheritedDamage(t *testing.T) {
	j := newJob(t)
	first, err := backup(t, j, "", content{"a", "b", "b", "c"}, WriterOptions{}, nil)
	first = must(t, first, err)
	key, _ := objecttest.Object(t, object.Chunk, "b", MinBlock)
	if err := j.repo.Mark(key, "rotten"); err != nil {
		t.Fatal(err)
	}
	w, err := j.NewWriter(WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Begin(first.ID, first.Root, MinBlock); err != nil {
		t.Fatal(err)
	}
	same := first
	same.ID = NewID()
	got, err := w.Commit(ctx, same, nil, quiet)
	got = must(t, got, err)
	if len(got.State.Damage) != 1 || got.State.Damage[0] != (Range{MinBlock, 2 * MinBlock}) || got.State.Trust != Distrusted || !got.FitBase() {
		t.Errorf("state %+v", got.State)
	}
}

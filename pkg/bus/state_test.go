package bus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWithoutStreams(t *testing.T) {
	dir, b := base(t)
	for _, name := range []string{EventStream, DueStream} {
		if err := b.js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	url, token, _ := Local(dir)
	c, err := Connect(t.Context(), url, token, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for e, err := range c.Events(t.Context(), EventFilter{}) {
		if err == nil || !strings.Contains(err.Error(), "was a scheduler started with it") {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if err := c.Check(t.Context()); err == nil {
		t.Error("nothing is missing")
	}
	if err := b.Publish(t.Context(), committed("vm1", "R1")); err == nil {
		t.Error("it is kept nowhere")
	}
}

func TestStateIsLost(t *testing.T) {
	dir, b := base(t)
	state := filepath.Join(dir, ".backy", "nats")
	publish(t, b, committed("vm1", "R1"))
	if err := os.RemoveAll(filepath.Join(state, "jetstream")); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("%v", err)
	}
	b.Close()
	b = openAt(t, state)
	if err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
	want(t, all(t, b, EventFilter{}))
	publish(t, b, committed("vm1", "R1"))
	handled(t, b, Consumer{Name: "callback"}, 1, "R1")
}

func TestStateIsDamaged(t *testing.T) {
	for _, pattern := range []string{"*.blk", "meta.inf", "meta.sum", "index.db", "o.dat", "*"} {
		for _, before := range []int{2, 10} { // how many were handled before
			for how, damage := range map[string]func([]byte) []byte{"flipped": flip, "cut off": halve, "emptied": clearAll} {
				t.Run(fmt.Sprintf("%s %s after %d", pattern, how, before), func(t *testing.T) { damaged(t, pattern, before, damage) })
			}
		}
	}
}

func flip(text []byte) []byte {
	for i := len(text) / 3; i < len(text)*2/3; i++ {
		text[i] ^= 0x55
	}
	return text
}

func halve(text []byte) []byte { return text[:len(text)/2] }
func clearAll([]byte) []byte   { return nil }

func damaged(t *testing.T, pattern string, before int, damage func([]byte) []byte) {
	dir := t.TempDir()
	b := openAt(t, dir)
	var ids []string
	for i := range 10 {
		ids = append(ids, fmt.Sprint("R", i))
		publish(t, b, committed("vm1", ids[i]))
	}
	c := Consumer{Name: "callback", Wait: time.Hour} // so that nothing comes twice here
	handled(t, b, c, before, ids[:before]...)
	c.Wait = 100 * time.Millisecond
	b.Close()
	files := find(t, filepath.Join(dir, "jetstream"), pattern)
	if len(files) == 0 {
		t.Fatal("there is no such file")
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, damage(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	b, log := openLogged(t, dir)
	kept := all(t, b, EventFilter{})
	if said := log.String(); !strings.Contains(said, "was damaged") && len(kept) < 10 {
		t.Errorf("%d of 10 are kept, and it says %q", len(kept), said)
	}
	ids = append(ids, "R10")
	for _, id := range ids {
		publish(t, b, committed("vm1", id))
	}
	if got := all(t, b, EventFilter{}); len(got) != len(ids) {
		t.Errorf("when all were told again, there are %q", got)
	}
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	seen := map[string]bool{}
	if err := b.Consume(ctx, c, func(_ context.Context, d Delivery) error {
		if seen[d.ID] = true; !slices.ContainsFunc(ids[before:], func(id string) bool { return !seen[id] }) {
			done()
		}
		return nil
	}); err != nil || context.Cause(ctx) != context.Canceled {
		t.Errorf("the consumer got %v: %v\n%s", seen, err, log.String())
	}
}

func find(t *testing.T, dir, pattern string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if ok, _ := filepath.Match(pattern, filepath.Base(path)); ok && err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

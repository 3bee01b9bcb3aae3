package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"backy/pkg/app"
	"backy/pkg/chunk"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/restore"
	"backy/pkg/store"
)

// backup makes two revisions of a job by the real stages, with blocks of 256 KiB: first "aaa", then "ab-".
func backup(t *testing.T) (dir string, r *repo.Repo) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := repo.Init(t.TempDir(), repo.MinBlock, repo.World{Now: time.Now})
	must(err)
	job, err := r.Job("vm1")
	must(err)
	for i, letters := range []string{"aaa", "ab"} {
		var extents, objects bytes.Buffer
		w, err := extent.NewWriter(&extents, extent.Header{Size: 3 * repo.MinBlock})
		must(err)
		for i, c := range letters {
			must(w.Data(int64(i)*repo.MinBlock, bytes.Repeat([]byte{byte(c)}, repo.MinBlock)))
		}
		must(w.Close())
		quiet := slog.New(slog.DiscardHandler)
		must(chunk.Run(context.Background(), chunk.Options{In: &extents, Out: &objects, Repo: r, Job: "vm1", Now: time.Now, Log: quiet}))
		_, err = store.Run(context.Background(), store.Options{In: &objects, Repo: r, Job: job, Tags: []string{[]string{"old", "new"}[i]}, Log: quiet})
		must(err)
	}
	return job.Dir(), r
}

// call runs the command; what it says comes back.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	file := func(name string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	text := func(f *os.File) string {
		f.Seek(0, io.SeekStart)
		b, _ := io.ReadAll(f)
		return string(b)
	}
	out, err := file("out"), file("err")
	code = app.Run(context.Background(), command, app.Process{Args: append([]string{"backy-restore"}, args...), Stdin: file("in"), Stdout: out, Stderr: err, Now: time.Now})
	return code, text(out), text(err)
}

func disk(letters string) string {
	b := ""
	for _, c := range letters {
		if c == '-' {
			c = 0
		}
		b += strings.Repeat(string(c), repo.MinBlock)
	}
	return b
}

func TestCommand(t *testing.T) {
	dir, r := backup(t)
	at := func(name string) string { return filepath.Join(filepath.Dir(dir), name) }
	content := func(name string) string { b, _ := os.ReadFile(at(name)); return string(b) }
	full := strings.Repeat("\xff", 3*repo.MinBlock)
	os.WriteFile(at("small"), []byte("small"), 0o600)
	os.WriteFile(at("full"), []byte(full), 0o600)

	step := func(want int, says string, args ...string) (stdout string) {
		t.Helper()
		code, out, err := call(t, append([]string{"-b", dir}, args...)...)
		if code != want || !strings.Contains(err, says) {
			t.Fatalf("%s: exit code %d, want %d; %s", strings.Join(args, " "), code, want, err)
		}
		return out
	}
	step(0, "restored to "+at("new"), at("new"))
	step(1, "exists already", at("new"))
	step(1, "has 5 bytes, too few", "--force", at("small"))
	step(0, "", at("new"), "--force", "-r", "old") // flags may follow
	if content("new") != disk("aaa") || content("small") != "small" {
		t.Error("other content than was restored last, or a target written to that was refused")
	}
	step(0, "", "-r1", "-f", at("full"))
	if content("full") != disk("aaa") {
		t.Error("revision 1 is not what was restored")
	}
	if out := step(0, "", "-"); out != disk("ab-") {
		t.Error("the newest revision is not on standard output")
	}
	out := step(0, "", "--diff", "--from", "old")
	d, err := extent.NewReader(strings.NewReader(out))
	if err != nil || d.Header().From == "" || len(out) < repo.MinBlock || len(out) > repo.MinBlock+200 {
		t.Errorf("diff: %d bytes, %v", len(out), err)
	}
	step(0, "to check it", "--check")
	step(1, "no such revision", "-r", "nosuch", "--check")

	// All that holds b is gone.
	os.Remove(r.Objects().Path(object.Key{Kind: object.Chunk, Name: object.Sum([]byte(disk("b")))}))
	step(0, "", "--check", "-r", "old")
	listed := "damaged: 262144 bytes from byte 262144 on: chunks/"
	step(3, listed, "--check")
	os.WriteFile(at("full"), []byte(full), 0o600)
	step(3, "are left as they were", "--force", "--keep", at("full"))
	if content("full") != disk("a")+full[:repo.MinBlock]+disk("-") {
		t.Error("--keep has not kept what was there")
	}
	step(3, "are zeroes", "--force", at("full"))
	if content("full") != disk("a--") {
		t.Error("what is damaged is not zero")
	}
	var report restore.Report
	if err := json.Unmarshal([]byte(step(3, listed, "--json", at("newer"))), &report); err != nil || len(report.Damage) != 1 || report.Damage[0].Range != (repo.Range{Offset: 262144, Length: 262144}) {
		t.Errorf("%+v, %v", report, err)
	}
	step(1, "was left without its end", "--diff")
	step(3, "are left out", "--diff", "--keep")
	step(3, "", "-")
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"":                "TARGET is missing",
		"a b":             "unexpected argument",
		"--check x":       "leave --diff and TARGET away",
		"--check --diff":  "leave --diff and TARGET away",
		"--check --force": "are about a TARGET",
		"--check --keep":  "--keep is about",
		"--diff x":        "say > x",
		"--from last x":   "--from goes with --diff",
		"--sparse -":      "are about a TARGET",
		"--force --diff":  "are about a TARGET",
		"--keep -":        "--keep is about",
		"--json -":        "both go to standard output",
		"--json --diff":   "both go to standard output",
		"--memory x y":    "no size",
		"--no-such-flag":  "not known",
		"-r":              "needs a value",
	} {
		if code, _, err := call(t, strings.Fields(args)...); code != 2 || !strings.Contains(err, want) {
			t.Errorf("%s: exit code %d; %s", args, code, err)
		}
	}
	dir, _ := backup(t)
	for args, want := range map[string]string{
		"--check -b /":                             "no repository here",
		"--check -b " + filepath.Dir(dir):          "base directory",
		"--check -b " + filepath.Dir(dir) + "/vm2": "has none yet",
		"-b " + dir + " nosuch:x":                  "no kind of disk",
		"-b " + dir + " rbd:x/y":                   "no support",
		"-b " + dir + " -f /dev/null":              "neither an image file nor a block device",
		"-b " + dir + " /nosuch/new.img":           "no such file or directory",
	} {
		if code, _, err := call(t, strings.Fields(args)...); code == 0 || code == 3 || !strings.Contains(err, want) {
			t.Errorf("%s: exit code %d; %s", args, code, err)
		}
	}
	code, out, _ := call(t, "--help")
	for _, word := range []string{"--diff", "--from", "--check", "--keep", "--sparse", "--force", "-r, --revision", "Examples:", "Exit codes:"} {
		if code != 0 || !strings.Contains(out, word) {
			t.Errorf("help: exit code %d, without %q", code, word)
		}
	}
}

package byhand

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"backy/pkg/object"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

const block = repotest.Block

// disk is one of 1300 blocks, more than a page has lines, that ends inside a block: data, holes, equal blocks.
func disk() *repotest.Disk {
	r := rand.New(rand.NewPCG(3, 4))
	d := repotest.NewDisk(1300*block - 1000)
	same := repotest.Noise(r, block)
	for b := int64(0); b < 1300; b += 1 + r.Int64N(30) {
		n := min(block, d.Size()-b*block)
		content := repotest.Noise(r, n)
		if b%5 == 0 {
			content = same[:n]
		}
		d.WriteAt(content, b*block)
	}
	d.WriteAt([]byte("the end"), d.Size()-7)
	return d
}

// script runs restore.sh on a revision and returns its exit code and what it said.
func script(t *testing.T, f *repotest.Fixture, rev repo.Revision, target string) (code int, said string) {
	t.Helper()
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("no zstd here")
	}
	out, err := exec.Command("../../scripts/restore.sh", filepath.Join(f.Job.Dir(), rev.ID+".rev"), target).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

// loop makes a block device of a file that holds content.
func loop(t *testing.T, content []byte) (device, behind string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no loop devices")
	}
	behind = filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(behind, content, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", behind).Output()
	if err != nil {
		t.Skipf("no loop devices here: losetup: %v", err)
	}
	device = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v: %s", device, err, out)
		}
	})
	return device, behind
}

// want compares a file with the disk, whose lost blocks are zero.
func want(t *testing.T, path string, d *repotest.Disk, lost ...int64) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	expected := make([]byte, d.Size())
	d.ReadAt(expected, 0)
	for _, b := range lost {
		clear(expected[b*block : min((b+1)*block, d.Size())])
	}
	if !bytes.Equal(got, expected) {
		t.Errorf("%s is another disk: %d bytes, want %d", path, len(got), len(expected))
	}
}

func TestRestore(t *testing.T) {
	f, d := repotest.New(t), disk()
	target := filepath.Join(t.TempDir(), "new.img")
	rev := f.Backup(d)
	if code, said := script(t, f, rev, target); code != 0 || said != "" {
		t.Errorf("exit code %d: %s", code, said)
	}
	want(t, target, d)
	if code, said := script(t, f, rev, target); code != 1 || !strings.Contains(said, "want a new file") {
		t.Errorf("over a file: exit code %d: %s", code, said)
	}
	if code, _ := script(t, f, repo.Revision{ID: "none"}, target+"2"); code != 1 {
		t.Errorf("no revision: exit code %d", code)
	}
}

// A device is written over, zeroes too, up to the end of the disk and no further, wherever the disk ends in its last block.
func TestRestoreToDevice(t *testing.T) {
	for name, write := range map[string]func(d *repotest.Disk){
		"data at both ends":   func(d *repotest.Disk) { d.WriteAt([]byte("begin"), 0); d.WriteAt([]byte("end"), d.Size()-3) },
		"zeroes at both ends": func(d *repotest.Disk) { d.WriteAt([]byte("middle"), 2*block) },
		"nothing":             func(*repotest.Disk) {},
	} {
		for _, size := range []int64{5 * block, 5*block + 1000} {
			t.Run(fmt.Sprint(name, " of ", size), func(t *testing.T) {
				f, d := repotest.New(t), repotest.NewDisk(size)
				write(d)
				full := bytes.Repeat([]byte{0xff}, 6*block)
				device, behind := loop(t, full)
				code, said := script(t, f, f.Backup(d), device)
				if code != 0 || said != "" {
					t.Errorf("exit code %d: %s", code, said)
				}
				got, err := os.ReadFile(behind)
				if err != nil {
					t.Fatal(err)
				}
				d.ReadAt(full[:size], 0)
				if !bytes.Equal(got, full) {
					t.Error("the device has something else")
				}
			})
		}
	}
}

// What purge has on its way is found there.
func TestRestoreFromLimbo(t *testing.T) {
	f, d := repotest.New(t), disk()
	rev := f.Backup(d)
	for i, key := range append(f.Chunks(rev)[:20], f.Pages(rev)...) {
		to := filepath.Join(f.Base, repo.Dot, "limbo", fmt.Sprint(1+i%2), filepath.FromSlash(key.String()))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o750), os.Rename(f.Objects().Path(key), to)); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(t.TempDir(), "new.img")
	if code, said := script(t, f, rev, target); code != 0 {
		t.Errorf("exit code %d: %s", code, said)
	}
	want(t, target, d)
}

// Past damage of every kind: what is lost is told as ranges, and all else comes back.
func TestRestorePastDamage(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"missing":   os.Remove,
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"shortened": func(path string) error { return os.Truncate(path, 500) },
		"flipped": func(path string) error {
			b, err := os.ReadFile(path)
			if err == nil {
				b[len(b)/2] ^= 1
				err = os.WriteFile(path, b, 0o640)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := repotest.New(t), disk()
			rev := f.Backup(d)
			content := make([]byte, block)
			var lost []int64
			key := f.Chunks(rev)[7]
			for b := int64(0); b*block < d.Size(); b++ {
				clear(content)
				d.ReadAt(content, b*block)
				if object.Sum(content) == key.Name {
					lost = append(lost, b)
				}
			}
			if err := harm(f.Objects().Path(key)); err != nil || len(lost) == 0 {
				t.Fatal(err, lost)
			}
			target := filepath.Join(t.TempDir(), "new.img")
			code, said := script(t, f, rev, target)
			if code != 3 {
				t.Errorf("exit code %d: %s", code, said)
			}
			for _, b := range lost {
				if !strings.Contains(said, fmt.Sprintf("damaged: %d+", b*block)) {
					t.Errorf("block %d is not told of: %s", b, said)
				}
			}
			want(t, target, d, lost...)
		})
	}
}

func TestRestoreWithoutAPage(t *testing.T) {
	f, d := repotest.New(t), disk()
	rev := f.Backup(d)
	for _, key := range f.Pages(rev) {
		if key.Name == rev.Root {
			continue
		}
		f.Spoil(key, true) // both of the lowest level: the whole disk
	}
	target := filepath.Join(t.TempDir(), "new.img")
	code, said := script(t, f, rev, target)
	if code != 3 || !strings.Contains(said, fmt.Sprintf("damaged: 0+%d", 1024*block)) || !strings.Contains(said, fmt.Sprintf("damaged: %d+%d", 1024*block, d.Size()-1024*block)) {
		t.Errorf("exit code %d: %s", code, said)
	}
	want(t, target, repotest.NewDisk(d.Size()))
}

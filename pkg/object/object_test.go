package object

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"backy/pkg/keyval"
)

func TestKeys(t *testing.T) {
	name := Sum([]byte("x"))
	for _, kind := range Kinds {
		key := Key{kind, name}
		if got, err := ParseKey(key.String()); err != nil || got != key {
			t.Errorf("%s came back as %s, %v", key, got, err)
		}
	}
	hex := name.String()
	for _, s := range []string{
		"", "chunks", "chunks/", hex, "chunks/" + hex + ".zst", "chunks/000/" + hex + ".zst", "other/" + hex[:3] + "/" + hex + ".zst",
		"chunks/" + hex[:3] + "/" + hex, "chunks/" + hex[:3] + "/" + strings.ToUpper(hex) + ".zst", "../chunks/" + hex[:3] + "/" + hex + ".zst",
		"chunks/" + hex[:3] + "/../" + hex + ".zst", "chunks/" + hex[:3] + "/" + hex + ".zst.zst",
	} {
		if key, err := ParseKey(s); err == nil {
			t.Errorf("%q was taken as %s", s, key)
		}
	}
}

func frame(t testing.TB, content []byte) []byte {
	t.Helper()
	e, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	f, err := e.Encode(nil, content)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFrames(t *testing.T) {
	noise := make([]byte, 300<<10)
	copy(noise, bytes.Repeat([]byte("block "), 1000))
	for i := range 1000 {
		h := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		copy(noise[100<<10+32*i:], h[:])
	}
	for _, content := range [][]byte{{}, []byte("-\n"), make([]byte, 1<<18), noise} {
		f := frame(t, content)
		if len(f) > MaxFrame(len(content)) {
			t.Errorf("a frame over %d bytes has %d", len(content), len(f))
		}
		d, err := NewDecoder(max(1, len(content)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Decode(Key{Chunk, Sum(content)}, nil, f)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back as %d, %v", len(content), len(got), err)
		}
	}
}

// What zstd itself says of our frames: they have a checksum and a content size, and decode.
func TestFrameHasChecksumAndSize(t *testing.T) {
	zstd, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("no zstd here")
	}
	path := t.TempDir() + "/x.zst"
	content := bytes.Repeat([]byte("checksum and size "), 20000)
	if err := os.WriteFile(path, frame(t, content), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(zstd, "-lv", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Check: XXH64") || !strings.Contains(string(out), "(360000 B)") {
		t.Errorf("zstd -lv: %v\n%s", err, out)
	}
	if out, err := exec.Command(zstd, "-dc", path).Output(); err != nil || !bytes.Equal(out, content) {
		t.Errorf("zstd -dc: %d bytes, %v", len(out), err)
	}
}

func TestDamage(t *testing.T) {
	content := bytes.Repeat([]byte("some content "), 30000)
	key, good := Key{Chunk, Sum(content)}, frame(t, content)
	d, err := NewDecoder(len(content))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)/2], "garbage": []byte("no frame at all"), "other content": frame(t, []byte("other")),
		"flipped": append(bytes.Clone(good[:40]), append([]byte{good[40] ^ 4}, good[41:]...)...), "a bomb": frame(t, make([]byte, 64<<20)),
	} {
		var want *BadError
		if _, err := d.Decode(key, nil, bad); !errors.As(err, &want) || want.Key != key {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := d.Decode(key, nil, good); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after all that: %v", err)
	}
}

func stream(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	var first, last keyval.Pairs
	first.SetInt("format", 1)
	last.Set("root", "none")
	w, err := NewStreamWriter(&out, first)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "two"} {
		if err := w.Put(Key{Chunk, Sum([]byte(s))}, frame(t, []byte(s))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(last); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func limit(Kind) int { return 1 << 20 }

func readStream(data []byte) (objects int, err error) {
	r, err := NewStreamReader(bytes.NewReader(data), limit)
	for err == nil {
		if _, _, err = r.Next(); err == nil {
			objects++
		}
	}
	if err == io.EOF && r.Last().Get("root") != "none" {
		return objects, errors.New("no root")
	}
	return objects, err
}

func TestStream(t *testing.T) {
	whole := stream(t)
	if n, err := readStream(whole); n != 2 || err != io.EOF {
		t.Fatalf("%d objects, %v", n, err)
	}
	if n, err := readStream(append(bytes.Clone(whole), make([]byte, 9000)...)); n != 2 || err != io.EOF {
		t.Errorf("zero padding: %d objects, %v", n, err)
	}
	for cut := range len(whole) { // the end of archive is its last 1024 bytes, and Close pads no further
		if _, err := readStream(whole[:cut]); err == io.EOF || err == nil {
			t.Fatalf("cut at %d of %d: taken", cut, len(whole))
		}
	}
	if _, err := readStream(append(bytes.Clone(whole), 'x')); !errors.Is(err, ErrStreamEnd) {
		t.Errorf("a byte after the end: %v", err)
	}
	if _, err := readStream(append(bytes.Clone(whole[:len(whole)-1024]), whole...)); !errors.Is(err, ErrStreamEnd) {
		t.Errorf("two streams in one: %v", err)
	}
	for _, garbage := range [][]byte{nil, []byte("rbd diff v1\n"), bytes.Repeat([]byte("garbage"), 1000), make([]byte, 1024)} {
		if _, err := readStream(garbage); err == nil || err == io.EOF {
			t.Errorf("%.20q: taken", garbage)
		}
	}
}

func TestTarReadsStream(t *testing.T) {
	cmd := exec.Command("tar", "-t")
	cmd.Stdin = bytes.NewReader(stream(t))
	out, err := cmd.Output()
	want := "stream\n" + Key{Chunk, Sum([]byte("one"))}.String() + "\n" + Key{Chunk, Sum([]byte("two"))}.String() + "\nrevision\n"
	if err != nil || string(out) != want {
		t.Errorf("tar -t: %v\n%s", err, out)
	}
}

// FuzzStream: whatever comes, it is read or refused, in bounded memory.
func FuzzStream(f *testing.F) {
	whole := stream(f)
	f.Add(whole)
	if golden, err := os.ReadFile("testdata/two-objects.tar"); err == nil {
		f.Add(golden)
	}
	f.Add(whole[:700])
	f.Add(append(bytes.Clone(whole), 1))
	f.Add([]byte("rbd diff v1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := readStream(data); err == nil || n > len(data)/512 {
			t.Errorf("%d objects, %v", n, err)
		}
	})
}

// FuzzDecode: no frame makes the decoder give what is not the name's content, or more than its limit.
func FuzzDecode(f *testing.F) {
	f.Add(frame(f, []byte("content")), 100)
	f.Add(frame(f, make([]byte, 1<<20)), 100)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		if limit < 1 || limit > 1<<16 {
			return
		}
		d, err := NewDecoder(limit)
		if err != nil {
			t.Fatal(err)
		}
		if content, err := d.Decode(Key{Chunk, Sum([]byte("content"))}, nil, data); err == nil && string(content) != "content" {
			t.Errorf("got %d bytes", len(content))
		}
	})
}

package object

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
)

// A stream as doc/format.md has it: a disk of three blocks, the first of them zero, the others alike. It is read, its
// frames are what they are called, and it is written again to the byte.
func TestGoldenStream(t *testing.T) {
	golden, err := os.ReadFile("testdata/two-objects.tar")
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewStreamReader(bytes.NewReader(golden), limit)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := NewStreamWriter(&out, in.First())
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(1 << 18)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<18)
	copy(block, "a block\n")
	page := []byte("-\n" + Sum(block).String() + "\n" + Sum(block).String() + "\n")
	for _, want := range []struct {
		kind    Kind
		content []byte
	}{{Chunk, block}, {Page, page}} {
		key, frame, err := in.Next()
		if err != nil {
			t.Fatal(err)
		}
		content, err := d.Decode(key, nil, frame)
		if err != nil || key.Kind != want.kind || !bytes.Equal(content, want.content) {
			t.Errorf("%s has %d bytes, %v", key, len(content), err)
		}
		if err := w.Put(key, frame); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := in.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if in.First().Get("source") != "file:/dev/vg0/vm 1" || in.Last().Get("root") != Sum(page).String() {
		t.Errorf("first %v, last %v", in.First(), in.Last())
	}
	if err := w.Close(in.Last()); err != nil || !bytes.Equal(out.Bytes(), golden) {
		t.Errorf("written again it is another: %v", err)
	}
}

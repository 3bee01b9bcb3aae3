package extent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// Pieces of streams, as the format says.
func nameRecord(kind byte, name string) string {
	return string(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(name)))) + name
}

func sizeRecord(size uint64) string {
	return string(binary.LittleEndian.AppendUint64([]byte{'s'}, size))
}

func extentRecord(kind byte, off, length uint64) string {
	return string(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{kind}, off), length))
}

// describe reads a whole stream and tells it line by line.
func describe(r io.Reader) (string, error) {
	var b strings.Builder
	x, err := NewReader(r)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "from %q to %q size %d\n", x.Header().From, x.Header().To, x.Header().Size)
	for {
		e, err := x.Next()
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		if e.Zero {
			fmt.Fprintf(&b, "z %d %d\n", e.Offset, e.Length)
			continue
		}
		p, err := io.ReadAll(x)
		if err != nil {
			return b.String(), err
		}
		fmt.Fprintf(&b, "w %d %d %q\n", e.Offset, e.Length, p)
	}
}

func TestGolden(t *testing.T) {
	for name, want := range map[string]string{
		"from-to":                      "from \"backy-a\" to \"backy-b\" size 600\nw 10 12 \"hello, world\"\nz 50 100\nw 200 9 \"unaligned\"\n",
		"empty-disk":                   "from \"\" to \"\" size 0\n",
		"nothing-changed":              "from \"a\" to \"b\" size 8796093022208\n",
		"header-in-another-order":      "from \"a\" to \"b\" size 4096\nz 0 4096\n",
		"zero-5-tib-and-empty-records": "from \"\" to \"\" size 6597069766656\nw 0 0 \"\"\nz 20 5497558138880\nz 5497558138900 0\nw 6597069766656 0 \"\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.ReadFile(filepath.Join("testdata", name+".stream"))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []io.Reader{bytes.NewReader(file), iotest.OneByteReader(bytes.NewReader(file)), iotest.DataErrReader(bytes.NewReader(file))} {
				if got, err := describe(r); err != nil || got != want {
					t.Errorf("got\n%s%v\nwant\n%s", got, err, want)
				}
			}
			if name != "header-in-another-order" {
				if out := rewrite(t, file); !bytes.Equal(out, file) {
					t.Errorf("written again:\n%q\nwant\n%q", out, file)
				}
			}
			for n := range file { // no part of it passes for the whole
				if _, err := describe(bytes.NewReader(file[:n])); !errors.Is(err, ErrTruncated) {
					t.Fatalf("first %d bytes: got error %v, want ErrTruncated", n, err)
				}
			}
		})
	}
}

// rewrite reads a stream and writes the same.
func rewrite(t testing.TB, stream []byte) []byte {
	r, err := NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, r.Header())
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Zero {
			err = w.Zero(e.Offset, e.Length)
		} else if p, e2 := io.ReadAll(r); e2 != nil {
			t.Fatal(e2)
		} else {
			err = w.Data(e.Offset, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReaderRefuses(t *testing.T) {
	const m = Magic
	s := sizeRecord(1024)
	for _, c := range []struct{ name, stream, want string }{
		{"another file", "\x28\xb5\x2f\xfd something else", `record 0 at byte 0: begins with "(\xb5/\xfd somethi"`},
		{"another version", "rbd diff v2\n" + s + "e", "not the format of `rbd export-diff` version 1"},
		{"no size", m + nameRecord('t', "b") + "e", "record 2 at byte 18: e record before the size"},
		{"size after data", m + extentRecord('z', 0, 1), "z record before the size"},
		{"two sizes", m + s + s, "record 2 at byte 21: second s record"},
		{"two froms", m + nameRecord('f', "a") + nameRecord('f', "a") + s, "second f record"},
		{"two tos", m + nameRecord('t', "a") + nameRecord('t', "a") + s, "second t record"},
		{"from after data", m + s + extentRecord('z', 0, 1) + nameRecord('f', "a") + "e", "record 3 at byte 38: f record after the first w or z record"},
		{"huge size", m + sizeRecord(1<<63), "size 9223372036854775808 is too large"},
		{"huge name", m + "f\xff\xff\xff\xff", "name of 4294967295 bytes"},
		{"name a little too long", m + "t\x01\x10\x00\x00", "name of 4097 bytes: want 1 to 4096"},
		{"empty name", m + nameRecord('f', "") + s + "e", "name of 0 bytes"},
		{"unknown record in the header", m + "0" + s, `unknown record '0'`},
		{"unknown record", m + s + extentRecord('z', 0, 1) + "0", `record 3 at byte 38: unknown record '0'`},
		{"past the size", m + s + extentRecord('z', 1000, 25) + "e", "z record passes the size 1024: offset 1000, length 25"},
		{"offset past the size", m + s + extentRecord('z', 1025, 0) + "e", "passes the size"},
		{"sum overflows", m + s + extentRecord('w', 8, math.MaxUint64) + "e", "passes the size"},
		{"negative offset", m + s + extentRecord('w', 1<<63, 1) + "e", "passes the size"},
		{"overlap", m + s + extentRecord('z', 0, 100) + extentRecord('z', 99, 1) + "e", "z record at offset 99 comes after one that ends at 100"},
		{"descending", m + s + extentRecord('z', 512, 1) + extentRecord('z', 0, 1) + "e", "records must ascend"},
		{"trailing", m + s + "e\n", "data after the end record"},
		{"two streams", m + s + "e" + m + s + "e", "data after the end record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := describe(strings.NewReader(c.stream))
			var bad *FormatError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant a *FormatError with %q", err, c.want)
			}
		})
	}
}

func TestReaderPassesReadErrorsOn(t *testing.T) {
	broken := errors.New("disk on fire")
	stream := Magic + sizeRecord(1024) + extentRecord('w', 0, 512) + "begin"
	_, err := describe(io.MultiReader(strings.NewReader(stream), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || errors.Is(err, ErrTruncated) {
		t.Errorf("got %v, want it to wrap %v", err, broken)
	}
	// At the very end too: a failed read is no end of input.
	stream = Magic + sizeRecord(1024) + "e"
	if _, err = describe(io.MultiReader(strings.NewReader(stream), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("after the end record: got %v, want it to wrap %v", err, broken)
	}
}

func TestReaderSkipsUnreadData(t *testing.T) {
	stream := Magic + sizeRecord(1<<20) + extentRecord('w', 0, 100000) + strings.Repeat("x", 100000) + extentRecord('w', 100000, 3) + "abce"
	r, err := NewReader(strings.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	r.Next()
	io.ReadFull(r, make([]byte, 10)) // and no more
	if e, err := r.Next(); err != nil || e != (Extent{100000, 3, false}) {
		t.Fatalf("got %v, %v", e, err)
	}
	if p, err := io.ReadAll(r); string(p) != "abc" || err != nil {
		t.Fatalf("got %q, %v", p, err)
	}
	for range 2 { // the end stays the end
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("got %v, want io.EOF", err)
		}
	}
}

// largest records the largest read or write that it sees.
type largest struct {
	io.Reader
	io.Writer
	n int
}

func (l *largest) Read(p []byte) (int, error)  { l.n = max(l.n, len(p)); return l.Reader.Read(p) }
func (l *largest) Write(p []byte) (int, error) { l.n = max(l.n, len(p)); return l.Writer.Write(p) }

func TestLargePayloadsAreNotCopied(t *testing.T) {
	const size = 4 << 20
	var out bytes.Buffer
	to := &largest{Writer: &out}
	w, err := NewWriter(to, Header{Size: size})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Data(0, make([]byte, size)), w.Close()); err != nil {
		t.Fatal(err)
	}
	if to.n != size {
		t.Errorf("largest write has %d bytes, want %d", to.n, size)
	}
	from := &largest{Reader: &out}
	r, err := NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	r.Next()
	if _, err := io.ReadFull(r, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if from.n < size-readBuffer {
		t.Errorf("largest read has %d bytes, want about %d", from.n, size)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *Writer) error
		want string
	}{
		{"past the size", func(w *Writer) error { return w.Zero(1000, 25) }, "passes the size"},
		{"negative", func(w *Writer) error { return w.Zero(-1, 1) }, "negative"},
		{"overflow", func(w *Writer) error { return w.Zero(8, math.MaxInt64) }, "negative"},
		{"overlap", func(w *Writer) error { return errors.Join(w.Data(0, make([]byte, 10)), w.Data(9, nil)) }, "must ascend"},
		{"after the end", func(w *Writer) error { return errors.Join(w.Close(), w.Zero(0, 1)) }, "after the end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			w, err := NewWriter(&out, Header{Size: 1024})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.do(w); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err := w.Close(); err == nil {
				t.Error("Close after a failure succeeds")
			}
		})
	}
	for _, h := range []Header{{Size: -1}, {From: strings.Repeat("x", MaxName+1)}} {
		if _, err := NewWriter(io.Discard, h); err == nil {
			t.Errorf("NewWriter takes %.20v", h)
		}
	}
}

func TestWriterKeepsItsFirstError(t *testing.T) {
	r, pipe := io.Pipe()
	go io.CopyN(io.Discard, r, int64(len(Magic))+9)
	w, err := NewWriter(pipe, Header{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("reader gone")
	r.CloseWithError(broken)
	for range 2 {
		if err := w.Data(0, make([]byte, 1<<16)); !errors.Is(err, broken) {
			t.Errorf("got %v, want it to wrap %v", err, broken)
		}
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("Close: got %v, want it to wrap %v", err, broken)
	}
}

// What the reader accepts, written again, is the same stream: the format has no second way to say a thing, but for the
// order of its header.
func FuzzReader(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.stream")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(Magic + sizeRecord(1<<62) + extentRecord('w', 0, 1<<61)))
	f.Add([]byte(Magic + nameRecord('f', strings.Repeat("x", MaxName)) + sizeRecord(0) + "ee"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		told, err := describe(bytes.NewReader(stream))
		if err != nil {
			return
		}
		out := rewrite(t, stream)
		if len(out) != len(stream) {
			t.Fatalf("accepted %d bytes, wrote %d", len(stream), len(out))
		}
		if again, err := describe(bytes.NewReader(out)); err != nil || again != told {
			t.Fatalf("read\n%swrote\n%s%v", told, again, err)
		}
	})
}

// Package doc has no code: it tests that what the documents say in numbers is what the code does.
package doc

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/bus"
	"backy/pkg/chunk"
	"backy/pkg/config"
	"backy/pkg/event"
	"backy/pkg/extent"
	"backy/pkg/keyval"
	"backy/pkg/object"
	"backy/pkg/read"
	"backy/pkg/repo"
)

var (
	ctx   = context.Background()
	quiet = slog.New(slog.DiscardHandler)
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section is what a document says below a heading, up to the next one.
func section(t *testing.T, path, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut("\n"+text(t, path), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", path, heading)
	}
	body, _, _ := strings.Cut(rest, "\n#")
	return body
}

// The disks of the example, through backy-read and backy-chunk, give the names that it lists.
func TestExampleOfBlockMaps(t *testing.T) {
	example := section(t, "format.md", "### Example")
	const block = 256 << 10
	for name, last := range map[string]string{"a page": "c", "a page that ends before the disk does": "", "two levels": "c"} {
		t.Run(name, func(t *testing.T) {
			d := disk{block: block, size: 1200000, blocks: map[int64]string{0: "a", 2: "b", 4: last}}
			if name == "two levels" {
				d.size, d.short = 1025*block, 151424
				d.blocks[1024] = "a"
			}
			first, last := d.objects(t)
			if first.Get("block") != fmt.Sprint(block) || !regexp.MustCompile("root +"+last.Get("root")).MatchString(example) {
				t.Errorf("root %s is not in the example", last.Get("root"))
			}
			for _, key := range d.keys {
				if !strings.Contains(example, key.Name.String()) {
					t.Errorf("%s is not in the example", key)
				}
			}
		})
	}
}

// disk is the disk of the example.
type disk struct {
	block, size, short int64            // short: bytes of block 4, where the disk goes on behind it
	blocks             map[int64]string // what they are full of
	keys               []object.Key     // that it became
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for b, word := range d.blocks {
		for i := range p {
			at := off + int64(i)
			if at/d.block == b && word != "" && (b != 4 || d.short == 0 || at%d.block < d.short) {
				p[i] = word[0]
			}
		}
	}
	if end := d.size - off; end < int64(len(p)) {
		return int(end), io.EOF
	}
	return len(p), nil
}

func (d *disk) Size() int64  { return d.size }
func (d *disk) Close() error { return nil }

// NextData leaves out what is zero.
func (d *disk) NextData(off int64) (start, end int64, err error) {
	for b := off / d.block; b*d.block < d.size; b++ {
		if d.blocks[b] != "" {
			return max(off, b*d.block), min(d.size, (b+1)*d.block), nil
		}
	}
	return 0, 0, io.EOF
}

// objects makes the stream of objects and takes it apart.
func (d *disk) objects(t *testing.T) (first, last keyval.Pairs) {
	t.Helper()
	var extents, objects bytes.Buffer
	if err := read.Run(ctx, read.Options{Out: &extents, Disk: d, Source: "example", Block: d.block, Now: time.Now, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	if err := chunk.Run(ctx, chunk.Options{In: &extents, Out: &objects, Block: d.block, Now: time.Now, Log: quiet}); err != nil {
		t.Fatal(err)
	}
	r, err := object.NewStreamReader(&objects, repo.FrameLimit)
	if err != nil {
		t.Fatal(err)
	}
	for {
		key, _, err := r.Next()
		if err == io.EOF {
			return r.First(), r.Last()
		}
		if err != nil {
			t.Fatal(err)
		}
		d.keys = append(d.keys, key)
	}
}

// The dump of a stream of extents is the golden file, and says what the text says.
func TestExampleOfExtents(t *testing.T) {
	var dump []byte
	for _, line := range regexp.MustCompile(`(?m)^    [0-9a-f]{8}: ([0-9a-f ]{39})`).FindAllStringSubmatch(section(t, "format.md", "## 9. The stream of extents"), -1) {
		b, err := hex.DecodeString(strings.ReplaceAll(line[1], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		dump = append(dump, b...)
	}
	if golden := text(t, "../pkg/extent/testdata/from-to.stream"); string(dump) != golden {
		t.Errorf("the dump is not the golden file: %d bytes, %d", len(dump), len(golden))
	}
	r, err := extent.NewReader(bytes.NewReader(dump))
	if err != nil || r.Header() != (extent.Header{From: "backy-a", To: "backy-b", Size: 600}) {
		t.Fatalf("%+v, %v", r.Header(), err)
	}
	for _, want := range []extent.Extent{{Offset: 10, Length: 12}, {Offset: 50, Length: 100, Zero: true}, {Offset: 200, Length: 9}} {
		if e, err := r.Next(); err != nil || e != want {
			t.Errorf("%+v, want %+v: %v", e, want, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

// block is an indented piece of a document.
func block(s, firstLine string) []byte {
	_, rest, _ := strings.Cut(s, "    "+firstLine+"\n")
	var b strings.Builder
	b.WriteString(firstLine + "\n")
	for line := range strings.Lines(rest) {
		line, ok := strings.CutPrefix(line, "    ")
		if !ok {
			break
		}
		b.WriteString(line)
	}
	return []byte(b.String())
}

func TestExampleOfRevision(t *testing.T) {
	rev := block(section(t, "format.md", "### `.rev`"), "format: 1")
	if r, err := repo.ParseRevision(rev); err != nil || string(r.Bytes()) != string(rev) {
		t.Errorf("%v: the example reads\n%s\nand is written\n%s", err, rev, r.Bytes())
	}
	state := block(section(t, "format.md", "### `.state`"), "format: 1")
	if s, err := repo.ParseState(state); err != nil || string(s.Bytes()) != string(state) {
		t.Errorf("%v: the example reads\n%s\nand is written\n%s", err, state, s.Bytes())
	}
}

// Every key that the code writes into a .rev, .state and the ends of a stream is in the tables.
func TestKeysAreDocumented(t *testing.T) {
	d := disk{block: 256 << 10, size: 1, blocks: map[int64]string{0: "a"}}
	first, last := d.objects(t)
	r := repo.Revision{Base: repo.NewID(), Snapshot: "s", Cursor: 1, State: repo.State{Why: repo.WhyDamage, Damage: []repo.Range{{Offset: 0, Length: 1}}}}
	for heading, written := range map[string][]byte{
		"### `.rev`": r.Bytes(), "### `.state`": r.State.Bytes(), "## 10. The stream of objects": slices.Concat(first.Bytes(), last.Bytes()),
	} {
		table := section(t, "format.md", heading)
		for line := range strings.Lines(string(written)) {
			key, _, _ := strings.Cut(line, ":")
			if !regexp.MustCompile(`(?m)^\| [a-z, -]*\b` + key + `\b[a-z, -]* \|`).MatchString(table) {
				t.Errorf("%s of %s is in no table", key, heading)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	limits := section(t, "format.md", "## 12. Limits")
	for _, want := range []string{
		fmt.Sprintf("| %d KiB to %d MiB, a power of two |", repo.MinBlock>>10, repo.MaxBlock>>20),
		fmt.Sprintf("| %d lines, %d,%03d bytes |", blockmap.Fanout, blockmap.MaxPage/1000, blockmap.MaxPage%1000),
		fmt.Sprintf("| %d bytes |", extent.MaxName),
		fmt.Sprintf("| %d MiB |", keyval.MaxSize>>20),
	} {
		if !strings.Contains(limits, want) {
			t.Errorf("%q is not said", want)
		}
	}
	for _, n := range []int{1, 127, 128, blockmap.MaxPage, repo.MaxBlock} {
		if object.MaxFrame(n) != n+n/128+1024 {
			t.Errorf("a frame over %d bytes has up to %d", n, object.MaxFrame(n))
		}
	}
}

// Each kind of event has an example that is one, with the id that it would have.
func TestEventsAreEvents(t *testing.T) {
	var lines strings.Builder
	for line := range strings.Lines(section(t, "events.md", "## Kinds")) {
		if line, ok := strings.CutPrefix(line, "    {"); ok {
			lines.WriteString("{" + line)
		}
	}
	kinds := map[event.Kind]bool{}
	for r := event.NewReader(strings.NewReader(lines.String())); ; {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds[e.Kind] = true
		id := e.ID
		e.ID = ""
		if want := e.Identity(); id != want {
			t.Errorf("the %s of %s has the id %s, and not %s", e.Kind, e.Time, id, want)
		}
	}
	for _, kind := range event.Kinds() {
		if !kinds[kind] {
			t.Errorf("there is no example of %s", kind)
		}
	}
}

// Every field of an event, and of work, is in its table, with its type.
func TestFieldsOfEventsAreDocumented(t *testing.T) {
	types := map[reflect.Kind]string{reflect.String: "text", reflect.Struct: "text", reflect.Int: "integer", reflect.Int64: "integer", reflect.Float64: "number",
		reflect.Bool: "boolean", reflect.Slice: "list of text"}
	rows := 0
	table := section(t, "events.md", "## Fields")
	for _, f := range reflect.VisibleFields(reflect.TypeFor[event.Event]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if row := "\n| " + name + " | " + types[f.Type.Kind()] + " | "; !strings.Contains(table, row) {
			t.Errorf("there is no %q", row)
		}
		rows++
	}
	if n := strings.Count(table, "\n| "); n != rows+2 {
		t.Errorf("%d rows for %d fields", n-2, rows)
	}
	table = section(t, "events.md", "### Work")
	for _, f := range reflect.VisibleFields(reflect.TypeFor[bus.Work]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !regexp.MustCompile(`(?m)^\| [a-z, ]*\b` + name + `\b[a-z, ]* \|`).MatchString(table) {
			t.Errorf("%s of work is in no table", name)
		}
	}
}

func TestFollowUpsAreDocumented(t *testing.T) {
	over := section(t, "events.md", "## Over NATS")
	for _, stream := range []string{bus.EventStream, bus.DueStream} {
		if !strings.Contains(over, "\n| `"+stream+"` | ") {
			t.Errorf("there is no %s", stream)
		}
	}
	table := section(t, "events.md", "### What follows a backup, and how to replace it")
	for _, name := range config.FollowUps {
		if !strings.Contains(table, "\n| "+name+" | `backy-"+name+"` | ") {
			t.Errorf("there is no %s", name)
		}
	}
}

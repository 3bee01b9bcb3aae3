package repo

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"backy/pkg/object"
)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".golden")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The files as doc/format.md has them: what a repository holds is read by every later version.
func TestGolden(t *testing.T) {
	root, err := object.ParseName("643b578f0fc7644760b902422263285ce5ea6bbeb2bab40926da4e9013037115")
	if err != nil {
		t.Fatal(err)
	}
	whole := Revision{
		ID: "NkjcG4wtGr5uRyCsQeWXQd", Time: start, Source: "file:/dev/vg0/vm1", Host: "backup-1.example", Size: 10 << 30, Block: 4 << 20, Root: root,
		Base: "JzqXhwBPC5hQsbEPnWTTtb", Snapshot: "before the upgrade", Read: ReadMap, ReadBytes: 33 << 22, Compared: time.Date(2026, 11, 3, 23, 0, 0, 7000, time.UTC), Cursor: 2048, Changed: 3 << 22, Stored: 7340160,
		Duration: 3141 * time.Millisecond,
	}
	for name, want := range map[string]Revision{
		"revision": whole,
		"zero":     {ID: "JzqXhwBPC5hQsbEPnWTTtb", Time: start.Truncate(time.Second), Size: 1, Block: MinBlock, Read: ReadForeign},
	} {
		text := golden(t, name)
		got, err := ParseRevision(text)
		if err != nil || string(got.Bytes()) != string(text) {
			t.Errorf("%s: %v, comes back as\n%s", name, err, got.Bytes())
		}
		if got.extra = nil; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v\nwant %+v", name, got, want)
		}
	}
	state, err := ParseState(golden(t, "state"))
	want := State{Tags: []string{"daily", "manual:before upgrade"}, Trust: Distrusted, Why: WhyDamage, Protected: true,
		Damage: []Range{{0, 4 << 20}, {8 << 20, 4 << 20}}, Checked: time.Date(2026, 11, 22, 3, 4, 5, 0, time.UTC)}
	if err != nil || !reflect.DeepEqual(state, want) || string(state.Bytes()) != string(golden(t, "state")) {
		t.Errorf("state %+v, %v\nwant  %+v\n%s", state, err, want, state.Bytes())
	}
	note, err := parseReadNote(golden(t, "read"))
	wantNote := ReadNote{Job: "customers/vm1", Session: "RvCrSA7P3zPgRAqiLsBqvh", Source: "rbd:vms/vm1", Host: "backup-1.example", Start: start,
		Snapshot: "backy-NkjcG4wtGr5uRyCsQeWXQd", Mode: ReadCompare, Bytes: 10 << 30, Cursor: 2048}
	if err != nil || note != wantNote || string(note.bytes()) != string(golden(t, "read")) {
		t.Errorf("read %+v, %v\nwant %+v", note, err, wantNote)
	}
}

// A .rev with one thing wrong.
func TestWrongRevisions(t *testing.T) {
	good := string(golden(t, "revision"))
	for name, change := range map[string][2]string{
		"a newer format":     {"format: 1", "format: 2"},
		"no id":              {"id: Nkjc", "id: 0kjc"},
		"an id that leaves":  {"id: NkjcG4wtGr5uRyCsQeWXQd", "id: ../../../../etc/passwd"},
		"a base that leaves": {"base: Jzqx", "base: .."},
		"local time":         {".123456Z", ".123456+01:00"},
		"no time":            {"2026-11-21", "2026-13-21"},
		"compared never":     {"2026-11-03", "2026-11-31"},
		"a negative size":    {"size: 1", "size: -1"},
		"too large a size":   {"size: 10737418240", "size: 9223372036854775807"},
		"no block size":      {"block: 4194304", "block: 4194305"},
		"no root":            {"root: 643b", "root: 643"},
		"a zero root":        {"643b578f0fc7644760b902422263285ce5ea6bbeb2bab40926da4e9013037115", strings.Repeat("0", 64)},
		"no number":          {"changed: 1", "changed: x1"},
		"a missing line":     {"stored: 7340160\n", ""},
		"a line twice":       {"read: map\n", "read: map\nread: map\n"},
		"no duration":        {"3.141", "nan"},
		"an endless one":     {"3.141", "inf"},
		"a negative one":     {"3.141", "\"-1\""},
		"cut off":            {"add\"\n", "add\""},
		"an open quote":      {"\"before the upgrade\"", "\"before"},
		"a blank line":       {"read: map\n", "read: map\n\n"},
		"a comment":          {"read: map\n", "# read\nread: map\n"},
		"carriage returns":   {"\n", "\r\n"},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if name == "a base that leaves" {
			text = strings.Replace(good, "base: JzqXhwBPC5hQsbEPnWTTtb", "base: ../vm2/zqXhwBPC5hQsbEP", 1)
		}
		if text == good {
			t.Fatalf("%s: nothing is changed", name)
		}
		if r, err := ParseRevision([]byte(text)); err == nil {
			t.Errorf("%s: taken as %+v", name, r)
		}
	}
}

// FuzzReadNote: a note that is taken is written so that it reads as the same.
func FuzzReadNote(f *testing.F) {
	f.Add(golden(f, "read"))
	f.Add(ReadNote{Job: "vm1", Source: "a b", Start: start}.bytes())
	f.Add(ReadNote{Job: "vm1", Source: "rbd:a/b", Start: start, Snapshot: "backy-x", Temporary: true}.bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parseReadNote(text)
		if err != nil {
			return
		}
		again, err := parseReadNote(n.bytes())
		if err != nil || again != n {
			t.Fatalf("%q became %+v, then %+v, %v", text, n, again, err)
		}
	})
}

// FuzzRevision: a .rev that is taken is written so that it reads as the same, lines that it does not know too.
func FuzzRevision(f *testing.F) {
	f.Add(golden(f, "revision"))
	f.Add(golden(f, "zero"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRevision(text)
		if err != nil {
			return
		}
		again, err := ParseRevision(r.Bytes())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%q became %+v, then %+v, %v", text, r, again, err)
		}
	})
}

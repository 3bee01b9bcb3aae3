package extent

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the tools really wrote.
func TestParseMapGolden(t *testing.T) {
	for _, c := range []struct {
		file string
		kind Kind
		size int64
		want Map
	}{
		{"rbd-diff-from-snap", Change, 32 << 20, Map{{0, 4096, false}, {20971520, 4194304, true}}},
		{"rbd-diff-from-snap", Allocation, 32 << 20, Map{{0, 4096, false}}},
		{"rbd-diff-bool", Allocation, 8 << 20, Map{{0, 65536, false}, {4194304, 4194304, false}}}, // sorted
		{"qemu-img-map", Allocation, 1000000, Map{{65536, 16384, false}}},                         // QEMU says 1000448
		{"qemu-img-map-qcow2", Allocation, 4 << 20, Map{{1048576, 65536, false}}},
		{"nbdinfo-allocation", Allocation, 4 << 20, Map{{1048576, 65536, false}}},
		{"nbdinfo-dirty-bitmap", Change, 4 << 20, Map{{1048576, 65536, false}, {2097152, 65536, false}}},
	} {
		t.Run(c.file, func(t *testing.T) {
			file, err := os.ReadFile(filepath.Join("testdata", c.file+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ParseMap(bytes.NewReader(file), c.kind, c.size); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v\nwant %v", got, err, c.want)
			}
			end := bytes.LastIndexByte(file, ']')
			for n := range end { // no part of it passes for the whole
				if got, err := ParseMap(bytes.NewReader(file[:n]), c.kind, c.size); err == nil {
					t.Fatalf("first %d bytes: got %v, want an error", n, got)
				}
			}
		})
	}
}

func TestParseMap(t *testing.T) {
	for _, c := range []struct {
		name, json string
		kind       Kind
		want       Map
	}{
		{"rbd, nothing changed", `[]`, Change, nil},
		{"rbd, empty image", ` [ ] ` + "\n", Allocation, nil},
		{"rbd, neighbours merge", `[{"offset":0,"length":10,"exists":"true"},{"offset":10,"length":5,"exists":"true"},{"offset":15,"length":5,"exists":"false"}]`,
			Change, Map{{0, 15, false}, {15, 5, true}}},
		{"rbd, empty extent", `[{"offset":7,"length":0,"exists":"true"}]`, Change, nil},
		{"a hole with unknown content is data", `[{"offset":0,"length":1024,"type":1,"description":"hole"}]`, Allocation, Map{{0, 1024, false}}},
		{"no data, but not zero either", `[{"start":0,"length":1024,"depth":0,"present":false,"zero":false,"data":false}]`, Allocation, Map{{0, 1024, false}}},
		{"written zeroes", `[{"start":0,"length":1024,"depth":0,"present":true,"zero":true,"data":true}]`, Allocation, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := ParseMap(strings.NewReader(c.json), c.kind, 1024); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v\nwant %v", got, err, c.want)
			}
		})
	}
}

func TestParseMapRefuses(t *testing.T) {
	totals, err := os.ReadFile("testdata/nbdinfo-totals.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, json string
		kind       Kind
		want       string
	}{
		{"empty file", ``, Change, "change map: not JSON: ends in the middle"},
		{"not JSON", `<superblock/>`, Allocation, "allocation map: not JSON"},
		{"not a list", `{"version":"1.0"}`, Change, "not the JSON list"},
		{"null", `null`, Change, "not the JSON list"},
		{"foreign entry", `[{"a":1}]`, Change, "entry 1 is none of rbd diff, qemu-img map or nbdinfo --map"},
		{"null entry", `[null]`, Change, "entry 1 is none of"},
		{"totals of nbdinfo", string(totals), Allocation, "entry 1 is none of"},
		{"two formats", `[{"offset":0,"length":512,"exists":"true"},{"offset":512,"length":512,"type":0,"description":"data"}]`, Allocation, "entry 2 is none of"},
		{"strange exists", `[{"offset":0,"length":1,"exists":"maybe"}]`, Change, `entry 1 of rbd diff: exists is "maybe"`},
		{"trailing", `[] []`, Change, "something follows"},
		{"trailing garbage", `[]x`, Change, "something follows"},
		{"overlap", `[{"offset":0,"length":10,"exists":"true"},{"offset":9,"length":5,"exists":"true"}]`, Change, "overlaps the one at 0, length 10"},
		{"overlap of what is left out", `[{"offset":0,"length":10,"exists":"true"},{"offset":9,"length":5,"exists":"false"}]`, Allocation, "overlaps"},
		{"past the size", `[{"offset":1000,"length":25,"exists":"true"}]`, Change, "passes the size of the disk, 1024"},
		{"overflow", `[{"offset":9223372036854775807,"length":9223372036854775807,"exists":"true"}]`, Change, "passes the size"},
		{"negative", `[{"offset":-1,"length":5,"exists":"true"}]`, Change, "passes the size"},
		{"negative length", `[{"offset":5,"length":-5,"exists":"true"}]`, Change, "passes the size"},
		{"fraction", `[{"offset":0.5,"length":5,"exists":"true"}]`, Change, "entry 1: json:"},
		{"qemu-img for a change map", `[{"start":0,"length":1024,"depth":0,"zero":false,"data":true}]`, Change, "this is an allocation map"},
		{"base:allocation for a change map", `[{"offset":0,"length":1024,"type":0,"description":"data"}]`, Change, "this is the allocation map base:allocation"},
		{"dirty bitmap for an allocation map", `[{"offset":0,"length":1024,"type":1,"description":"dirty"}]`, Allocation, "this is a dirty bitmap"},
		{"other context", `[{"offset":0,"length":1024,"type":2,"description":"backing depth 2"}]`, Allocation, "neither of base:allocation nor of a dirty bitmap"},
		{"no description", `[{"offset":0,"length":1024,"type":1}]`, Change, "no description"},
		{"gap", `[{"offset":0,"length":10,"type":1,"description":"dirty"},{"offset":11,"length":1013,"type":0,"description":"clean"}]`, Change, "names only a part"},
		{"map of a smaller disk", `[{"start":0,"length":512,"depth":0,"zero":false,"data":true}]`, Allocation, "names only a part"},
		{"map of a larger disk", `[{"start":0,"length":1536,"depth":0,"zero":false,"data":true}]`, Allocation, "passes the size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := ParseMap(strings.NewReader(c.json), c.kind, 1024); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v\nwant error %q", got, err, c.want)
			}
		})
	}
}

func TestBlocks(t *testing.T) {
	const size, block = 1000, 100 // the sizes only need to divide well for people
	for _, c := range []struct {
		name string
		m    Map
		size int64
		want []Run
	}{
		{"nothing", nil, size, nil},
		{"one byte", Map{{250, 1, false}}, size, []Run{{2, 1, false}}},
		{"data is rounded outward", Map{{199, 102, false}}, size, []Run{{1, 3, false}}},
		{"aligned data", Map{{200, 100, false}}, size, []Run{{2, 1, false}}},
		{"whole blocks of zero", Map{{200, 300, true}}, size, []Run{{2, 3, true}}},
		{"zero in part is read", Map{{150, 200, true}}, size, []Run{{1, 1, false}, {2, 1, true}, {3, 1, false}}},
		{"zero inside a block", Map{{110, 50, true}}, size, []Run{{1, 1, false}}},
		{"zero over a border covers none", Map{{150, 100, true}}, size, []Run{{1, 2, false}}},
		{"data beats zero", Map{{100, 100, true}, {200, 10, false}, {210, 190, true}}, size, []Run{{1, 1, true}, {2, 1, false}, {3, 1, true}}},
		{"two parts of a block", Map{{110, 10, false}, {150, 10, true}, {190, 5, false}}, size, []Run{{1, 1, false}}},
		{"runs merge", Map{{0, 50, false}, {60, 60, false}, {210, 10, false}}, size, []Run{{0, 3, false}}},
		{"short last block, zero to the end", Map{{900, 50, true}}, 950, []Run{{9, 1, true}}},
		{"short last block, not to the end", Map{{900, 49, true}}, 950, []Run{{9, 1, false}}},
		{"short last block, from its middle", Map{{910, 40, true}}, 950, []Run{{9, 1, false}}},
		{"whole disk", Map{{0, 950, true}}, 950, []Run{{0, 10, true}}},
		{"largest disk", Map{{0, math.MaxInt64, false}}, math.MaxInt64, []Run{{0, math.MaxInt64/100 + 1, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := slices.Collect(c.m.Blocks(c.size, block)); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			for range c.m.Blocks(c.size, block) {
				break // may stop early
			}
		})
	}
}

// What ParseMap accepts is a map as promised, and its blocks agree with it byte by byte.
func FuzzParseMap(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.json")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true, int64(4<<20), int64(1<<20))
		f.Add(b, false, int64(1000000), int64(4096))
	}
	f.Add([]byte(`[{"offset":3,"length":7,"exists":"true"},{"offset":10,"length":20,"exists":false},{"offset":31,"length":1,"exists":true}]`), false, int64(33), int64(4))
	f.Fuzz(func(t *testing.T, b []byte, allocation bool, size, block int64) {
		kind := Change
		if allocation {
			kind = Allocation
		}
		if size < 0 || block <= 0 {
			return
		}
		m, err := ParseMap(bytes.NewReader(b), kind, size)
		if err != nil {
			return
		}
		var end int64
		for i, e := range m {
			if e.Offset < end || e.Length <= 0 || e.Offset > size || e.Length > size-e.Offset || allocation && e.Zero ||
				i > 0 && e.Offset == end && e.Zero == m[i-1].Zero {
				t.Fatalf("entry %d of %v", i, m)
			}
			end = e.End()
		}
		if size > 4096 || block > 4096 {
			return
		}
		want := blocksByByte(m, size, block)
		got := make([]byte, len(want))
		for r := range m.Blocks(size, block) {
			for i := r.First; i < r.First+r.Count; i++ {
				if got[i] != 0 {
					t.Fatalf("block %d twice", i)
				}
				got[i] = map[bool]byte{true: 'z', false: 'd'}[r.Zero]
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%v: blocks %q, want %q", m, got, want)
		}
	})
}

// blocksByByte finds out what each block is from what each of its bytes is: 0 not mentioned, z zero, d data.
func blocksByByte(m Map, size, block int64) []byte {
	disk := make([]byte, size)
	for _, e := range m {
		for i := e.Offset; i < e.End(); i++ {
			disk[i] = map[bool]byte{true: 'z', false: 'd'}[e.Zero]
		}
	}
	var blocks []byte
	for b := range slices.Chunk(disk, int(block)) {
		switch {
		case bytes.Count(b, []byte{0}) == len(b):
			blocks = append(blocks, 0)
		case bytes.Count(b, []byte{'z'}) == len(b):
			blocks = append(blocks, 'z')
		default:
			blocks = append(blocks, 'd')
		}
	}
	return blocks
}

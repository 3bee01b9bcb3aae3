package read_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"backy/pkg/event"
	"backy/pkg/extent"
	"backy/pkg/object"
	"backy/pkg/read"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

// alike is a disk whose blocks are alike, so that it is stored in no time.
func alike(size int64) *repotest.Disk {
	d, one := repotest.NewDisk(size), make([]byte, block)
	filled(1, block).ReadAt(one, 0)
	for off := int64(0); off < size; off += block {
		d.WriteAt(one, off)
	}
	return d
}

// past makes revisions of an image, each read as it says, or foreign; each differs from the one before in block 1.
func (i *image) past(modes ...string) (list []repo.Revision) {
	i.t.Helper()
	for n, mode := range modes {
		i.WriteAt([]byte{byte(n + 1)}, block)
		o := read.Options{Base: "last", Full: mode == repo.ReadFull, Compare: mode == repo.ReadCompare}
		if mode != repo.ReadForeign {
			list = append(list, i.backup(o))
		} else {
			r, _, err := i.read(read.Options{Base: "last"})
			must(i.t, err)
			must(i.t, i.f.ForgetRead(r.note.ID))
			rev, err := i.store(r)
			must(i.t, err)
			list = append(list, rev)
		}
		if got := list[n].Read; got != mode {
			i.t.Fatalf("revision %d was read: %s, want %s", n, got, mode)
		}
	}
	return list
}

// reports are what is in quarantine.
func (i *image) reports() (list []repo.Report) {
	i.t.Helper()
	ids, err := i.f.Quarantines()
	must(i.t, err)
	for _, id := range ids {
		q, err := i.f.Quarantine(id)
		must(i.t, err)
		text, err := q.Read()
		must(i.t, err)
		var r repo.Report
		must(i.t, json.Unmarshal(text, &r))
		list = append(list, r)
	}
	return list
}

// kept fails unless a block is kept as evidence.
func (i *image) kept(r repo.Report, name string, block []byte) {
	i.t.Helper()
	q, err := i.f.Quarantine(r.ID)
	must(i.t, err)
	frame, err := os.ReadFile(filepath.Join(q.Path(), name))
	must(i.t, err)
	dec, err := object.NewDecoder(len(block))
	must(i.t, err)
	if _, err := dec.Decode(object.Key{Kind: object.Chunk, Name: object.Sum(block)}, nil, frame); err != nil {
		i.t.Errorf("%s: %v", name, err)
	}
}

// Each way for a map to be wrong: what is made is right, whatever the map says, and what such maps have made before is
// distrusted if a block was seen to be wrong. The disk has 24 blocks, of which 10 to 13 are new and 20 and 21 are zero now.
func TestLies(t *testing.T) {
	const size = 24 * block
	truth := []extent.Extent{data(10*block, 4*block), zero(20*block, 2*block)}
	for name, tt := range map[string]struct {
		map_    []extent.Extent
		wrong   []int64 // blocks that are seen to be wrong
		refused bool    // it is no map of this disk
	}{
		"the truth":                    {truth, nil, false},
		"nothing has changed":          {nil, []int64{10, 11, 12, 13, 20, 21}, false},
		"a changed block is left out":  {[]extent.Extent{data(10*block, 2*block), data(13*block, block), zero(20*block, 2*block)}, []int64{12}, false},
		"a new zero is left out":       {truth[:1], []int64{20, 21}, false},
		"zero where there is data":     {[]extent.Extent{zero(10*block, 4*block), zero(20*block, 2*block)}, []int64{10, 11, 12, 13}, false},
		"zero where nothing changed":   {[]extent.Extent{zero(0, block), data(10*block, 4*block), zero(20*block, 2*block)}, []int64{0}, false},
		"all is zero":                  {[]extent.Extent{zero(0, size)}, nil, false}, // filled in below
		"of another image":             {[]extent.Extent{data(3*block, block), zero(12*block, block), data(22*block, 2*block)}, []int64{10, 11, 12, 13, 20, 21}, false},
		"of a larger image":            {[]extent.Extent{data(10*block, 4*block), data(size, block)}, nil, true},
		"parts of blocks":              {[]extent.Extent{data(10*block+100, 10), data(11*block, 2*block), data(14*block-1, 1), zero(20*block, 2*block-1), data(22*block-1, 1)}, nil, false},
		"zero, of parts of blocks":     {[]extent.Extent{zero(10*block+5, block), data(11*block+5, 2*block), data(13*block+5, 1), zero(20*block+1, 2*block-2)}, nil, false},
		"parts of the first ones only": {[]extent.Extent{data(10*block+100, 10), zero(20*block+5, 100)}, []int64{11, 12, 13, 21}, false},
		"more than has changed":        {[]extent.Extent{data(0, size)}, nil, false},
	} {
		if name == "all is zero" {
			for b := range int64(24) {
				if b != 20 && b != 21 {
					tt.wrong = append(tt.wrong, b)
				}
			}
		}
		for _, by := range []string{"the disk", "--map"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				t.Parallel()
				i := newImage(t, alike(size))
				past := i.past(repo.ReadFull, repo.ReadCompare, repo.ReadMap, repo.ReadMap)
				old := i.Clone()
				i.WriteAt(bytes.Repeat([]byte("new!"), block), 10*block)
				i.Punch(20*block, 2*block)
				o := read.Options{Base: "last", Check: 24}
				if by == "--map" {
					s := i.take("b")
					o.Disk, o.Source, o.Map = s, "rbd:vms/vm1@b", rbd(tt.map_...)
				} else {
					i.Lie = func(extent.Map) (extent.Map, error) { return slices.Clone(tt.map_), nil }
				}
				r, said, err := i.read(o)
				if by == "--map" && tt.refused {
					if err == nil || !strings.Contains(err.Error(), "passes the size of the disk") || len(i.trusted()) != 4 {
						t.Errorf("got %v", err)
					}
					return
				}
				must(t, err)
				rev, err := i.store(r)
				must(t, err)
				i.f.Want(rev, i.Disk)
				i.judge(rev, past, tt.wrong, tt.refused, said)
				if len(tt.wrong) > 0 {
					i.wantEvidence(rev, old, tt.wrong)
				}
			})
		}
	}
}

// trusted are the ids of the revisions that are not distrusted, oldest first.
func (i *image) trusted() (ids []string) {
	i.t.Helper()
	list, _, err := i.f.Job.List()
	must(i.t, err)
	for _, r := range list {
		if r.State.Trust != repo.Distrusted {
			ids = append(ids, r.ID)
		} else if r.State.Why != repo.WhyMap {
			i.t.Errorf("%s is distrusted for %s", r.ID, r.State.Why)
		}
	}
	return ids
}

// judge fails unless, of the past, the last two are distrusted if and only if blocks were seen to be wrong, and the new
// revision is made accordingly.
func (i *image) judge(rev repo.Revision, past []repo.Revision, wrong []int64, refused bool, said string) {
	i.t.Helper()
	good, base, mode := past, past[3].ID, repo.ReadMap
	switch {
	case len(wrong) > 0:
		good, base, mode = past[:2], past[1].ID, repo.ReadCompare
		if n := strings.Count(said, "level=WARN"); n != 1 || !strings.Contains(said, "is wrong: ") || !strings.Contains(said, "2 revisions are distrusted: "+past[3].ID+", "+past[2].ID) ||
			!strings.Contains(said, "compared with "+base) {
			i.t.Errorf("%d warnings: %s", n, said)
		}
	case refused:
		mode = repo.ReadCompare
		fallthrough
	default:
		if len(i.reports()) > 0 {
			i.t.Errorf("reports %+v", i.reports())
		}
	}
	ids := []string{}
	for _, r := range append(slices.Clone(good), rev) {
		ids = append(ids, r.ID)
	}
	if got := i.trusted(); !slices.Equal(got, ids) || rev.Base != base || rev.Read != mode {
		i.t.Errorf("trusted %q, want %q; base %s, want %s; read %s, want %s; said %s", got, ids, rev.Base, base, rev.Read, mode, said)
	}
}

// wantEvidence fails unless the report lists these blocks, and both forms of the first 16.
func (i *image) wantEvidence(rev repo.Revision, old *repotest.Disk, wrong []int64) {
	i.t.Helper()
	list := i.reports()
	if len(list) != 1 {
		i.t.Fatalf("%d reports", len(list))
	}
	report := list[0]
	var got []int64
	for n, m := range report.Differs {
		got = append(got, m.Offset/block)
		if m.Length != block || m.Kept != (n < repo.MaxEvidence) {
			i.t.Errorf("%+v", m)
		}
		if !m.Kept {
			continue
		}
		was, is := make([]byte, block), make([]byte, block)
		i.ReadAt(is, m.Offset)
		if m.Backup != "zero" {
			old.ReadAt(was, m.Offset)
		}
		prefix := strings.TrimSuffix(m.Range.String(), "+262144")
		i.kept(report, prefix+".source.zst", is)
		i.kept(report, prefix+".backup.zst", was)
		if m.Source != repo.HashOf(sum(is)) || m.Backup != repo.HashOf(sum(was)) {
			i.t.Errorf("block %d: %+v", m.Offset/block, m)
		}
	}
	if !slices.Equal(got, wrong) || len(report.Revisions) != 2 || report.Revisions[0].Why != repo.WhyMap || report.Blocks == 0 || !strings.Contains(report.What, "change map of rbd:vms/vm1") {
		i.t.Errorf("wrong are %v, want %v; %+v", got, wrong, report)
	}
}

func sum(p []byte) (name object.Name) {
	if extent.IsZero(p) {
		return name
	}
	return object.Sum(p)
}

// How far back the distrust goes, and what the new revision is built on.
func TestDistrustGoesBack(t *testing.T) {
	const full, compare, by, foreign = repo.ReadFull, repo.ReadCompare, repo.ReadMap, repo.ReadForeign
	for name, tt := range map[string]struct {
		past  []string
		base  string
		judge func(i *image, past []repo.Revision)
		good  []int // what is trusted still
		on    int   // what is built on; -1: nothing is
	}{
		"the base was read whole":            {[]string{full, compare}, "last", nil, []int{0, 1}, 1},
		"to the last comparison":             {[]string{full, compare, by, compare, by, by}, "last", nil, []int{0, 1, 2, 3}, 3},
		"foreign ones are made by maps, too": {[]string{full, compare, foreign, foreign}, "last", nil, []int{0, 1}, 1},
		"nothing else is left":               {[]string{foreign, foreign}, "last", nil, nil, -1},
		"an older base":                      {[]string{full, compare, by, compare, by}, "2", nil, []int{0, 1, 3}, 3},
		"one is distrusted already": {[]string{full, compare, by, by, by}, "last", func(i *image, past []repo.Revision) {
			must(i.t, i.f.Job.Change(ctx, past[3].ID, func(s *repo.State) error {
				s.Trust, s.Why = repo.Distrusted, repo.WhyMap
				return nil
			}))
		}, []int{0, 1}, 1},
		"damage is the lesser evil": {[]string{full, compare, by}, "last", func(i *image, past []repo.Revision) {
			must(i.t, i.f.Job.Change(ctx, past[2].ID, func(s *repo.State) error {
				s.Trust, s.Why, s.Damage = repo.Distrusted, repo.WhyDamage, []repo.Range{{Offset: 0, Length: 5}}
				return nil
			}))
		}, []int{0, 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newImage(t, alike(12*block))
			past := i.past(tt.past...)
			if tt.judge != nil {
				tt.judge(i, past)
			}
			i.WriteAt([]byte("new"), 5*block)
			s := i.take("b")
			r, _, err := i.read(read.Options{Base: tt.base, Disk: s, Source: "rbd:vms/vm1@b", Map: rbd(), Check: 12})
			must(t, err)
			rev, err := i.store(r)
			must(t, err)
			i.f.Want(rev, i.Disk)
			want, base, mode := []string{}, "", repo.ReadFull
			for _, n := range tt.good {
				want = append(want, past[n].ID)
			}
			if tt.on >= 0 {
				base, mode = past[tt.on].ID, repo.ReadCompare
			}
			if got := i.trusted(); !slices.Equal(got, append(want, rev.ID)) || rev.Base != base || rev.Read != mode {
				t.Errorf("trusted %q, want %q; base %q, want %q; read: %s", got, want, rev.Base, base, rev.Read)
			}
			// What it leads to can be seen from the job.
			if list := i.reports(); len(list) != 1 || len(list[0].Revisions) == 0 || list[0].Revisions[0].Job != "vm1" {
				t.Errorf("%+v", list)
			}
		})
	}
}

// A driver that lied for a while and was not found out: once it is, what it has spoilt is distrusted, and the new revision is
// right.
func TestLiesFoundLate(t *testing.T) {
	i := newImage(t, alike(30*block))
	good := i.past(repo.ReadFull, repo.ReadCompare)
	i.Lie = func(m extent.Map) (extent.Map, error) {
		return slices.DeleteFunc(m, func(e extent.Extent) bool { return e.Offset < 20*block }), nil
	}
	var spoilt []string
	for n := range int64(3) {
		i.WriteAt([]byte("lost"), (3+n)*block)
		i.WriteAt([]byte("seen"), (22+n)*block)
		r, _, err := i.read(read.Options{Base: "last", Check: 2, Random: func(n int64) int64 { return n - 1 }})
		must(t, err)
		rev, err := i.store(r)
		must(t, err)
		if _, err := i.f.Content(rev); err != nil || rev.Read != repo.ReadMap {
			t.Fatalf("%+v, %v", rev, err)
		}
		spoilt = append(spoilt, rev.ID)
	}
	var events bytes.Buffer
	i.f.Events = event.NewWriter(&events, event.Event{}, i.f.Now)
	r, _, err := i.read(read.Options{Base: "last", Check: 30})
	must(t, err)
	i.f.Events.Flush()
	rev, err := i.store(r)
	must(t, err)
	i.f.Want(rev, i.Disk)
	if got := i.trusted(); !slices.Equal(got, []string{good[0].ID, good[1].ID, rev.ID}) || rev.Base != good[1].ID {
		t.Errorf("trusted %q; base %s", got, rev.Base)
	}
	for _, id := range spoilt {
		if !strings.Contains(events.String(), `"kind":"distrusted"`) || !strings.Contains(events.String(), id) {
			t.Errorf("no event of %s: %s", id, &events)
		}
	}
}

// A base whose blocks have another size: the read goes on in that.
func TestDistrustChangesTheBlock(t *testing.T) {
	i := newImage(t, alike(16*block))
	i.block = 2 * block
	i.backup(read.Options{Block: i.block})
	i.block = 0
	rev := i.backup(read.Options{Block: block})
	for range 2 { // foreign, in small blocks
		r, _, err := i.read(read.Options{Base: rev.ID})
		must(t, err)
		must(t, i.f.ForgetRead(r.note.ID))
		_, err = i.store(r)
		must(t, err)
	}
	must(t, i.f.Job.Forget(ctx, []string{rev.ID}, repo.Guard{Force: true}))
	i.WriteAt([]byte("new"), 5*block)
	s := i.take("b")
	r, said, err := i.read(read.Options{Base: "last", Disk: s, Source: "rbd:vms/vm1@b", Map: rbd(), Check: 16})
	must(t, err)
	now, err := i.store(r)
	must(t, err)
	i.f.Want(now, i.Disk)
	if now.Block != 2*block || now.Read != repo.ReadCompare || r.note.Bytes <= 16*block {
		t.Errorf("%+v; said %s", now, said)
	}
}

// On a disk that may change under the read, a wrong map says nothing about others.
func TestNoVerdictWithoutASnapshot(t *testing.T) {
	i := newImage(t, alike(12*block))
	past := i.past(repo.ReadFull, repo.ReadCompare, repo.ReadForeign)
	i.WriteAt([]byte("new"), 5*block)
	r, said, err := i.read(read.Options{Base: "last", Disk: i.Disk, Source: "file:disk", Map: rbd(), Check: 12})
	must(t, err)
	if r.note.Mode != repo.ReadCompare || r.header.From != snapshotOf(past[2]) || len(i.trusted()) != 3 || len(i.reports()) > 0 || !strings.Contains(said, "the map is wrong") {
		t.Errorf("%+v; said %s", r.note, said)
	}
}

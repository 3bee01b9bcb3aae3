package chunk_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"backy/pkg/chunk"
	"backy/pkg/extent"
	"backy/pkg/repo"
	"backy/pkg/repo/repotest"
)

const block = repotest.Block

var ctx = context.Background()

// run makes objects of extents; the fixture may be nil.
func run(f *repotest.Fixture, in []byte, o chunk.Options) ([]byte, error) {
	var out bytes.Buffer
	o.In, o.Out, o.Now, o.Log = bytes.NewReader(in), &out, repotest.Clock(), repotest.Quiet
	if f != nil {
		o.Repo, o.Job = f.Repo, "vm1"
	}
	err := chunk.Run(ctx, o)
	return out.Bytes(), err
}

// record is a w or z record; one without data is zero.
type record struct {
	off, length int64
	data        []byte
}

func w(off int64, data []byte) record { return record{off, int64(len(data)), data} }
func z(off, length int64) record      { return record{off, length, nil} }

// write makes a stream of extents.
func write(t testing.TB, h extent.Header, records ...record) []byte {
	t.Helper()
	var b bytes.Buffer
	x, err := extent.NewWriter(&b, h)
	must(t, err)
	for _, r := range records {
		if r.data != nil {
			must(t, x.Data(r.off, r.data))
		} else {
			must(t, x.Zero(r.off, r.length))
		}
	}
	must(t, x.Close())
	return b.Bytes()
}

// apply does to a disk what the records say.
func apply(d *repotest.Disk, records []record) {
	for _, r := range records {
		d.Punch(r.off, r.length)
		if r.data != nil {
			d.WriteAt(r.data, r.off)
		}
	}
}

// whole is a stream of all of a disk.
func whole(t testing.TB, d *repotest.Disk) []byte {
	t.Helper()
	var records []record
	for off := int64(0); ; {
		start, end, err := d.NextData(off)
		if err != nil {
			return write(t, extent.Header{Size: d.Size()}, records...)
		}
		data := make([]byte, end-start)
		d.ReadAt(data, start)
		records, off = append(records, w(start, data)), end
	}
}

// from is a header for what comes after a revision.
func from(base repo.Revision, size int64) extent.Header {
	return extent.Header{From: repo.SnapshotName(base.ID), To: repo.SnapshotName(repo.NewID()), Size: size}
}

// filled is a disk of random data, a whole number of blocks and some bytes.
func filled(seed uint64, blocks, bytes int64) *repotest.Disk {
	d := repotest.NewDisk(blocks*block + bytes)
	d.WriteAt(repotest.Noise(rand.New(rand.NewPCG(seed, 0)), d.Size()), 0)
	return d
}

// stored backs a disk up.
func stored(t testing.TB, f *repotest.Fixture, d *repotest.Disk) repo.Revision {
	t.Helper()
	out, err := run(f, whole(t, d), chunk.Options{})
	must(t, err)
	rev, err := f.Commit(out)
	must(t, err)
	f.Want(rev, d)
	return rev
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

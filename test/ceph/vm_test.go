//go:build ceph

package ceph

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk/rbd/rbdtest"
)

// pool is the one that all images here are in, which this process writes to by Ceph's library.
const pool = "rbd"

var connect = sync.OnceValues(func() (*rados.IOContext, error) {
	conn, err := rados.NewConnWithUser("admin")
	if err == nil {
		err = conn.ReadDefaultConfigFile() // CEPH_CONF
	}
	if err == nil {
		err = conn.SetConfigOption("rbd_cache", "false")
	}
	if err == nil {
		err = conn.Connect()
	}
	if err != nil {
		return nil, err
	}
	return conn.OpenIOContext(pool)
})

// vm is an image that is in use, as that of a virtual machine is.
type vm struct {
	t      testing.TB
	rnd    *rand.Rand
	io     *rados.IOContext
	name   string
	img    *rbd.Image
	size   int64
	object int64  // bytes
	spread uint64 // over how many objects its data is striped; 0 is not at all
}

// newVM makes an image of objects of 1<<order bytes.
func newVM(t testing.TB, rnd *rand.Rand, name string, size int64, order uint64) *vm {
	t.Helper()
	rbdtest.Cluster(t)
	io, err := connect()
	must(t, err)
	v := &vm{t: t, rnd: rnd, io: io, name: name}
	v.create(size, order)
	t.Cleanup(v.remove)
	return v
}

// String is the image as Ceph's tools name it.
func (v *vm) String() string { return pool + "/" + v.name }

// snap is a snapshot of it.
func (v *vm) snap(name string) string { return v.String() + "@" + name }

// url is the image, or with a name its snapshot, as backy names it.
func (v *vm) url() string { return "rbd:" + v.String() }

func (v *vm) create(size int64, order uint64) {
	v.t.Helper()
	o := rbd.NewRbdImageOptions()
	defer o.Destroy()
	must(v.t, o.SetUint64(rbd.ImageOptionOrder, order))
	if v.spread > 0 {
		must(v.t, o.SetUint64(rbd.ImageOptionStripeCount, v.spread))
		must(v.t, o.SetUint64(rbd.ImageOptionStripeUnit, 64<<10))
	}
	must(v.t, rbd.CreateImage(v.io, v.name, uint64(size), o))
	v.size, v.object = size, 1<<order
	v.open()
}

func (v *vm) open() {
	v.t.Helper()
	img, err := rbd.OpenImage(v.io, v.name, rbd.NoSnapshot)
	must(v.t, err)
	v.img = img
}

func (v *vm) close() {
	v.t.Helper()
	if v.img != nil {
		must(v.t, v.img.Close())
		v.img = nil
	}
}

// remove removes the image with all its snapshots.
func (v *vm) remove() {
	v.t.Helper()
	if v.img == nil {
		v.open()
	}
	for _, s := range v.snapshots() {
		v.removeSnapshot(s)
	}
	v.close()
	must(v.t, rbd.RemoveImage(v.io, v.name))
}

// snapshots are the names of all, sorted.
func (v *vm) snapshots() (list []string) {
	v.t.Helper()
	infos, err := v.img.GetSnapshotNames()
	must(v.t, err)
	for _, s := range infos {
		list = append(list, s.Name)
	}
	slices.Sort(list)
	return list
}

func (v *vm) snapshot(name string) string {
	v.t.Helper()
	_, err := v.img.CreateSnapshot(name)
	must(v.t, err)
	return name
}

func (v *vm) removeSnapshot(name string) {
	v.t.Helper()
	must(v.t, v.img.GetSnapshot(name).Remove())
}

// wantSnapshots fails the test unless these snapshots are there, and no other.
func (v *vm) wantSnapshots(want ...string) {
	v.t.Helper()
	want = slices.Sorted(slices.Values(want))
	if got := v.snapshots(); !slices.Equal(got, want) {
		v.t.Errorf("the image has the snapshots %v, want %v", got, want)
	}
}

func (v *vm) resize(size int64) {
	v.t.Helper()
	must(v.t, v.img.Resize(uint64(size)))
	v.size = size
}

// write writes p, discard and zero do that.
func (v *vm) write(p []byte, off int64) {
	v.t.Helper()
	_, err := v.img.WriteAt(p, off)
	must(v.t, err)
}

func (v *vm) discard(off, length int64) {
	v.t.Helper()
	_, err := v.img.Discard(uint64(off), uint64(length))
	must(v.t, err)
}

func (v *vm) zero(off, length int64) {
	v.t.Helper()
	if off%512 != 0 || length%512 != 0 {
		v.write(make([]byte, length), off)
		return
	}
	_, err := v.img.WriteSame(uint64(off), uint64(length), make([]byte, 512), rados.OpFlagNone)
	must(v.t, err)
}

// fill writes all of the image.
func (v *vm) fill() {
	v.t.Helper()
	for off := int64(0); off < v.size; off += v.object {
		v.write(noise(v.rnd, min(v.object, v.size-off)), off)
	}
}

// place is a random range within the image, of no more than so many bytes: aligned or not, around the border of an object,
// or a whole one.
func (v *vm) place(most int64) (off, length int64) {
	length = 1 + v.rnd.Int64N(min(most, v.size))
	if v.rnd.IntN(2) == 0 {
		length = min(length, 1+v.rnd.Int64N(64<<10))
	}
	off = v.rnd.Int64N(v.size - length + 1)
	switch v.rnd.IntN(4) {
	case 0: // as file systems write
		off, length = off&^4095, (length+4095)&^4095
	case 1:
		off = off/v.object*v.object + v.object - v.rnd.Int64N(length+1)
	case 2:
		off, length = off/v.object*v.object, v.object
	}
	off = max(0, min(off, v.size-1))
	return off, min(length, v.size-off)
}

// use does one thing that who uses an image does, and tells what that was.
func (v *vm) use() string {
	v.t.Helper()
	switch v.rnd.IntN(8) {
	case 0:
		off, length := v.place(4 * v.object)
		v.discard(off, length)
		return fmt.Sprintf("discard %d+%d", off, length)
	case 1:
		off, length := v.place(2 * v.object)
		v.zero(off, length)
		return fmt.Sprintf("zero %d+%d", off, length)
	case 2: // what is there already
		off, length := v.place(1 << 20)
		p := make([]byte, length)
		_, err := v.img.ReadAt(p, off)
		must(v.t, err)
		v.write(p, off)
		return fmt.Sprintf("same %d+%d", off, length)
	default:
		off, length := v.place(6 << 20)
		p := noise(v.rnd, length)
		if v.rnd.IntN(3) == 0 {
			p = bytes.Repeat([]byte(fmt.Sprintf("%d ", v.rnd.Uint64())), int(length/2+1))[:length]
		}
		v.write(p, off)
		return fmt.Sprintf("write %d+%d", off, length)
	}
}

// features switches some of the image on or off.
func (v *vm) features(on bool, names ...string) {
	v.t.Helper()
	must(v.t, v.img.UpdateFeatures(uint64(rbd.FeatureSetFromNames(names)), on))
}

// mapped tells whether the image has an object map.
func (v *vm) mapped() bool {
	v.t.Helper()
	features, err := v.img.GetFeatures()
	must(v.t, err)
	return features&rbd.FeatureObjectMap != 0
}

// rebuild builds the maps of objects anew, of the image and of its snapshots.
func (v *vm) rebuild() {
	v.t.Helper()
	rbdtest.RBD(v.t, "object-map", "rebuild", "--no-progress", v.String())
	for _, s := range v.snapshots() {
		rbdtest.RBD(v.t, "object-map", "rebuild", "--no-progress", v.snap(s))
	}
}

// prefix is what the names of its objects begin with.
func (v *vm) prefix() string {
	v.t.Helper()
	info, err := v.img.Stat()
	must(v.t, err)
	return strings.TrimRight(info.Block_name_prefix, "\x00")
}

// noise is n bytes that do not compress.
func noise(rnd *rand.Rand, n int64) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rnd.Uint32())
	}
	p := make([]byte, n)
	rand.NewChaCha8(seed).Read(p)
	return p
}

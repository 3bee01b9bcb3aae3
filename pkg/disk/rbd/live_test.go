//go:build ceph

package rbd_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/ceph/go-ceph/rados"
	ceph "github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk/disktest"
	"backy/pkg/disk/rbd"
	"backy/pkg/disk/rbd/rbdtest"
)

// machine is a client that has an image open to write to it, as a virtual machine does, and holds its lock.
type machine struct {
	t   testing.TB
	img *ceph.Image
	r   *rand.Rand
}

func start(t testing.TB, a rbd.Address) *machine {
	t.Helper()
	conn, err := rados.NewConnWithUser("admin")
	must(t, err)
	must(t, conn.ReadConfigFile(os.Getenv("CEPH_CONF")))
	must(t, conn.SetConfigOption("rbd_cache", "false"))
	must(t, conn.SetConfigOption("rbd_discard_granularity_bytes", "4096")) // of less, a discard does nothing
	must(t, conn.Connect())
	pool, err := conn.OpenIOContext(a.Pool)
	must(t, err)
	pool.SetNamespace(a.Namespace)
	img, err := ceph.OpenImage(pool, a.Image, ceph.NoSnapshot)
	must(t, err)
	m := &machine{t: t, img: img, r: rand.New(rand.NewPCG(1, 1))}
	t.Cleanup(func() {
		must(t, img.Close())
		pool.Destroy()
		conn.Shutdown()
	})
	return m
}

func (m *machine) write(p []byte, off int64) {
	m.t.Helper()
	_, err := m.img.WriteAt(p, off)
	must(m.t, err)
}

// zero does it by one of the ways that there are.
func (m *machine) zero(off, length int64) {
	m.t.Helper()
	const page = 4096
	switch first, last := (off+page-1)/page*page, (off+length)/page*page; {
	case first < last && m.r.IntN(2) == 0:
		m.write(make([]byte, first-off), off)
		_, err := m.img.Discard(uint64(first), uint64(last-first))
		must(m.t, err)
		m.write(make([]byte, off+length-last), last)
	case length > 0 && m.r.IntN(2) == 0:
		_, err := m.img.WriteSame(uint64(off), uint64(length), make([]byte, 512), rados.OpFlagNone)
		must(m.t, err)
	default:
		m.write(make([]byte, length), off)
	}
}

func (m *machine) resize(size int64) {
	m.t.Helper()
	must(m.t, m.img.Resize(uint64(size)))
}

func (m *machine) restore(snapshot string) {
	m.t.Helper()
	must(m.t, m.img.GetSnapshot(snapshot).Rollback())
}

// live is the image of a machine.
func live(t *testing.T, a rbd.Address) disktest.Live {
	t.Helper()
	m := start(t, a)
	image := a.String()
	t.Cleanup(func() { rbdtest.RBD(t, "snap", "purge", "--no-progress", image) })
	return disktest.Live{Disk: open(t, a), Step: 512, Write: m.write, Zero: m.zero, Resize: m.resize}
}

func TestSnapshots(t *testing.T) {
	for kind, options := range map[string][]string{
		"fast-diff":     small,
		"no object map": {"--object-size", "64K", "--image-feature", "layering"},
		"striped":       {"--object-size", "64K", "--stripe-unit", "16K", "--stripe-count", "3"},
		"large objects": nil,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			disktest.Snapshots(t, 1, 6, func(t *testing.T, content []byte) disktest.Live { return live(t, image(t, content, options...)) })
		})
	}
}

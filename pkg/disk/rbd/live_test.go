//go:build ceph

package rbd_test

import (
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/ceph/go-ceph/rados"
	ceph "github.com/ceph/go-ceph/rbd"

	"backy/pkg/disk/disktest"
	"backy/pkg/disk/rbd"
	"backy/pkg/disk/rbd/rbdtest"
)

// machine is a client that has an image open to write to it, as a virtual machine does, and holds its lock.
type machine struct {
	t     testing.TB
	img   *ceph.Image
	r     *rand.Rand
	close func()
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
	m.close = sync.OnceFunc(func() {
		must(t, img.Close())
		pool.Destroy()
		conn.Shutdown()
	})
	t.Cleanup(m.close)
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
		m.discard(first, last-first)
		m.write(make([]byte, off+length-last), last)
	case length > 0 && m.r.IntN(2) == 0:
		m.writeSame(off, length)
	default:
		m.write(make([]byte, length), off)
	}
}

func (m *machine) discard(off, length int64) {
	m.t.Helper()
	_, err := m.img.Discard(uint64(off), uint64(length))
	must(m.t, err)
}

func (m *machine) writeSame(off, length int64) {
	m.t.Helper()
	_, err := m.img.WriteSame(uint64(off), uint64(length), make([]byte, 512), rados.OpFlagNone)
	must(m.t, err)
}

func (m *machine) resize(size int64) {
	m.t.Helper()
	must(m.t, m.img.Resize(uint64(size)))
}

func (m *machine) restore(snapshot string) {
	m.t.Helper()
	must(m.t, m.img.GetSnapshot(snapshot).Rollback())
}

// live is the image of a machine, and that.
func live(t testing.TB, a rbd.Address) (disktest.Live, *machine) {
	t.Helper()
	m := start(t, a)
	image := a.String()
	t.Cleanup(func() {
		m.close()
		rbdtest.RBD(t, "snap", "purge", "--no-progress", image)
	})
	return disktest.Live{Disk: open(t, a), Step: 512, Write: m.write, Zero: m.zero, Resize: m.resize}, m
}

func TestSnapshots(t *testing.T) {
	for kind, options := range map[string][]string{
		"fast-diff":     small,
		"no object map": unmapped,
		"striped":       {"--object-size", "64K", "--stripe-unit", "16K", "--stripe-count", "3"},
		"large objects": nil,
		"clone":         small,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			disktest.Snapshots(t, 1, 6, func(t *testing.T, content []byte) disktest.Live {
				a := image(t, content, options...)
				if kind == "clone" {
					a = clone(t, a, options...)
				}
				l, m := live(t, a)
				if kind == "no object map" {
					l.Restore = m.restore
				}
				return l
			})
		})
	}
}

// clone makes a clone of an image that has no snapshot yet.
func clone(t *testing.T, parent rbd.Address, options ...string) rbd.Address {
	t.Helper()
	s := snapshot(t, parent, "s")
	rbdtest.RBD(t, "snap", "protect", s.String())
	a := rbd.Address{Pool: "rbd", Image: name(t)}
	rbdtest.RBD(t, append(append([]string{"clone"}, options...), s.String(), a.String())...)
	t.Cleanup(func() {
		remove(t, a)
		rbdtest.RBD(t, "snap", "unprotect", s.String())
	})
	return a
}

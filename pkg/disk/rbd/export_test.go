//go:build ceph

package rbd

// Settle waits until the calls that were given up have come back.
func (d *Image) Settle() {
	d.open.Lock()
	defer d.open.Unlock()
}

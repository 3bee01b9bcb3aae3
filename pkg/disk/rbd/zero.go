//go:build ceph

package rbd

import (
	"fmt"

	"github.com/ceph/go-ceph/rados"
)

const (
	sector    = 512
	zeroPiece = 1 << 30 // what is zeroed at once, at most; the library takes less than 2 GiB
)

var zeroes [sector]byte

// Zero makes a range read as zero. Whole objects are discarded, which frees them; the rest is written, for a discard of a
// part promises nothing.
func (t *Target) Zero(off, length int64) error {
	if err := t.enter(off, length); err != nil {
		return err
	}
	defer t.leave()
	if t.fresh {
		return nil // no byte is given twice
	}
	end := off + length
	first, last := min((off+t.period-1)/t.period*t.period, end), end/t.period*t.period
	err := t.writeZeroes(off, first-off)
	step := max(1, zeroPiece/t.period) * t.period
	for at := first; at < last && err == nil; at += step {
		_, err = t.img.Discard(uint64(at), uint64(min(step, last-at)))
	}
	if from := max(first, last); err == nil && from < end {
		err = t.writeZeroes(from, end-from)
	}
	if err != nil {
		return fmt.Errorf("write zeroes to rbd:%s from byte %d on: %w", t.cluster.Address, off, t.cluster.explain(err))
	}
	return nil
}

// writeZeroes has the cluster repeat a sector of zeroes, and writes what is not whole sectors.
func (t *Target) writeZeroes(off, length int64) error {
	for length > 0 {
		n := min(length, sector-off%sector)
		if n == sector {
			n = min(length, zeroPiece) &^ (sector - 1)
			if _, err := t.img.WriteSame(uint64(off), uint64(n), zeroes[:], rados.OpFlagNone); err != nil {
				return err
			}
		} else if _, err := t.img.WriteAt(zeroes[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

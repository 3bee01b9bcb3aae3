package repo

import "fmt"

// MaxDisk is the largest disk, in bytes: 4 EiB, so that its size, rounded up to a block, is still a number.
const MaxDisk = 1 << 62

// CheckSize refuses a size that no disk has here.
func CheckSize(n int64) error {
	if n < 0 || n > MaxDisk {
		return fmt.Errorf("a disk of %d bytes: at most %d can be backed up", n, int64(MaxDisk))
	}
	return nil
}

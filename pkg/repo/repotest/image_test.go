package repotest_test

import (
	"testing"

	"backy/pkg/disk/disktest"
	"backy/pkg/repo/repotest"
)

// The image in memory is held to what a driver is held to.
func TestImage(t *testing.T) {
	for seed := range uint64(5) {
		disktest.Snapshots(t, seed, 12, func(_ *testing.T, content []byte) disktest.Live {
			i := repotest.NewImage(repotest.NewDisk(int64(len(content))))
			i.WriteAt(content, 0)
			return disktest.Live{
				Disk: i, Step: 512, Write: func(p []byte, off int64) { i.WriteAt(p, off) },
				Zero: i.Punch, Resize: i.Resize,
			}
		})
	}
}

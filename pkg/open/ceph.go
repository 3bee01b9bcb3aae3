//go:build ceph

package open

import (
	"backy/pkg/disk"
	"backy/pkg/disk/rbd"
)

// image opens an image of Ceph as a source.
func image(address string) (disk.Disk, error) {
	a, err := rbd.Parse(address)
	if err != nil {
		return nil, err
	}
	d, err := rbd.Open(a)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// imageTarget opens an image of Ceph as Target says.
func imageTarget(address string, size int64, force bool) (disk.Writer, error) {
	a, err := rbd.Parse(address)
	if err != nil {
		return nil, err
	}
	there, err := rbd.Exists(a)
	switch {
	case err != nil:
		return nil, err
	case there && !force:
		return nil, exists("rbd:" + address)
	case there:
		w, err := rbd.OpenTarget(a, size)
		if err != nil {
			return nil, err
		}
		return w, nil
	}
	w, err := rbd.Create(a, size)
	if err != nil {
		return nil, err
	}
	return w, nil
}

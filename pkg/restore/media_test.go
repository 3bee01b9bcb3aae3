package restore

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"

	"backy/pkg/object"
	"backy/pkg/object/faulty"
	"backy/pkg/object/mem"
)

// A bad sector is damage to a restore; what may be over in a moment is not.
func TestBadSectors(t *testing.T) {
	for cause, damage := range map[error]bool{unix.EIO: true, unix.EUCLEAN: true, unix.EBADMSG: true, unix.ETIMEDOUT: false, unix.ESTALE: false, unix.EACCES: false} {
		store := &faulty.Store{Store: new(mem.Store), Fail: func(faulty.Op, int, object.Key) error {
			return &fs.PathError{Op: "read", Path: "object", Err: cause}
		}}
		_, err := pastMedia{store}.Get(context.Background(), object.Key{}, nil)
		if isDamage(err) != damage || !damage && !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

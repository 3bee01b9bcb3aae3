//go:build ceph

package rbd

import (
	"errors"
	"io/fs"
	"syscall"
)

// number is the error number in an error of Ceph's libraries, or 0.
func number(err error) syscall.Errno {
	var e interface{ ErrorCode() int }
	if !errors.As(err, &e) {
		return 0
	}
	return syscall.Errno(max(e.ErrorCode(), -e.ErrorCode()))
}

// errNoAnswer is in words what the cluster's silence is in numbers.
var errNoAnswer = errors.New("the cluster has not answered in time (rados_osd_op_timeout, rados_mon_op_timeout); is it up, and has it space?")

// cause is an error of Ceph's libraries as the operating system would say it, so that fs.ErrNotExist and the like are found
// in it.
func cause(err error) error {
	switch n := number(err); n {
	case 0:
		return err
	case syscall.ETIMEDOUT:
		return errNoAnswer
	default:
		return n
	}
}

// missing is fs.ErrNotExist in words of its own.
type missing string

func (m missing) Error() string        { return string(m) }
func (m missing) Is(target error) bool { return target == fs.ErrNotExist }

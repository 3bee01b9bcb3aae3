// Package rbd is the driver for images of Ceph: both as sources and as targets. It needs Ceph's libraries and the build tag
// ceph; without the tag, only addresses are understood.
package rbd

import (
	"errors"
	"fmt"
	"strings"
)

// Form is what an address looks like.
const Form = "POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]"

// Address tells where an image is.
type Address struct {
	Pool      string
	Namespace string // "" is the pool's own
	Image     string
	Snapshot  string // "" is the image as it is now
}

// Parse takes an address apart. As with Ceph's own tools no part of it can have a / or @ in it. It asks no cluster.
func Parse(s string) (Address, error) {
	path, snapshot, isSnapshot := strings.Cut(s, "@")
	parts := strings.Split(path, "/")
	a := Address{Pool: parts[0], Image: parts[len(parts)-1], Snapshot: snapshot}
	var err error
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return Address{}, fmt.Errorf("%q has a zero byte in it", s)
	case len(parts) < 2:
		err = errors.New("the pool is missing")
	case len(parts) > 3:
		err = errors.New("there are too many parts before the image")
	case a.Pool == "":
		err = errors.New("the pool has no name")
	case len(parts) == 3 && parts[1] == "":
		err = errors.New("the namespace has no name")
	case a.Image == "":
		err = errors.New("the image has no name")
	case isSnapshot && snapshot == "":
		err = errors.New("the snapshot has no name")
	case strings.ContainsAny(snapshot, "/@"):
		err = errors.New("the name of a snapshot has no / and no @ in it")
	case len(parts) == 3:
		a.Namespace = parts[1]
	}
	if err != nil {
		return Address{}, fmt.Errorf("rbd:%s: %w; want rbd:%s", s, err, Form)
	}
	return a, nil
}

// String is the address as Parse takes it.
func (a Address) String() string {
	s := a.pool() + "/" + a.Image
	if a.Snapshot != "" {
		s += "@" + a.Snapshot
	}
	return s
}

// pool is the pool with the namespace.
func (a Address) pool() string {
	if a.Namespace == "" {
		return a.Pool
	}
	return a.Pool + "/" + a.Namespace
}

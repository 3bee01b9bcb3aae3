package chunk

import (
	"errors"
	"fmt"
	"sync"

	"backy/pkg/object"
	"backy/pkg/repo"
)

// damage is what was found bad of the base. The run goes on to its end, so that all of it is found, and then fails: what
// it would make is not right.
type damage struct {
	mu    sync.Mutex
	keys  map[object.Key]bool
	first error
}

// lost marks an object of the base as bad. An error that does not say so is returned as it is. Safe for concurrent use.
func (s *stage) lost(key object.Key, err error) error {
	if !errors.Is(err, object.ErrNotExist) && !errors.As(err, new(*object.BadError)) {
		return err
	}
	d := &s.damage
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.first == nil {
		d.first, d.keys = err, map[object.Key]bool{}
	}
	if d.keys[key] {
		return nil
	}
	d.keys[key] = true
	if s.look.marks[key] {
		return nil
	}
	return s.Repo.Mark(key, err.Error())
}

// damaged fails if anything of the base was bad. A read of ours then reads all that is below it; a stream from elsewhere
// would be the same once more.
func (s *stage) damaged() error {
	err := s.damage.first
	if err == nil {
		return nil
	}
	if n := len(s.damage.keys) - 1; n > 0 {
		err = fmt.Errorf("%w; and %d more objects of the base are bad", err, n)
	}
	if s.noted {
		return &repo.AgainError{Err: fmt.Errorf("%w; what is bad is marked, and the next run reads what it held from the source", err)}
	}
	return fmt.Errorf("%w; what is bad is marked; send the whole disk, not what differs from a base", err)
}

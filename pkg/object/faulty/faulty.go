// Package faulty is an object store that fails when it is told to, for tests.
package faulty

import (
	"context"
	"sync"

	"backy/pkg/object"
)

// Op is a call of a store.
type Op string

// The calls.
const (
	Get     Op = "get"
	Has     Op = "has"
	Put     Op = "put"
	Publish Op = "publish"
)

// Store passes each call on to another store, unless Fail has an error for it.
type Store struct {
	object.Store
	// Fail is asked before each call; n counts the calls of this op from 0 on. A non-nil error is returned in
	// place of the call. Spoil, if set, may change the frame that a Get returns.
	Fail  func(op Op, n int, key object.Key) error
	Spoil func(key object.Key, frame []byte) []byte

	mu    sync.Mutex
	calls map[Op]int
}

func (s *Store) fail(op Op, key object.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[Op]int{}
	}
	n := s.calls[op]
	s.calls[op]++
	if s.Fail == nil {
		return nil
	}
	return s.Fail(op, n, key)
}

// Get implements object.Getter.
func (s *Store) Get(ctx context.Context, key object.Key, buf []byte) ([]byte, error) {
	if err := s.fail(Get, key); err != nil {
		return buf, err
	}
	frame, err := s.Store.Get(ctx, key, buf)
	if err == nil && s.Spoil != nil {
		frame = s.Spoil(key, frame)
	}
	return frame, err
}

// Has implements object.Haser.
func (s *Store) Has(ctx context.Context, key object.Key) (bool, error) {
	if err := s.fail(Has, key); err != nil {
		return false, err
	}
	return s.Store.Has(ctx, key)
}

// Put implements object.Putter.
func (s *Store) Put(ctx context.Context, key object.Key, frame []byte) error {
	if err := s.fail(Put, key); err != nil {
		return err
	}
	return s.Store.Put(ctx, key, frame)
}

// Publish implements object.Putter.
func (s *Store) Publish(ctx context.Context) error {
	if err := s.fail(Publish, object.Key{}); err != nil {
		return err
	}
	return s.Store.Publish(ctx)
}

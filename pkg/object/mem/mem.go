// Package mem is an object store in memory.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"backy/pkg/object"
)

// Store keeps objects in a map. The zero value is an empty store.
type Store struct {
	mu     sync.RWMutex
	frames map[object.Key][]byte
}

var _ object.Store = (*Store)(nil)

// Get implements object.Getter.
func (s *Store) Get(_ context.Context, key object.Key, buf []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	frame, ok := s.frames[key]
	if !ok {
		return buf, fmt.Errorf("get %s: %w", key, object.ErrNotExist)
	}
	return append(buf[:0], frame...), nil
}

// Has implements object.Haser.
func (s *Store) Has(_ context.Context, key object.Key) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.frames[key]
	return ok, nil
}

// Put implements object.Putter; the object is visible at once.
func (s *Store) Put(ctx context.Context, key object.Key, frame []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frames == nil {
		s.frames = map[object.Key][]byte{}
	}
	s.frames[key] = bytes.Clone(frame)
	return nil
}

// Publish implements object.Putter.
func (s *Store) Publish(ctx context.Context) error { return ctx.Err() }

// Len is the number of objects.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.frames)
}

// Delete takes an object away, for tests of what happens then.
func (s *Store) Delete(key object.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.frames, key)
}

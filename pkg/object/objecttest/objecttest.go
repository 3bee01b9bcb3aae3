// Package objecttest is the contract of object.Store as a test.
package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"backy/pkg/object"
)

// Object makes an object of n bytes that seed tells from others: its key and its frame.
func Object(t testing.TB, kind object.Kind, seed string, n int) (object.Key, []byte) {
	t.Helper()
	content := bytes.Repeat([]byte(seed+" "), n/(len(seed)+1)+1)[:n]
	e, err := object.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	frame, err := e.Encode(nil, content)
	if err != nil {
		t.Fatal(err)
	}
	return object.Key{Kind: kind, Name: object.Sum(content)}, frame
}

// Run tests the stores that open returns, each of them empty.
func Run(t *testing.T, open func(t *testing.T) object.Store) {
	ctx := context.Background()
	put := func(t *testing.T, s object.Store, key object.Key, frame []byte) {
		t.Helper()
		buf := bytes.Clone(frame)
		if err := s.Put(ctx, key, buf); err != nil {
			t.Fatal(err)
		}
		clear(buf) // it is the caller's again
	}
	want := func(t *testing.T, s object.Store, key object.Key, frame []byte) {
		t.Helper()
		if ok, err := s.Has(ctx, key); err != nil || !ok {
			t.Errorf("has %s: %v, %v", key, ok, err)
		}
		if got, err := s.Get(ctx, key, nil); err != nil || !bytes.Equal(got, frame) {
			t.Errorf("get %s: %d bytes, %v", key, len(got), err)
		}
	}

	t.Run("absent", func(t *testing.T) {
		s := open(t)
		key, _ := Object(t, object.Chunk, "absent", 10)
		if ok, err := s.Has(ctx, key); ok || err != nil {
			t.Errorf("has: %v, %v", ok, err)
		}
		if _, err := s.Get(ctx, key, nil); !errors.Is(err, object.ErrNotExist) {
			t.Errorf("get: %v", err)
		}
	})
	t.Run("put, publish, get", func(t *testing.T) {
		s := open(t)
		frames := map[object.Key][]byte{}
		for i := range 200 { // more than a store may gather before it publishes
			for _, kind := range object.Kinds {
				key, frame := Object(t, kind, fmt.Sprint(i), 1000*(i%7)+i)
				frames[key] = frame
				put(t, s, key, frame)
			}
		}
		if err := s.Publish(ctx); err != nil {
			t.Fatal(err)
		}
		for key, frame := range frames {
			want(t, s, key, frame)
		}
	})
	t.Run("kinds apart", func(t *testing.T) {
		s := open(t)
		chunk, frame := Object(t, object.Chunk, "x", 100)
		put(t, s, chunk, frame)
		if err := s.Publish(ctx); err != nil {
			t.Fatal(err)
		}
		if ok, err := s.Has(ctx, object.Key{Kind: object.Page, Name: chunk.Name}); ok || err != nil {
			t.Errorf("a chunk counts as a page: %v, %v", ok, err)
		}
	})
	t.Run("put again replaces", func(t *testing.T) {
		s := open(t)
		key, frame := Object(t, object.Chunk, "bad", 100)
		put(t, s, key, []byte("rotten"))
		if err := s.Publish(ctx); err != nil {
			t.Fatal(err)
		}
		put(t, s, key, frame)
		put(t, s, key, frame) // and twice between two Publish
		if err := s.Publish(ctx); err != nil {
			t.Fatal(err)
		}
		want(t, s, key, frame)
	})
	t.Run("get into a buffer", func(t *testing.T) {
		s := open(t)
		key, frame := Object(t, object.Chunk, "buffer", 5000)
		put(t, s, key, frame)
		if err := s.Publish(ctx); err != nil {
			t.Fatal(err)
		}
		for _, buf := range [][]byte{make([]byte, 3), make([]byte, 0, 1<<16), []byte("something else")} {
			if got, err := s.Get(ctx, key, buf); err != nil || !bytes.Equal(got, frame) {
				t.Errorf("get: %d bytes, %v", len(got), err)
			}
		}
	})
	t.Run("concurrent readers", func(t *testing.T) {
		s := open(t)
		key, frame := Object(t, object.Page, "many", 3000)
		put(t, s, key, frame)
		if err := s.Publish(ctx); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { want(t, s, key, frame) })
		}
		for i := range 50 {
			k, f := Object(t, object.Chunk, fmt.Sprint("beside", i), 100)
			put(t, s, k, f)
		}
		if err := s.Publish(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	t.Run("cancelled", func(t *testing.T) {
		s := open(t)
		key, frame := Object(t, object.Chunk, "late", 100)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		err := s.Put(ended, key, frame)
		if err == nil {
			err = s.Publish(ended)
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("put after the end: %v", err)
		}
	})
}

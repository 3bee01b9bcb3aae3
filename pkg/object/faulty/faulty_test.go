package faulty

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"backy/pkg/object"
	"backy/pkg/object/mem"
	"backy/pkg/object/objecttest"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return &Store{Store: new(mem.Store)} })
}

func TestFailsWhenTold(t *testing.T) {
	ctx, broken := context.Background(), errors.New("broken")
	s := &Store{Store: new(mem.Store), Fail: func(op Op, n int, _ object.Key) error {
		if op == Put && n == 1 {
			return broken
		}
		return nil
	}}
	key, frame := objecttest.Object(t, object.Chunk, "x", 10)
	for n, want := range []error{nil, broken, nil} {
		if err := s.Put(ctx, key, frame); err != want {
			t.Errorf("put %d: %v", n, err)
		}
	}
	s.Spoil = func(_ object.Key, frame []byte) []byte { frame[5] ^= 1; return frame }
	if got, err := s.Get(ctx, key, nil); err != nil || bytes.Equal(got, frame) {
		t.Errorf("not spoilt: %v", err)
	}
}

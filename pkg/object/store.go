package object

import (
	"context"
	"fmt"
	"io/fs"
)

// ErrNotExist is what Get returns, wrapped, for an object that is not there.
var ErrNotExist = fs.ErrNotExist

// Getter reads objects.
type Getter interface {
	// Get reads the frame of an object into buf[:0], growing it as needed, and returns it. One that is not
	// there is ErrNotExist; any other error says nothing about the object. Safe for concurrent use.
	Get(ctx context.Context, key Key, buf []byte) ([]byte, error)
}

// Haser looks objects up.
type Haser interface {
	// Has reports whether the object is in place, without looking at its content. An error is not a no.
	// Safe for concurrent use.
	Has(ctx context.Context, key Key) (bool, error)
}

// Putter keeps objects.
type Putter interface {
	// Put keeps a frame, in place of one that is there. It may return before the object is visible or durable;
	// frame may be reused as soon as it returns. Objects become visible in the order in which they were put,
	// each of them whole. One Put at a time.
	Put(ctx context.Context, key Key, frame []byte) error
	// Publish returns once all that was put is visible and its content, not yet its name, is durable.
	// After an error of Put or Publish, nothing more can be put.
	Publish(ctx context.Context) error
}

// Store is where objects are kept; objecttest.Run is its contract as a test. What makes the names durable is the
// owner's business (see pkg/repo): a store that has no such notion makes them durable in Publish.
type Store interface {
	Getter
	Haser
	Putter
}

// Fetch gets and decodes one object; frame and dst are buffers that may be nil and are returned for the next call.
func Fetch(ctx context.Context, g Getter, d *Decoder, key Key, frame, dst []byte) (content, frameBuf []byte, err error) {
	frame, err = g.Get(ctx, key, frame)
	if err != nil {
		return dst, frame, fmt.Errorf("get %s: %w", key, err)
	}
	content, err = d.Decode(key, dst, frame)
	if err != nil {
		return dst, frame, err
	}
	return content, frame, nil
}

package object

import (
	"fmt"
)

// BadError says that the bytes kept for an object are not its content.
type BadError struct {
	Key    Key
	Reason string // "does not decode: …", "hash is …"
	Got    Name   // the hash of what the bytes decode to; zero where they do not decode
}

func (e *BadError) Error() string { return e.Key.String() + " is damaged: " + e.Reason }

// MaxFrame is the most bytes that a frame over this much content has (ZSTD_COMPRESSBOUND and some).
func MaxFrame(content int) int { return content + content>>7 + 1024 }

// Encoder makes frames: zstd, level 1, with checksum and content size. One for each goroutine.
type Encoder struct{ encoder }

// NewEncoder returns an encoder; its memory is about that of a block.
func NewEncoder() (*Encoder, error) {
	e, err := newEncoder()
	return &Encoder{e}, err
}

// Encode appends the frame over content to dst.
func (e *Encoder) Encode(dst, content []byte) ([]byte, error) { return e.encode(dst, content) }

// Decoder opens frames. One for each goroutine.
type Decoder struct {
	decoder
	limit int
}

// NewDecoder returns a decoder for objects of at most limit bytes of content.
func NewDecoder(limit int) (*Decoder, error) {
	d, err := newDecoder(limit)
	return &Decoder{d, limit}, err
}

// Decode writes the content of the frame to dst[:0], growing it up to the limit, and checks it against the name.
// What is wrong with the frame is a *BadError.
func (d *Decoder) Decode(key Key, dst, frame []byte) ([]byte, error) {
	content, err := d.decode(dst[:0], frame)
	if err != nil {
		return nil, &BadError{Key: key, Reason: fmt.Sprintf("does not decode: %v", err)}
	}
	if len(content) > d.limit {
		return nil, &BadError{Key: key, Reason: fmt.Sprintf("holds %d bytes, more than %d", len(content), d.limit)}
	}
	if sum := Sum(content); sum != key.Name {
		return nil, &BadError{Key: key, Reason: "hash is " + sum.String(), Got: sum}
	}
	return content, nil
}

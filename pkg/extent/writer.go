package extent

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// direct is the payload from which on the Writer passes it to the underlying writer as it is, without a copy.
const direct = 4096

// Writer writes a stream. It is not safe for use by several goroutines at once.
type Writer struct {
	w      *bufio.Writer
	order  order
	closed bool
	err    error // sticky: after it the stream can only be broken
}

// NewWriter begins a stream and writes its header at once. Payloads of 4 KiB and more go to w as they are, so w may well be
// an os.File; it needs no buffer of its own.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if h.Size < 0 {
		return nil, fmt.Errorf("write extent stream: size %d is negative", h.Size)
	}
	b := append(make([]byte, 0, 64), Magic...)
	for _, r := range []struct {
		kind byte
		name string
	}{{'f', h.From}, {'t', h.To}} {
		if len(r.name) > MaxName {
			return nil, fmt.Errorf("write extent stream: name %.40q… has %d bytes, more than %d", r.name, len(r.name), MaxName)
		}
		if r.name != "" {
			b = binary.LittleEndian.AppendUint32(append(b, r.kind), uint32(len(r.name)))
			b = append(b, r.name...)
		}
	}
	b = binary.LittleEndian.AppendUint64(append(b, 's'), uint64(h.Size))
	x := &Writer{w: bufio.NewWriterSize(w, direct), order: order{size: h.Size}}
	x.w.Write(b) // a bufio.Writer keeps its first error for the Flush
	if err := x.w.Flush(); err != nil {
		return nil, fmt.Errorf("write extent stream: %w", err)
	}
	return x, nil
}

// Data writes that the disk holds p from byte off on. p is not kept.
func (x *Writer) Data(off int64, p []byte) error {
	if err := x.record('w', off, int64(len(p))); err != nil {
		return err
	}
	if len(p) >= direct {
		x.w.Flush()
	}
	_, err := x.w.Write(p)
	return x.fail(err)
}

// DataFrom writes that the disk holds, from byte off on, the length bytes that pass gives to the underlying writer, no more
// and no less. If pass fails, the stream can only be broken.
func (x *Writer) DataFrom(off, length int64, pass func() error) error {
	if err := x.record('w', off, length); err != nil {
		return err
	}
	if err := x.w.Flush(); err != nil {
		return x.fail(err)
	}
	return x.fail(pass())
}

// Zero writes that length bytes from byte off on are zero; it costs no more for 5 TiB than for one byte.
func (x *Writer) Zero(off, length int64) error { return x.record('z', off, length) }

// Close writes the end record; a stream without one is not valid, so whoever must give up does not call it. It does not
// close the underlying writer. After a failed write it fails too, and writes nothing.
func (x *Writer) Close() error {
	if x.err == nil && x.closed {
		return nil
	}
	x.closed = true
	if x.err == nil {
		x.w.WriteByte('e')
		x.fail(x.w.Flush())
	}
	return x.err
}

// record writes the head of a w or z record.
func (x *Writer) record(kind byte, off, length int64) error {
	if x.err == nil && x.closed {
		return x.fail(errors.New("record after the end"))
	}
	if x.err != nil {
		return x.err
	}
	reason := "negative offset or length"
	if off >= 0 && length >= 0 && off <= math.MaxInt64-length {
		reason = x.order.next(kind, uint64(off), uint64(length))
	}
	if reason != "" {
		return x.fail(errors.New(reason))
	}
	var b [17]byte
	b[0] = kind
	binary.LittleEndian.PutUint64(b[1:], uint64(off))
	binary.LittleEndian.PutUint64(b[9:], uint64(length))
	_, err := x.w.Write(b[:])
	return x.fail(err)
}

func (x *Writer) fail(err error) error {
	if err != nil && x.err == nil {
		x.err = fmt.Errorf("write extent stream: %w", err)
	}
	return x.err
}

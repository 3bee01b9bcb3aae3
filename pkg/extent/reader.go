package extent

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// readBuffer is small against a payload: what the buffer has swallowed of it is copied once more.
const readBuffer = 32 << 10

// Reader reads a stream. It is not safe for use by several goroutines at once.
type Reader struct {
	r       *bufio.Reader
	header  Header
	order   order
	pos     int64 // in the stream
	records int64 // begun so far
	start   int64 // where the present record began
	pending byte  // the kind of a record whose first byte is read already, or 0
	left    int64 // unread data of the present extent
	err     error // sticky: io.EOF, or why nothing more can be said
}

// NewReader reads the header of a stream, up to the first extent. Nothing is allocated by numbers in the stream before they
// are checked. Its errors, and those of Next and Read, wrap ErrTruncated or are a *FormatError, or come from r.
func NewReader(r io.Reader) (*Reader, error) {
	x := &Reader{r: bufio.NewReaderSize(r, readBuffer)}
	var magic [len(Magic)]byte
	if err := x.full(magic[:]); err != nil {
		return nil, err
	}
	if string(magic[:]) != Magic {
		return nil, x.bad("begins with %q: not the format of `rbd export-diff` version 1", magic[:])
	}
	var seen [256]bool
	for {
		kind, err := x.kind()
		if err != nil {
			return nil, err
		}
		if kind != 'f' && kind != 't' && kind != 's' {
			x.pending = kind
			break
		}
		if seen[kind] {
			return nil, x.bad("second %c record", kind)
		}
		seen[kind] = true
		if err := x.readHeader(kind); err != nil {
			return nil, err
		}
	}
	if x.pending != 'w' && x.pending != 'z' && x.pending != 'e' {
		return nil, x.bad("unknown record %q", x.pending)
	}
	if !seen['s'] {
		return nil, x.bad("%c record before the size (s record)", x.pending)
	}
	x.order.size = x.header.Size
	return x, nil
}

// Header is what the stream said before its extents.
func (x *Reader) Header() Header { return x.header }

// Next goes on to the next extent, past unread data of the former. io.EOF comes only after the end record and the true end
// of the input, so it proves that the stream is whole.
func (x *Reader) Next() (Extent, error) {
	if x.err != nil {
		return Extent{}, x.err
	}
	if err := x.skip(); err != nil {
		return Extent{}, err
	}
	kind, err := x.kind()
	if err != nil {
		return Extent{}, err
	}
	switch kind {
	case 'w', 'z':
	case 'e':
		return Extent{}, x.end()
	case 'f', 't', 's':
		return Extent{}, x.bad("%c record after the first w or z record", kind)
	default:
		return Extent{}, x.bad("unknown record %q", kind)
	}
	var b [16]byte
	if err := x.full(b[:]); err != nil {
		return Extent{}, err
	}
	off, length := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	if reason := x.order.next(kind, off, length); reason != "" {
		return Extent{}, x.bad("%s", reason)
	}
	if kind == 'w' {
		x.left = int64(length)
	}
	return Extent{int64(off), int64(length), kind == 'z'}, nil
}

// Read reads data of the present extent, and says io.EOF at its end; a zero extent has no data. A large p is filled straight
// from the underlying reader.
func (x *Reader) Read(p []byte) (int, error) {
	if x.left == 0 {
		return 0, io.EOF
	}
	if x.err != nil || len(p) == 0 {
		return 0, x.err
	}
	n, err := x.r.Read(p[:min(int64(len(p)), x.left)])
	x.pos += int64(n)
	x.left -= int64(n)
	if err != nil {
		return n, x.failed(err)
	}
	return n, nil
}

// readHeader reads what follows the first byte of an f, t or s record.
func (x *Reader) readHeader(kind byte) error {
	var b [8]byte
	if kind == 's' {
		if err := x.full(b[:]); err != nil {
			return err
		}
		size := binary.LittleEndian.Uint64(b[:])
		if size > math.MaxInt64 {
			return x.bad("size %d is too large", size)
		}
		x.header.Size = int64(size)
		return nil
	}
	if err := x.full(b[:4]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(b[:])
	if n == 0 || n > MaxName {
		return x.bad("%c record with a name of %d bytes: want 1 to %d", kind, n, MaxName)
	}
	name := make([]byte, n)
	if err := x.full(name); err != nil {
		return err
	}
	if kind == 'f' {
		x.header.From = string(name)
	} else {
		x.header.To = string(name)
	}
	return nil
}

// kind reads the first byte of a record.
func (x *Reader) kind() (byte, error) {
	if k := x.pending; k != 0 {
		x.pending = 0
		return k, nil
	}
	x.records++
	x.start = x.pos
	k, err := x.r.ReadByte()
	if err != nil {
		return 0, x.failed(err)
	}
	x.pos++
	return k, nil
}

// skip passes over what is unread of the present extent.
func (x *Reader) skip() error {
	for x.left > 0 {
		n, err := x.r.Discard(int(min(x.left, 1<<30)))
		x.pos += int64(n)
		x.left -= int64(n)
		if err != nil {
			return x.failed(err)
		}
	}
	return nil
}

// end proves that nothing follows the end record.
func (x *Reader) end() error {
	_, err := x.r.ReadByte()
	switch {
	case err == nil:
		return x.bad("data after the end record")
	case !errors.Is(err, io.EOF):
		return x.failed(err)
	}
	x.err = io.EOF
	return x.err
}

func (x *Reader) full(p []byte) error {
	n, err := io.ReadFull(x.r, p)
	x.pos += int64(n)
	if err != nil {
		return x.failed(err)
	}
	return nil
}

func (x *Reader) failed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = ErrTruncated
	}
	x.err = fmt.Errorf("extent stream, record %d, at byte %d: %w", x.records, x.pos, err)
	return x.err
}

func (x *Reader) bad(format string, args ...any) error {
	x.err = &FormatError{x.records, x.start, fmt.Sprintf(format, args...)}
	return x.err
}

package object

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"backy/pkg/keyval"
)

// The stream of objects is a tar archive: an entry "stream" that says what is coming, the objects under their keys,
// each page after what it names, and an entry "revision" that says what came. See doc/format.md.
const (
	firstEntry = "stream"
	lastEntry  = "revision"
	maxEntry   = 1 << 20 // of the first and the last entry, bytes
	tarBlock   = 512
)

// StreamWriter writes a stream of objects.
type StreamWriter struct {
	buf *bufio.Writer
	tar *tar.Writer
}

// NewStreamWriter writes the first entry, at once: who stores the stream registers with what it says.
func NewStreamWriter(w io.Writer, first keyval.Pairs) (*StreamWriter, error) {
	s := &StreamWriter{buf: bufio.NewWriterSize(w, 64<<10)}
	s.tar = tar.NewWriter(s.buf)
	err := s.entry(firstEntry, first.Bytes())
	if err == nil {
		err = s.tar.Flush() // the padding
	}
	if err == nil {
		err = s.buf.Flush()
	}
	return s, err
}

// Put writes one object.
func (s *StreamWriter) Put(key Key, frame []byte) error { return s.entry(key.String(), frame) }

// Close writes the last entry and the end of the archive. A stream without them is not valid.
func (s *StreamWriter) Close(last keyval.Pairs) error {
	if err := s.entry(lastEntry, last.Bytes()); err != nil {
		return err
	}
	if err := s.tar.Close(); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	if err := s.buf.Flush(); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	return nil
}

func (s *StreamWriter) entry(name string, content []byte) error {
	err := s.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o640, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = s.tar.Write(content)
	}
	if err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	return nil
}

// StreamReader reads a stream of objects.
type StreamReader struct {
	in    counter
	tar   *tar.Reader
	first keyval.Pairs
	last  keyval.Pairs
	frame []byte
	limit func(Kind) int
}

// ErrStreamEnd is what a stream is wrapped in that ends before its end, or goes on after it.
var ErrStreamEnd = errors.New("the stream of objects is not whole")

// NewStreamReader reads the first entry. The limit is the most bytes that a frame of a kind may have; Next asks it.
func NewStreamReader(r io.Reader, limit func(Kind) int) (*StreamReader, error) {
	s := &StreamReader{in: counter{r: r}, limit: limit}
	s.tar = tar.NewReader(&s.in)
	h, err := s.tar.Next()
	switch {
	case errors.Is(err, io.EOF) && s.in.n == 0:
		return nil, fmt.Errorf("%w: it is empty; the stage before failed, or sent nothing", ErrStreamEnd)
	case err != nil:
		return nil, s.cut(err)
	case h.Name != firstEntry || h.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("this is no stream of objects: its first entry is %.80q, not %q", h.Name, firstEntry)
	}
	s.first, err = s.pairs(h)
	return s, err
}

// First is what the first entry says.
func (s *StreamReader) First() keyval.Pairs { return s.first }

// Last is what the last entry says, once Next has returned io.EOF.
func (s *StreamReader) Last() keyval.Pairs { return s.last }

// Next returns the next object; its frame is valid until the next call. After the last entry it makes sure that the
// archive has its end and that nothing but zeroes follow it, and returns io.EOF.
func (s *StreamReader) Next() (Key, []byte, error) {
	h, err := s.tar.Next()
	if err != nil {
		return Key{}, nil, s.cut(err)
	}
	if h.Typeflag != tar.TypeReg {
		return Key{}, nil, fmt.Errorf("entry %.80q of the stream of objects is no plain file", h.Name)
	}
	if h.Name == lastEntry {
		if s.last, err = s.pairs(h); err != nil {
			return Key{}, nil, err
		}
		return Key{}, nil, s.end()
	}
	key, err := ParseKey(h.Name)
	if err != nil {
		return Key{}, nil, fmt.Errorf("stream of objects: %w", err)
	}
	if limit := s.limit(key.Kind); h.Size < 1 || h.Size > int64(limit) {
		return Key{}, nil, fmt.Errorf("stream of objects: %s has %d bytes, and may have 1 to %d", key, h.Size, limit)
	}
	if cap(s.frame) < int(h.Size) {
		s.frame = make([]byte, h.Size)
	}
	s.frame = s.frame[:h.Size]
	if _, err := io.ReadFull(s.tar, s.frame); err != nil {
		return Key{}, nil, s.cut(err)
	}
	return key, s.frame, nil
}

func (s *StreamReader) pairs(h *tar.Header) (keyval.Pairs, error) {
	if h.Size > maxEntry {
		return nil, fmt.Errorf("stream of objects: entry %s has %d bytes, more than %d", h.Name, h.Size, maxEntry)
	}
	text := make([]byte, h.Size)
	if _, err := io.ReadFull(s.tar, text); err != nil {
		return nil, s.cut(err)
	}
	p, err := keyval.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("stream of objects: entry %s: %w", h.Name, err)
	}
	return p, nil
}

// end reads what follows the last entry. archive/tar takes a missing end of archive for an end, so bytes are counted.
func (s *StreamReader) end() error {
	read := s.in.n // up to the end of the content; padding to a tar block follows
	h, err := s.tar.Next()
	if err == nil {
		return fmt.Errorf("%w: entry %.80q follows the last one", ErrStreamEnd, h.Name)
	}
	if !errors.Is(err, io.EOF) {
		return s.cut(err)
	}
	padding := (tarBlock - read%tarBlock) % tarBlock
	if s.in.n < read+padding+2*tarBlock {
		return fmt.Errorf("%w: the end of the archive is missing", ErrStreamEnd)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := s.in.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return fmt.Errorf("%w: something follows the end of the archive", ErrStreamEnd)
			}
		}
		if err != nil {
			return err // io.EOF, as it should be
		}
	}
}

// cut tells a stream that ends early from one that cannot be read.
func (s *StreamReader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends after %d bytes; the stage before failed or was stopped", ErrStreamEnd, s.in.n)
	}
	return fmt.Errorf("stream of objects: %w", err)
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

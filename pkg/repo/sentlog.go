package repo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"backy/pkg/object"
)

// sentLog remembers on disk which objects a writer stored, so that a backup of any size takes no memory for it. It is
// asked once, and only for what a purge beside the backup has moved away meanwhile.
type sentLog struct {
	file *os.File
	buf  *bufio.Writer
}

const sentRecord = 1 + len(object.Name{}) // kind, name

func newSentLog(path string) (*sentLog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	return &sentLog{f, bufio.NewWriterSize(f, 64<<10)}, nil
}

func (l *sentLog) add(key object.Key) error {
	record := [sentRecord]byte{byte(key.Kind)}
	copy(record[1:], key.Name[:])
	if _, err := l.buf.Write(record[:]); err != nil {
		return fmt.Errorf("note what is stored: %w", err)
	}
	return nil
}

// strike removes from the set what the log has.
func (l *sentLog) strike(keys map[object.Key]bool) error {
	if len(keys) == 0 {
		return nil
	}
	err := l.buf.Flush()
	if err == nil {
		_, err = l.file.Seek(0, io.SeekStart)
	}
	r := bufio.NewReaderSize(l.file, 64<<10)
	var record [sentRecord]byte
	for err == nil {
		if _, err = io.ReadFull(r, record[:]); err == nil {
			delete(keys, object.Key{Kind: object.Kind(record[0]), Name: object.Name(record[1:])})
		}
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read what was stored: %w", err)
	}
	_, err = l.file.Seek(0, io.SeekEnd)
	return err
}

func (l *sentLog) close() { l.file.Close() }

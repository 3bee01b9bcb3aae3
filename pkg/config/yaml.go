package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// decode decodes a text that is one YAML document.
func decode(text []byte, to any) error {
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	switch err := d.Decode(to); {
	case err == io.EOF:
		return errors.New("it is empty")
	case err != nil:
		return err
	}
	var more any
	if err := d.Decode(&more); err != io.EOF {
		return errors.New("it has more than one document")
	}
	return nil
}

// placed is an error with the place in its file, ":line:column".
type placed struct {
	place string
	err   error
}

func (e *placed) Error() string { return e.place + ": " + e.err.Error() }
func (e *placed) Unwrap() error { return e.err }

// at says where in the file something is wrong.
func at(node ast.Node, err error) error { return &placed{position(node), err} }

// position is the place of a node, ":line:column"; "" if it has none.
func position(node ast.Node) string {
	// The token of a mapping is the colon after its first key; a reader looks for the key.
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			node = n.Values[0].Key
		}
	case *ast.MappingValueNode:
		node = n.Key
	}
	if t := node.GetToken(); t != nil && t.Position != nil {
		return fmt.Sprintf(":%d:%d", t.Position.Line, t.Position.Column)
	}
	return ""
}

// located makes an error one line that begins with file, line and column. What the library says by itself has many lines
// and a picture of the source.
func located(path string, err error) error {
	var known yaml.Error
	if here := (*placed)(nil); errors.As(err, &here) {
		return fmt.Errorf("%s%w", path, err)
	}
	if !errors.As(err, &known) {
		return fmt.Errorf("%s: %w", path, err)
	}
	if t := known.GetToken(); t != nil && t.Position != nil {
		return fmt.Errorf("%s:%d:%d: %s", path, t.Position.Line, t.Position.Column, known.GetMessage())
	}
	return fmt.Errorf("%s: %s", path, known.GetMessage())
}

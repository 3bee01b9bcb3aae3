package extent

import (
	"encoding/json"
	"errors"
	"fmt"
)

// element is an entry in the list of any of the tools; nil is what was not there.
type element struct {
	Offset      *int64          `json:"offset"`
	Start       *int64          `json:"start"`
	Length      *int64          `json:"length"`
	Exists      json.RawMessage `json:"exists"`
	Data        *bool           `json:"data"`
	Zero        *bool           `json:"zero"`
	Type        *int64          `json:"type"`
	Description *string         `json:"description"`
}

// meaning is what an entry says of its part of the disk.
type meaning int

const (
	same meaning = iota // as in the base
	zero                // reads as zero
	data                // anything
)

// format is what one tool writes.
type format struct {
	name  string
	whole bool // the entries cover the disk
	fits  func(*element) bool
	read  func(*element, Kind) (Extent, meaning, error)
}

// formats are told apart by the fields of an entry. qemu-img's entries may have an offset too: that in the image file.
var formats = []*format{
	{"qemu-img map", true, func(e *element) bool { return e.Start != nil && e.Length != nil && e.Data != nil && e.Zero != nil }, readQemu},
	{"rbd diff", false, func(e *element) bool { return e.Start == nil && e.Offset != nil && e.Length != nil && e.Exists != nil }, readRBD},
	{"nbdinfo --map", true, func(e *element) bool { return e.Start == nil && e.Offset != nil && e.Length != nil && e.Type != nil }, readNBD},
}

// recognise finds the tool that wrote an entry, nil if none did.
func recognise(e *element) *format {
	for _, f := range formats {
		if f.fits(e) {
			return f
		}
	}
	return nil
}

// readQemu takes only zero for zero: "data": false without it is a part that no layer of the image holds, whose content
// depends on the driver.
func readQemu(e *element, kind Kind) (Extent, meaning, error) {
	x := Extent{Offset: *e.Start, Length: *e.Length}
	if kind != Allocation {
		return x, same, errors.New("this is an allocation map, it does not say what changed; for a dirty bitmap use nbdinfo --map=qemu:dirty-bitmap:NAME --json")
	}
	if *e.Zero {
		return x, zero, nil
	}
	return x, data, nil
}

// readRBD takes exists as a string, as Ceph has written it for long, or as a truth value.
func readRBD(e *element, _ Kind) (Extent, meaning, error) {
	x := Extent{Offset: *e.Offset, Length: *e.Length}
	switch string(e.Exists) {
	case `"true"`, `true`:
		return x, data, nil
	case `"false"`, `false`:
		return x, zero, nil
	}
	return x, same, fmt.Errorf("exists is %.40s, neither true nor false", e.Exists)
}

// readNBD goes by the description, which names the context: base:allocation or a dirty bitmap. A hole that is not zero may
// read as anything.
func readNBD(e *element, kind Kind) (Extent, meaning, error) {
	x := Extent{Offset: *e.Offset, Length: *e.Length}
	if e.Description == nil {
		return x, same, fmt.Errorf("type %d has no description: neither base:allocation nor a dirty bitmap", *e.Type)
	}
	found, ok := nbdTypes[nbdType{*e.Description, *e.Type}]
	switch {
	case !ok:
		return x, same, fmt.Errorf("type %d, %.40q, is neither of base:allocation nor of a dirty bitmap", *e.Type, *e.Description)
	case found.kind != kind && kind == Change:
		return x, same, errors.New("this is the allocation map base:allocation, it does not say what changed; use nbdinfo --map=qemu:dirty-bitmap:NAME --json")
	case found.kind != kind:
		return x, same, errors.New("this is a dirty bitmap, it does not say where data is; use nbdinfo --map --json")
	}
	return x, found.meaning, nil
}

type nbdType struct {
	description string
	number      int64
}

var nbdTypes = map[nbdType]struct {
	kind    Kind
	meaning meaning
}{
	{"data", 0}:      {Allocation, data},
	{"allocated", 0}: {Allocation, data}, // libnbd before 1.6
	{"hole", 1}:      {Allocation, data},
	{"zero", 2}:      {Allocation, zero},
	{"hole,zero", 3}: {Allocation, zero},
	{"clean", 0}:     {Change, same},
	{"dirty", 1}:     {Change, data},
}

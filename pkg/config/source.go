package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Types of sources.
const (
	TypeFile         = "file"
	TypeRBD          = "rbd" // ceph and ceph-rbd are other names for it
	TypeFlyingCircus = "flyingcircus"
)

// types are the source types that are known, with their other names.
var types = map[string]string{TypeFile: TypeFile, TypeRBD: TypeRBD, "ceph": TypeRBD, "ceph-rbd": TypeRBD, TypeFlyingCircus: TypeFlyingCircus}

// typeNames are they for people.
const typeNames = "file, rbd (or ceph, ceph-rbd), flyingcircus"

// DefaultFreezeTime is that of a source that does not say it.
const DefaultFreezeTime = 30 * time.Second

// Source is what a job backs up. Only the fields of its Type are set.
type Source struct {
	Type string // one of the above, or one that this version does not know; "" where there is no source

	// Of a file: an image file or block device.
	Filename string // an absolute path; one that is not begins in the directory of the configuration
	Cow      bool   // kept for configurations of old; it has no meaning here, and is true where it is not given

	// Of an RBD image, by itself or of the Flying Circus.
	Pool, Namespace, Image string // Namespace may be ""
	FullAlways             bool   // full-always: read all of it each time, and keep no snapshot

	// Of these, too: commands of the shell around the making of the snapshot, both or none.
	Freeze, Thaw string
	FreezeTime   time.Duration // freeze-time: how long each of them may take

	// Of the Flying Circus.
	VM          string // whose file systems are frozen while the snapshot is made
	ConsulToken string // consul_acl_token, or ""

	at string // where the source is written: file:line:column
}

// Address is what the source is called on a command line, such as that of backy-read.
func (s Source) Address() (string, error) {
	switch {
	case s.Type == TypeFile:
		return s.Filename, nil
	case s.Type == TypeRBD || s.Type == TypeFlyingCircus:
		path := []string{s.Pool, s.Namespace, s.Image}
		return "rbd:" + strings.Join(slices.DeleteFunc(path, func(p string) bool { return p == "" }), "/"), nil
	case s.Type == "":
		return "", fmt.Errorf("%s: it has no source", s.at)
	}
	return "", fmt.Errorf("%s: source type %q is not known to this version of backy; it knows: %s", s.at, s.Type, typeNames)
}

// source reads a source. An unknown type is no mistake here: Address tells.
func (d *document) source(to *Source) func(entry) {
	return func(e entry) {
		to.at = d.at(e)
		if !isMapping(e.value) {
			d.entries(e) // tells
			return
		}
		d.need(e, "type", "it is one of "+typeNames)
		for _, k := range d.entries(e) {
			if k.name == "type" && k.value != nil {
				d.text(&to.Type, nil)(k)
			}
		}
		if known, ok := types[to.Type]; ok {
			to.Type = known
			d.sourceOf(known, e, to)
		}
	}
}

// at is where an entry stands: file:line:column.
func (d *document) at(e entry) string {
	line, column := position(e.place())
	return strings.TrimSuffix((&Mistake{d.path, line, column, ""}).Error(), ": ")
}

func (d *document) sourceOf(kind string, e entry, to *Source) {
	ignore := func(entry) {}
	if kind == TypeFile {
		to.Cow = true
		d.read(e, keys{"type": ignore, "filename": d.file(&to.Filename), "cow": d.boolean(&to.Cow)})
		d.need(e, "filename", "the path of an image file or block device")
		return
	}
	known := keys{"type": ignore, "pool": d.text(&to.Pool, checkRBD), "namespace": d.text(&to.Namespace, checkRBD),
		"image": d.text(&to.Image, checkRBD), "full-always": d.boolean(&to.FullAlways),
		"freeze": d.text(&to.Freeze, nil), "thaw": d.text(&to.Thaw, nil), "freeze-time": d.duration(&to.FreezeTime, time.Second)}
	to.FreezeTime = DefaultFreezeTime
	if kind == TypeFlyingCircus {
		known["vm"] = d.text(&to.VM, nil)
		known["consul_acl_token"] = d.text(&to.ConsulToken, checkToken)
		d.need(e, "vm", "the name of the virtual machine")
	}
	d.read(e, known)
	d.need(e, "pool", "as in pool: rbd")
	d.need(e, "image", "the name of the RBD image")
	if d.has(e, "freeze") {
		d.need(e, "thaw", "what is frozen has to be thawed again, by a command")
	} else if d.has(e, "thaw") {
		d.need(e, "freeze", "a command, before the one that thaws")
	}
}

// need makes it a mistake that a key has no value.
func (d *document) need(e entry, name, what string) {
	if !d.has(e, name) {
		d.mistake(e.place(), "%s has no %s: %s", title(e.name), name, what)
	}
}

func (d *document) has(e entry, name string) bool {
	return slices.ContainsFunc(d.entries(e), func(k entry) bool { return k.name == name && k.value != nil })
}

// checkRBD refuses what cannot be a part of POOL/NAMESPACE/IMAGE.
func checkRBD(name string) error {
	if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '/' || c == '@' || c == 0xfffd }) {
		return fmt.Errorf("%.80q: want a name without spaces, / and @", name)
	}
	return nil
}

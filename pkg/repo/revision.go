package repo

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/keyval"
	"backy/pkg/object"
)

// How a revision's disk was read.
const (
	ReadFull    = "full"    // all of it, without a base
	ReadCompare = "compare" // all of it, compared with the base
	ReadMap     = "map"     // what a change map names
	ReadForeign = "foreign" // by a tool that is not backy-read
)

// Revision is one backup of one disk: what its .rev says, which never changes, and its state.
type Revision struct {
	ID        string
	Job       string // where it was found; not in the file
	Time      time.Time
	Source    string // as it was named
	Host      string // where it was read
	Size      int64  // of the disk, bytes
	Block     int64  // bytes
	Root      object.Name
	Base      string // id of the revision that it was built on, or ""
	Snapshot  string
	Read      string    // full, compare, map, foreign
	Compared  time.Time // of a disk that was not read whole: WholeRead of the base
	ReadBytes int64
	Cursor    int64 // where the next map check goes on, a block
	Changed   int64 // bytes of blocks that differ from the base's
	Stored    int64 // bytes that its objects added to the repository
	Duration  time.Duration
	State     State
	StateErr  error // why the state cannot be known, if so

	extra keyval.Pairs
}

// Map is the block map of the disk.
func (r Revision) Map() blockmap.Map {
	return blockmap.Map{Root: r.Root, Size: r.Size, BlockSize: r.Block}
}

// WholeRead is when all of the disk was last read, for this revision or for one that it was built on. Zero is unknown. It
// outlives the revision that was made then.
func (r Revision) WholeRead() time.Time {
	if r.Read == ReadFull || r.Read == ReadCompare {
		return r.Time
	}
	return r.Compared
}

// FitBase reports whether the revision can be built on: its state is known, and it is trusted, or distrusted for listed
// bad objects alone.
func (r Revision) FitBase() bool {
	return r.StateErr == nil && (r.State.Trust != Distrusted || r.State.Why == WhyDamage)
}

var revisionKeys = []string{"format", "id", "time", "source", "host", "size", "block", "root", "base", "snapshot", "read", "read-bytes", "compared", "cursor", "changed", "stored", "duration"}

const (
	revFormat = "1"
	timeForm  = "2006-01-02T15:04:05.000000Z07:00" // RFC 3339, microseconds
	none      = "none"

	maxDuration = 1e9 * time.Second // more than any backup takes; a clock may have been wrong
)

// Bytes is the text of the .rev.
func (r Revision) Bytes() []byte {
	var p keyval.Pairs
	p.Set("format", revFormat)
	p.Set("id", r.ID)
	p.Set("time", r.Time.UTC().Format(timeForm))
	p.Set("source", r.Source)
	p.Set("host", r.Host)
	p.SetInt("size", r.Size)
	p.SetInt("block", r.Block)
	p.Set("root", FormatRoot(r.Root))
	if r.Base != "" {
		p.Set("base", r.Base)
	}
	if r.Snapshot != "" {
		p.Set("snapshot", r.Snapshot)
	}
	p.Set("read", r.Read)
	p.SetInt("read-bytes", r.ReadBytes)
	if !r.Compared.IsZero() {
		p.Set("compared", r.Compared.UTC().Format(timeForm))
	}
	if r.Cursor != 0 {
		p.SetInt("cursor", r.Cursor)
	}
	p.SetInt("changed", r.Changed)
	p.SetInt("stored", r.Stored)
	p.Set("duration", strconv.FormatFloat(r.Duration.Seconds(), 'f', 3, 64))
	return append(p, r.extra...).Bytes()
}

// ParseRevision reads a .rev.
func ParseRevision(text []byte) (Revision, error) {
	p, err := keyval.Parse(text)
	if err != nil {
		return Revision{}, err
	}
	if f := p.Get("format"); f != revFormat {
		return Revision{}, fmt.Errorf("format %q of a revision is not known to this version of backy", f)
	}
	r := Revision{ID: p.Get("id"), Source: p.Get("source"), Host: p.Get("host"), Base: p.Get("base"),
		Snapshot: p.Get("snapshot"), Read: p.Get("read"), extra: p.Without(revisionKeys...)}
	if err := CheckID(r.ID); err != nil {
		return r, err
	}
	if r.Base != "" && !isID(r.Base) {
		return r, fmt.Errorf("base: %w", CheckID(r.Base))
	}
	if r.Time, err = parseTime(p, "time"); err != nil {
		return r, err
	}
	if p.Has("compared") {
		if r.Compared, err = parseTime(p, "compared"); err != nil {
			return r, err
		}
	}
	for _, n := range []struct {
		key      string
		to       *int64
		optional bool
	}{{"size", &r.Size, false}, {"block", &r.Block, false}, {"read-bytes", &r.ReadBytes, false}, {"cursor", &r.Cursor, true}, {"changed", &r.Changed, false}, {"stored", &r.Stored, false}} {
		if n.optional && !p.Has(n.key) {
			continue
		}
		if *n.to, err = p.Int(n.key); err != nil {
			return r, err
		}
	}
	if err := CheckBlock(r.Block); err != nil {
		return r, err
	}
	if err := CheckSize(r.Size); err != nil {
		return r, err
	}
	if r.Root, err = ParseRoot(p.Get("root")); err != nil {
		return r, err
	}
	seconds, err := strconv.ParseFloat(p.Get("duration"), 64)
	if err != nil || !(seconds >= 0 && seconds <= maxDuration.Seconds()) { // nor NaN
		return r, fmt.Errorf("duration: %q is no number of seconds", p.Get("duration"))
	}
	r.Duration = time.Duration(seconds * float64(time.Second)).Round(time.Millisecond)
	return r, nil
}

func parseTime(p keyval.Pairs, key string) (time.Time, error) {
	t, err := time.Parse(timeForm, p.Get(key))
	if err != nil || t.Location() != time.UTC {
		return t, fmt.Errorf("%s: %q is no time in UTC", key, p.Get(key))
	}
	return t, nil
}

// FormatRoot is how a root is written: its name, or none for an all-zero disk.
func FormatRoot(n object.Name) string {
	if n.IsZero() {
		return none
	}
	return n.String()
}

// ParseRoot reads what FormatRoot writes.
func ParseRoot(s string) (object.Name, error) {
	if s == none {
		return object.Name{}, nil
	}
	n, err := object.ParseName(s)
	if err == nil && n.IsZero() {
		err = errors.New("an all-zero root is written none")
	}
	if err != nil {
		return n, fmt.Errorf("root: %w", err)
	}
	return n, nil
}

// What is thought of a revision.
const (
	Trusted    = "trusted"    // as it was made
	Verified   = "verified"   // all of it was read back and was right
	Distrusted = "distrusted" // it may differ from what the disk was
)

// Why a revision is distrusted.
const (
	WhyDamage   = "damage"   // objects are bad; the ranges are listed, and nothing else is wrong
	WhyMap      = "map"      // it was made by a change map that lied, or is built on one that was
	WhySource   = "source"   // it did not match its source; the ranges are listed
	WhyOperator = "operator" // somebody said so
)

// Range is a piece of a disk, in bytes.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func (r Range) String() string { return fmt.Sprintf("%d+%d", r.Offset, r.Length) }

// ParseRange reads offset+length.
func ParseRange(s string) (Range, error) {
	off, length, ok := strings.Cut(s, "+")
	o, err := strconv.ParseUint(off, 10, 63)
	l, err2 := strconv.ParseUint(length, 10, 63)
	r := Range{int64(o), int64(l)}
	if !ok || err != nil || err2 != nil || r.Offset+r.Length < 0 || r.String() != s {
		return Range{}, fmt.Errorf("%.60q is no range offset+length", s)
	}
	return r, nil
}

// AddRange appends a range to others that lie before it, joining it to the last where they touch.
func AddRange(list []Range, offset, length int64) []Range {
	if n := len(list); n > 0 && list[n-1].Offset+list[n-1].Length == offset {
		list[n-1].Length += length
		return list
	}
	return append(list, Range{offset, length})
}

// maxRanges is how many ranges a .state holds, so that it stays short enough to be read.
const maxRanges = 20000

// coarse brings ranges, which are in order, down to maxRanges, by joining neighbours and what lies between them.
func coarse(list []Range) []Range {
	for len(list) > maxRanges {
		half := make([]Range, 0, len(list)/2+1)
		for i := 0; i < len(list); i += 2 {
			last := list[min(i+1, len(list)-1)]
			half = append(half, Range{list[i].Offset, last.Offset + last.Length - list[i].Offset})
		}
		list = half
	}
	return list
}

// State is what may change about a revision: its .state.
type State struct {
	Tags      []string
	Trust     string
	Why       string // it is distrusted
	Protected bool
	Damage    []Range   // where it is known to be damaged, ascending; if that is very much, the file says somewhat more
	Checked   time.Time // when it was last verified, or failed to be; zero if never

	extra keyval.Pairs
}

// Bytes is the text of the .state.
func (s State) Bytes() []byte {
	var p keyval.Pairs
	p.Set("format", revFormat)
	p.SetList("tags", s.Tags)
	p.Set("trust", s.Trust)
	if s.Why != "" {
		p.Set("why", s.Why)
	}
	p.Set("protected", map[bool]string{true: "yes", false: "no"}[s.Protected])
	if len(s.Damage) > 0 {
		damage := coarse(s.Damage)
		list := make([]string, len(damage))
		for i, r := range damage {
			list[i] = r.String()
		}
		p.SetList("damage", list)
	}
	if !s.Checked.IsZero() {
		p.Set("checked", s.Checked.UTC().Format(time.RFC3339))
	}
	return append(p, s.extra...).Bytes()
}

// ParseState reads a .state.
func ParseState(text []byte) (State, error) {
	p, err := keyval.Parse(text)
	if err != nil {
		return State{}, err
	}
	if f := p.Get("format"); f != revFormat {
		return State{}, fmt.Errorf("format %q of a state is not known to this version of backy", f)
	}
	s := State{Tags: p.List("tags"), Trust: p.Get("trust"), Why: p.Get("why"), extra: p.Without("format", "tags", "trust", "why", "protected", "damage", "checked")}
	if s.Tags == nil {
		return s, errors.New("tags: no list")
	}
	if !slices.Contains([]string{Trusted, Verified, Distrusted}, s.Trust) {
		return s, fmt.Errorf("trust: %q is not known", s.Trust)
	}
	switch p.Get("protected") {
	case "yes":
		s.Protected = true
	case "no":
	default:
		return s, fmt.Errorf("protected: %q is neither yes nor no", p.Get("protected"))
	}
	for _, text := range p.List("damage") {
		r, err := ParseRange(text)
		if err != nil {
			return s, fmt.Errorf("damage: %w", err)
		}
		s.Damage = append(s.Damage, r)
	}
	if p.Has("checked") {
		if s.Checked, err = time.Parse(time.RFC3339, p.Get("checked")); err != nil {
			return s, fmt.Errorf("checked: %q is no time", p.Get("checked"))
		}
	}
	return s, nil
}

// CheckTag refuses what is no tag: it is shown in tables and lists, and given on command lines.
func CheckTag(tag string) error {
	if tag == "" || len(tag) > 100 || strings.ContainsFunc(tag, func(c rune) bool { return c <= ' ' || c == ',' || c == 0x7f || c == 0xfffd }) {
		return fmt.Errorf("%.120q is no tag: want up to 100 characters without spaces and commas", tag)
	}
	return nil
}

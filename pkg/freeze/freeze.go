// Package freeze makes a snapshot at a moment that suits who uses the disk: file systems are frozen before it, and thawed
// after it, whatever becomes of the snapshot. A snapshot of a disk in use that was not frozen is what a power cut would have
// left: good enough for a file system with a journal and for most databases, so it is made all the same, with a warning.
package freeze

import "context"

// Snapshot is what is made while a file system is frozen.
type Snapshot struct {
	Name  string                                  // backy-<id>
	Make  func(ctx context.Context) error         // makes it
	There func(ctx context.Context) (bool, error) // whether somebody has made it
}

// Freezer makes a snapshot at such a moment. When Around returns, the snapshot is there, made by Make or by somebody else,
// and nothing is frozen any more; or it fails. That nothing could be frozen is a warning and no failure.
type Freezer interface {
	Around(ctx context.Context, s Snapshot) error
}

// Nest is both: the inner one makes its snapshot while the outer one has frozen.
func Nest(outer, inner Freezer) Freezer { return nested{outer, inner} }

type nested struct{ outer, inner Freezer }

func (n nested) Around(ctx context.Context, s Snapshot) error {
	return n.outer.Around(ctx, Snapshot{Name: s.Name, There: s.There, Make: func(ctx context.Context) error { return n.inner.Around(ctx, s) }})
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"backy/pkg/blockmap"
	"backy/pkg/keyval"
	"backy/pkg/object"
	"backy/pkg/parallel"
	"backy/pkg/repo"
)

// copied is an object on its way out.
type copied struct {
	key     object.Key
	frame   []byte
	content []byte
}

// Export writes a revision as a stream of objects that builds on nothing. Each object is checked against its name; at the
// first bad one it stops, without the stream's end.
func Export(ctx context.Context, r *repo.Repo, rev repo.Revision, out io.Writer) error {
	var first, last keyval.Pairs
	first.SetInt("format", 1)
	first.Set("id", rev.ID)
	first.SetInt("block", rev.Block)
	first.SetInt("size", rev.Size)
	first.Set("snapshot", rev.Snapshot)
	first.Set("source", rev.Source)
	first.Set("host", rev.Host)
	first.Set("boot-id", "") // so that it is always checked on import
	first.Set("start", rev.Time.UTC().Format(time.RFC3339Nano))
	first.Set("read", rev.Read)
	first.SetInt("read-bytes", rev.ReadBytes)
	first.SetInt("duration-ms", rev.Duration.Milliseconds())
	first.SetList("tags", rev.State.Tags)
	if rev.State.Trust == repo.Distrusted && rev.State.Why != repo.WhyDamage { // what is exported is not damaged
		first.Set("trust", rev.State.Trust)
		first.Set("why", rev.State.Why)
	}
	w, err := object.NewStreamWriter(out, first)
	if err != nil {
		return err
	}
	objects, err := export(ctx, r, rev, w)
	if err != nil {
		return fmt.Errorf("export %s: %w; the stream has no end and cannot be imported", rev.ID, err)
	}
	last.Set("root", repo.FormatRoot(rev.Root))
	last.SetInt("changed", rev.Changed)
	last.SetInt("objects", objects)
	return w.Close(last)
}

func export(ctx context.Context, r *repo.Repo, rev repo.Revision, w *object.StreamWriter) (objects int64, err error) {
	workers := runtime.GOMAXPROCS(0)
	n := workers + 2
	stock, decoders := make(chan *copied, n), make(chan map[object.Kind]*object.Decoder, workers)
	for range n {
		stock <- new(copied)
	}
	for range workers {
		chunks, err := object.NewDecoder(int(rev.Block))
		if err != nil {
			return 0, err
		}
		pages, err := object.NewDecoder(blockmap.MaxPage)
		if err != nil {
			return 0, err
		}
		decoders <- map[object.Kind]*object.Decoder{object.Chunk: chunks, object.Page: pages}
	}
	feed := func(ctx context.Context, yield func(*copied) bool) error {
		return walk(ctx, r, rev, func(key object.Key) error {
			select {
			case c := <-stock:
				c.key = key
				if yield(c) {
					return nil
				}
			case <-ctx.Done():
			}
			return context.Cause(ctx)
		})
	}
	work := func(ctx context.Context, c *copied) error {
		dec := <-decoders
		defer func() { decoders <- dec }()
		content, frame, err := object.Fetch(ctx, r.Objects(), dec[c.key.Kind], c.key, c.frame, c.content)
		c.content, c.frame = content, frame
		return err
	}
	err = parallel.Ordered(ctx, workers, n, feed, work, func(c *copied) error {
		defer func() { stock <- c }()
		objects++
		return w.Put(c.key, c.frame)
	})
	return objects, err
}

// recentKeys is how many objects of a stream are remembered, so that one that comes often is sent once.
const recentKeys = 1 << 16

// walk names the objects of a revision, each page after what it names. What was named a short while ago is passed over,
// with all below it.
func walk(ctx context.Context, r *repo.Repo, rev repo.Revision, visit func(object.Key) error) error {
	pages, err := blockmap.NewPages(r.Objects())
	if err != nil {
		return err
	}
	recent := map[object.Key]bool{}
	once := func(key object.Key) error {
		if recent[key] {
			return nil
		}
		if len(recent) >= recentKeys {
			clear(recent)
		}
		recent[key] = true
		return visit(key)
	}
	var open []object.Name // pages whose content is being named, the lowest level first
	done := func(level int) error {
		for l := range min(level, len(open)) {
			if !open[l].IsZero() {
				if err := once(object.Key{Kind: object.Page, Name: open[l]}); err != nil {
					return err
				}
				open[l] = object.Name{}
			}
		}
		return nil
	}
	err = blockmap.Walk(ctx, pages, rev.Map(), blockmap.Visitor{
		Page: func(level int, name object.Name) (bool, error) {
			err := done(level)
			if recent[object.Key{Kind: object.Page, Name: name}] {
				return false, err
			}
			for len(open) < level {
				open = append(open, object.Name{})
			}
			open[level-1] = name
			return true, err
		},
		Block: func(_ int64, _, name object.Name) error {
			return once(object.Key{Kind: object.Chunk, Name: name})
		},
	})
	if page := (*blockmap.PageError)(nil); errors.As(err, &page) {
		return fmt.Errorf("page %s: %w", page.Name, err)
	}
	if err != nil {
		return err
	}
	return done(len(open))
}

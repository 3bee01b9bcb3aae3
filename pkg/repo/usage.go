package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"backy/pkg/blockmap"
	"backy/pkg/object"
)

// Usage is what a job, or a repository, holds, in bytes. Blocks count whole, the last one of a disk too. Virtual is
// Sparse + Shared + Exclusive.
type Usage struct {
	Job       string `json:"job,omitempty"` // "" for the repository
	Revisions int    `json:"revisions"`
	Virtual   int64  `json:"virtual"`   // the disks of all revisions
	Sparse    int64  `json:"sparse"`    // of these, blocks that are all zero
	Shared    int64  `json:"shared"`    // blocks that another job has, too
	Exclusive int64  `json:"exclusive"` // blocks that no other job has
	// Deduplicated are the blocks that no other job has, each counted once; of the repository, all blocks, each counted
	// once. Compressed is what these take on the disk, with the pages of the maps: of a job, what a purge would free if
	// all of it were forgotten.
	Deduplicated int64 `json:"deduplicated"`
	Compressed   int64 `json:"compressed"`
}

// usageAtOnce is how many objects are kept in mind at once; where there are more, the maps are walked several times.
var usageAtOnce = 4 << 20

// counted is what is known of an object.
type counted struct {
	job    int32 // that reaches it; -1: several
	blocks int64 // how many blocks of the revisions of that job are this; of several jobs, where they stand in total
	size   int64 // of its content, bytes
}

// Usage looks at all revisions and says what the repository holds, and each of its jobs. What is lost counts nothing;
// lost is told of it.
func (r *Repo) Usage(ctx context.Context, lost func(error)) (all Usage, jobs []Usage, err error) {
	var trees []*tree
	for job, err := range r.Jobs(ctx) {
		if ctx.Err() != nil {
			return all, nil, context.Cause(ctx)
		}
		if err != nil {
			lost(err)
			continue
		}
		t, err := r.tree(ctx, job, lost)
		if err != nil {
			return all, nil, err
		}
		trees = append(trees, t)
		jobs = append(jobs, t.Usage)
		all.Revisions += t.Revisions
		all.Virtual += t.Virtual
	}
	parts, err := r.usageParts()
	if err != nil {
		return all, nil, err
	}
	for part := range parts {
		if part > 0 {
			lost = func(error) {} // each page was told of by the first
		}
		if err := r.countPart(ctx, trees, lost, func(n object.Name) bool {
			return (int(n[0])<<16|int(n[1])<<8|int(n[2]))*parts>>24 == part
		}, &all, jobs); err != nil {
			return all, nil, err
		}
	}
	all.Sparse = all.Virtual - all.Shared - all.Exclusive
	for i := range jobs {
		jobs[i].Sparse = jobs[i].Virtual - jobs[i].Shared - jobs[i].Exclusive
	}
	return all, jobs, nil
}

// usageParts is into how many parts the names are divided, by what a few prefixes hold.
func (r *Repo) usageParts() (int, error) {
	const looks = 8
	n := 0
	for i := range looks {
		keys, err := r.pool.List(object.Chunk, i*512)
		if err != nil {
			return 0, err
		}
		n += len(keys)
	}
	return n*512/usageAtOnce + 1, nil
}

// tree is the pages of a job's revisions, each with how often it is found.
type tree struct {
	Usage
	pages map[object.Name]int64 // all of them
	leafs map[object.Name]leaf  // those of the lowest level
}

type leaf struct{ times, block int64 }

// tree reads the pages of a job from the top down, each level after the one above, so that each page is read once.
func (r *Repo) tree(ctx context.Context, job *Job, lost func(error)) (*tree, error) {
	list, broken, err := job.List()
	if err != nil {
		return nil, err
	}
	for _, b := range broken {
		lost(b.Err)
	}
	t := &tree{Usage: Usage{Job: job.Name, Revisions: len(list)}, pages: map[object.Name]int64{}, leafs: map[object.Name]leaf{}}
	var levels [8]map[object.Name]leaf
	add := func(level int, name object.Name, l leaf) {
		if levels[level] == nil {
			levels[level] = map[object.Name]leaf{}
		}
		l.times += levels[level][name].times
		levels[level][name] = l
	}
	for _, rev := range list {
		m := rev.Map()
		t.Virtual += m.Blocks() * m.BlockSize
		if !m.Root.IsZero() {
			add(m.Height(), m.Root, leaf{1, m.BlockSize})
		}
	}
	pages, err := blockmap.NewPages(r.pool)
	if err != nil {
		return nil, err
	}
	for level := len(levels) - 1; level > 0; level-- {
		for name, l := range levels[level] {
			t.pages[name]++
			if level == 1 {
				t.leafs[name] = l
				continue
			}
			lines, err := pages.Get(ctx, name)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				lost(err)
			}
			for _, below := range lines {
				if !below.IsZero() {
					add(level-1, below, l)
				}
			}
		}
	}
	return t, nil
}

// countPart counts the objects whose names are in one part.
func (r *Repo) countPart(ctx context.Context, trees []*tree, lost func(error), in func(object.Name) bool, all *Usage, jobs []Usage) error {
	known := map[object.Key]*counted{}
	shares := map[object.Key]map[int32]int64{} // blocks by job, of what several have
	note := func(key object.Key, job int32, blocks, size int64) {
		c := known[key]
		switch {
		case c == nil:
			known[key] = &counted{job, blocks, size}
		case c.job == job:
			c.blocks += blocks
		case c.job < 0:
			shares[key][job] += blocks
		default:
			shares[key] = map[int32]int64{c.job: c.blocks, job: blocks}
			c.job = -1
		}
	}
	pages, err := blockmap.NewPages(r.pool)
	if err != nil {
		return err
	}
	for i, t := range trees {
		for name := range t.pages {
			if in(name) {
				note(object.Key{Kind: object.Page, Name: name}, int32(i), 0, 0)
			}
		}
		for name, l := range t.leafs {
			lines, err := pages.Get(ctx, name)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				lost(err)
			}
			for _, below := range lines {
				if !below.IsZero() && in(below) {
					note(object.Key{Kind: object.Chunk, Name: below}, int32(i), l.times, l.block)
				}
			}
		}
	}
	return r.addUp(known, shares, all, jobs)
}

func (r *Repo) addUp(known map[object.Key]*counted, shares map[object.Key]map[int32]int64, all *Usage, jobs []Usage) error {
	for key, c := range known {
		info, err := os.Lstat(r.pool.Path(key))
		stored := int64(0)
		switch {
		case err == nil:
			stored = info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look at %s: %w", key, err)
		}
		all.Deduplicated += c.size
		all.Compressed += stored
		if c.job >= 0 {
			j := &jobs[c.job]
			all.Exclusive += c.blocks * c.size
			j.Exclusive += c.blocks * c.size
			j.Deduplicated += c.size
			j.Compressed += stored
			continue
		}
		for job, blocks := range shares[key] {
			all.Shared += blocks * c.size
			jobs[job].Shared += blocks * c.size
		}
	}
	return nil
}

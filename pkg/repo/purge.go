package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"backy/pkg/object"
	"backy/pkg/object/dir"
)

// PurgeOptions say how a purge goes about it.
type PurgeOptions struct {
	DryRun bool     // change nothing, tell what one pass would do
	Force  bool     // also where more than half of all objects would go
	Wait   bool     // until what was moved to limbo is deleted
	End    []string // ids of sessions that are taken for over although they seem to be alive
	// Memory is about what the list of objects may take, in bytes; 0 is 320 MiB. Where it does not suffice, the chunks are
	// gone through in parts, and the pages are read once for each.
	Memory   int64
	Progress func(done, total int64) // pages of block maps read, of about so many; may be nil
	Log      *slog.Logger
}

const purgeMemory = 320 << 20

// Amount is a number of objects and what they take on the disk.
type Amount struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (a *Amount) add(bytes int64) { a.Objects++; a.Bytes += bytes }

// PurgeReport is what a purge did; after a dry run, what one pass would have done.
type PurgeReport struct {
	DryRun bool          `json:"dry_run,omitempty"`
	Passes int           `json:"passes"`
	Ended  []SessionInfo `json:"ended"` // sessions that were over, or were to be, whose rests were taken away
	Freed  Amount        `json:"freed"` // deleted
	Moved  Amount        `json:"moved"` // to limbo, to be deleted by a later pass
	Back   Amount        `json:"back"`  // from limbo, for it is needed again
	Kept   int64         `json:"kept"`  // objects in place at the end of the last pass
	Limbo  []LimboEpoch  `json:"limbo"` // what is in limbo now
	// TooMany says, after a dry run, that more than half of all objects would be moved, which takes Force.
	TooMany bool `json:"too_many,omitempty"`
}

// LimboEpoch is a set of objects on their way out.
type LimboEpoch struct {
	Epoch string `json:"epoch"`
	Amount
	// For are the sessions that it waits for: writers that may have found one of its objects before it was moved. Without
	// any, the next purge deletes it.
	For []SessionInfo `json:"for"`
}

// TooManyError says that a purge stopped before it moved or deleted any of so many objects.
type TooManyError struct{ Unreached, All int64 }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("no revision reaches %d of %d objects, which is more than half; if that can be right, use --force", e.Unreached, e.All)
}

// purge is one at work.
type purge struct {
	PurgeOptions
	repo    *Repo
	reserve *Reserve
	fs      *os.File // for syncfs
	end     map[string]bool
	over    map[string]bool // sessions that have ended, in a dry run
	ripe    []string        // epochs, as decided at the start of the pass
	open    []string        // epochs without a record: the first of them is filled
	bad     Marks
	report  PurgeReport
}

// Purge deletes what no revision and no living session reaches. It makes a pass, and a second one if that can free what
// the first one moved; it waits for nobody unless it is told to, and may be killed at any moment. One at a time.
//
// The order of the steps is what keeps it from deleting what is needed; see the model in purgemodel before changing it.
func (r *Repo) Purge(ctx context.Context, o PurgeOptions) (report PurgeReport, err error) {
	if err := checkMount(r.Base); err != nil {
		return report, err
	}
	if o.Memory <= 0 {
		o.Memory = purgeMemory
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &purge{PurgeOptions: o, repo: r, reserve: &Reserve{repo: r}, end: map[string]bool{}, report: PurgeReport{DryRun: o.DryRun, Ended: []SessionInfo{}}}
	for _, id := range o.End {
		p.end[id] = true
	}
	if !o.DryRun {
		p.reserve = r.OpenReserve()
		defer func() {
			if cerr := p.reserve.Close(); cerr != nil {
				o.Log.WarnContext(ctx, "the reserve for a full disk could not be restored; the next purge tries again", "error", cerr)
			}
		}()
		var lock *Lock
		err := p.do(func() (err error) {
			lock, err = r.lock(filepath.Join("..", "purge.lock"), "purge")
			return err
		})
		if err != nil {
			return report, err
		}
		defer lock.Unlock()
	}
	if p.fs, err = os.Open(r.path()); err != nil {
		return report, err
	}
	defer p.fs.Close()
	err = p.run(ctx)
	return p.report, err
}

// run makes passes.
func (p *purge) run(ctx context.Context) error {
	for id := range p.end {
		if gone(p.repo.path("sessions", id)) {
			return fmt.Errorf("there is no session %s", id)
		}
	}
	again := false
	newest := uint64(0) // epoch when the waiting began: later ones are not waited for
	for {
		p.report.Passes++
		if err := p.pass(ctx); err != nil {
			return err
		}
		limbo, err := p.limbo(ctx)
		if err != nil {
			return err
		}
		p.report.Limbo = limbo
		if p.DryRun {
			return nil
		}
		if again = !again && slices.ContainsFunc(limbo, func(e LimboEpoch) bool { return len(e.For) == 0 }); again {
			continue // what was just moved can go already
		}
		if newest == 0 && len(limbo) > 0 {
			newest = epochNumber(limbo[len(limbo)-1].Epoch)
		}
		first := slices.IndexFunc(limbo, func(e LimboEpoch) bool { return len(e.For) > 0 })
		if !p.Wait || first < 0 || epochNumber(limbo[first].Epoch) > newest {
			return nil
		}
		if err := p.await(ctx, limbo[first]); err != nil {
			return err
		}
	}
}

// await returns when the sessions that an epoch waits for have ended.
func (p *purge) await(ctx context.Context, e LimboEpoch) error {
	for _, s := range e.For {
		p.Log.InfoContext(ctx, "waiting for "+s.String())
	}
	for {
		left, err := p.waitsFor(e.Epoch)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// pass goes through the protocol once. Each part of the name space is marked, freed and moved by itself: to the others that
// is as if a purge was killed after the part, and the next one went on.
func (p *purge) pass(ctx context.Context) error {
	if err := p.endSessions(ctx); err != nil {
		return err
	}
	if err := p.findRipe(); err != nil {
		return err
	}
	var err error
	if p.bad, err = p.repo.Marks(); err != nil {
		return err
	}
	p.report.Kept = 0
	for from := 0; from < dir.Prefixes; {
		p.step(StepObjects, "")
		l, err := p.list(ctx, from)
		if err != nil {
			return err
		}
		if err = p.mark(ctx, l); err == nil {
			err = p.few(l)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.soFar(), err)
		}
		if err := p.free(ctx, l); err != nil {
			return err
		}
		if err := p.move(ctx, l); err != nil {
			return err
		}
		from = l.to
	}
	if p.DryRun {
		return nil
	}
	if err := p.removeEpochs(); err != nil {
		return err
	}
	return p.record()
}

// few stops a purge that would move more than half of all objects.
func (p *purge) few(l *listing) error {
	all, unreached := l.count()
	if unreached*2 <= all || p.Force {
		return nil
	}
	if p.DryRun {
		p.report.TooMany = true
		return nil
	}
	return &TooManyError{unreached, all}
}

// soFar says, of a purge that stops, whether it has done anything: there may have been other parts, and another pass.
func (p *purge) soFar() string {
	if p.report.Moved.Objects+p.report.Freed.Objects+p.report.Back.Objects == 0 {
		return "nothing was purged"
	}
	return "the purge stopped on its way"
}

// do takes a step that may need space.
func (p *purge) do(f func() error) error { return p.reserve.Do(f) }

func (p *purge) step(s Step, what string) { p.repo.step(s, what) }

// listing lists what is in place, and in the ripe epochs, of a part of the name space.
func (p *purge) list(ctx context.Context, from int) (*listing, error) {
	pools := []*dir.Pool{p.repo.pool}
	for _, epoch := range p.ripe {
		pools = append(pools, dir.Open(p.repo.path(dir.Limbo, epoch)))
	}
	return list(ctx, from, p.Memory, func(kind object.Kind, prefix int) (inPlace, limbo []object.Key, err error) {
		for i, pool := range pools {
			keys, err := pool.List(kind, prefix)
			if err != nil {
				return nil, nil, err
			}
			if i == 0 {
				inPlace = keys
			} else {
				limbo = append(limbo, keys...)
			}
		}
		return inPlace, limbo, nil
	})
}

// remove removes a file or an empty directory that may be gone.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

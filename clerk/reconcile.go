package clerk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Mirror is a table of users that should say what Clerk says.
type Mirror interface {
	// Known calls each with every user of Clerk's that the table has, deleted ones included, in any
	// order, and stops when each returns an error. A user that comes or goes meanwhile may be left out.
	Known(ctx context.Context, each func(Known) error) error
	// Apply brings one user to what Clerk says, unless the table knows something newer or the user
	// was deleted; changed says whether it did.
	Apply(ctx context.Context, u User) (changed bool, err error)
	// Remove deletes a user for good. at is when it was known to be gone.
	Remove(ctx context.Context, id string, at time.Time) (changed bool, err error)
}

// Known is what decides whether a user is looked at closer.
type Known struct {
	ID string
	// UpdatedAt is Clerk's time of the change that was last applied; zero when none was.
	UpdatedAt time.Time
	// Deleted says that only a tombstone is left.
	Deleted bool
}

// Drift is how far a table is, or was, from Clerk.
type Drift struct {
	// Listed is how many users Clerk has; Local is how many the table had, without tombstones.
	Listed int `json:"listed"`
	Local  int `json:"local"`
	// Missing users were not in the table, Outdated ones older than Clerk's, Gone ones no longer at
	// Clerk.
	Missing  int `json:"missing"`
	Outdated int `json:"outdated"`
	Gone     int `json:"gone"`
	// Buried users are at Clerk, but deleted here; they stay deleted.
	Buried int `json:"buried"`
	// Applied and Removed count what was done about it.
	Applied int `json:"applied"`
	Removed int `json:"removed"`
}

// None says that there is nothing to do.
func (d Drift) None() bool { return d.Missing == 0 && d.Outdated == 0 && d.Gone == 0 }

// Phase is a part of the work.
type Phase string

// The phases, in their order.
const (
	PhaseLocal   Phase = "reading the table"
	PhaseListing Phase = "listing Clerk's users"
	PhaseConfirm Phase = "confirming who is gone"
	PhaseApply   Phase = "applying changes"
	PhaseRemove  Phase = "removing who is gone"
)

// ReconcileConfig says how to go about it; the zero value does it, with care and without a word.
type ReconcileConfig struct {
	// DryRun finds the drift and changes nothing.
	DryRun bool
	// Force allows more removals than [ErrUnsafe] would.
	Force bool
	// Progress is told how far a phase has come; total may be 0 when nobody knows it. A phase may
	// begin again.
	Progress func(phase Phase, done, total int)
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// ErrUnsafe is a reconciliation that would remove so many users that a wrong key is more likely than
// the truth: more than ten and more than a tenth of the table, or anybody at all when Clerk has nobody.
// Nothing was changed.
var ErrUnsafe = errors.New("too many users would be removed")

// Reconcile makes the table say what Clerk says. It first reads all of the table and all of Clerk's
// list, and changes nothing until that list is known to be complete; whoever is missing from it is
// asked for by id before the removal. It may be stopped at any time, by ctx or by force: every change is
// whole in itself, and the next run finds what was left.
//
// The table is read first: who signs up meanwhile is then at most missing, which a webhook or the next
// run heals, and never taken for gone.
func Reconcile(ctx context.Context, b *Backend, table Mirror, cfg ReconcileConfig) (Drift, error) {
	if cfg.Progress == nil {
		cfg.Progress = func(Phase, int, int) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &reconciliation{ReconcileConfig: cfg, backend: b, table: table, began: cfg.Now()}
	for _, step := range []func(context.Context) error{r.readTable, r.list, r.confirm} {
		if err := step(ctx); err != nil {
			return r.drift, err
		}
	}
	if err := r.safe(); err != nil || cfg.DryRun {
		return r.drift, err
	}
	err := r.apply(ctx)
	if err == nil {
		err = r.remove(ctx)
	}
	return r.drift, err
}

type reconciliation struct {
	ReconcileConfig
	backend *Backend
	table   Mirror
	began   time.Time

	drift   Drift
	local   map[string]Known
	todo    []User              // newer than in the table, or not in it
	gone    map[string]struct{} // in the table, not deleted, not listed
	witness string              // somebody who was listed
}

func (r *reconciliation) readTable(ctx context.Context) error {
	r.local = make(map[string]Known)
	r.Progress(PhaseLocal, 0, 0)
	err := r.table.Known(ctx, func(k Known) error {
		r.local[k.ID] = k
		if !k.Deleted {
			r.drift.Local++
		}
		if len(r.local)%1000 == 0 {
			r.Progress(PhaseLocal, len(r.local), 0)
		}
		if len(r.local) > 2*MaxUsers { // tombstones and all
			return ErrTooMany
		}
		return nil
	})
	r.Progress(PhaseLocal, len(r.local), len(r.local))
	if err != nil {
		return fmt.Errorf("read the table: %w", err)
	}
	return nil
}

// list finds what differs. Everything is forgotten when the listing begins anew.
func (r *reconciliation) list(ctx context.Context) error {
	total := 0
	restart := func(n int) {
		total = n
		r.todo, r.gone, r.witness = nil, make(map[string]struct{}, r.drift.Local), ""
		r.drift = Drift{Local: r.drift.Local}
		for id, k := range r.local {
			if !k.Deleted {
				r.gone[id] = struct{}{}
			}
		}
		r.Progress(PhaseListing, 0, total)
	}
	err := r.backend.List(ctx, restart, func(u User) {
		r.compare(u)
		if r.drift.Listed++; r.drift.Listed%100 == 0 {
			r.Progress(PhaseListing, r.drift.Listed, max(total, r.drift.Listed))
		}
	})
	if err != nil {
		return fmt.Errorf("list users: %w", err)
	}
	r.Progress(PhaseListing, r.drift.Listed, r.drift.Listed)
	return nil
}

// compare puts one of Clerk's users where it belongs.
func (r *reconciliation) compare(u User) {
	known, ok := r.local[u.ID]
	delete(r.gone, u.ID)
	r.witness = u.ID
	switch {
	case !ok:
		r.drift.Missing++
	case known.Deleted:
		r.drift.Buried++
		return
	case u.UpdatedAt.After(known.UpdatedAt):
		r.drift.Outdated++
	default:
		return
	}
	r.todo = append(r.todo, u)
}

// confirm asks for everybody who seems to be gone: a list that moves in just the wrong way may have
// left somebody out, and a removal cannot be taken back.
func (r *reconciliation) confirm(ctx context.Context) error {
	ids := slices.Sorted(maps.Keys(r.gone))
	witness := r.witness
	r.Progress(PhaseConfirm, 0, len(ids))
	if err := r.backend.Confirm(ctx, witness, ids, r.compare); err != nil {
		return fmt.Errorf("confirm who is gone: %w", err)
	}
	r.drift.Gone = len(r.gone)
	r.Progress(PhaseConfirm, len(ids), len(ids))
	return nil
}

func (r *reconciliation) safe() error {
	d := r.drift
	many := d.Gone > 10 && d.Gone*10 > d.Local
	nobody := d.Gone > 0 && d.Listed == 0
	if r.Force || !many && !nobody {
		return nil
	}
	return fmt.Errorf("%w: %d of %d", ErrUnsafe, d.Gone, d.Local)
}

func (r *reconciliation) apply(ctx context.Context) error {
	for i, u := range r.todo {
		changed, err := r.table.Apply(ctx, u)
		if err != nil {
			return fmt.Errorf("apply changes: %w", err)
		}
		if changed {
			r.drift.Applied++
		}
		r.Progress(PhaseApply, i+1, len(r.todo))
	}
	return nil
}

func (r *reconciliation) remove(ctx context.Context) error {
	for i, id := range slices.Sorted(maps.Keys(r.gone)) {
		changed, err := r.table.Remove(ctx, id, r.began)
		if err != nil {
			return fmt.Errorf("remove who is gone: %w", err)
		}
		if changed {
			r.drift.Removed++
		}
		r.Progress(PhaseRemove, i+1, len(r.gone))
	}
	return nil
}

package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/gantryhq/gantry/rollout"
)

// ErrPending is a start while another launch is under way.
var ErrPending = errors.New("a launch is under way")

// ErrAway is that the store did not answer, so that nobody knows whether what was asked for has happened:
// look again when it is back.
var ErrAway = errors.New("the journal cannot be written")

// Start begins a launch from what is stable now to candidate, on all instances. Of several at once one wins
// and the others get [ErrPending]. What is wrong with the plan or the address is said before anything
// else happens.
func (f *Fleet) Start(ctx context.Context, candidate string, plan rollout.Plan, actor, reason string) (rollout.Record, error) {
	salt := make([]byte, 32)
	rand.Read(salt) //nolint:errcheck // it never fails
	return f.decide(ctx, func(j journal, now time.Time) (rollout.Record, error) {
		if !j.over() {
			return rollout.Record{}, fmt.Errorf("%w: %s to %s", ErrPending, j.launch.ID, j.launch.CandidateURL)
		}
		if before := j.startedAt(); !now.After(before) { // the store's clock was put back
			now = before.Add(time.Millisecond)
		}
		_, r, err := rollout.Start(rollout.Request{
			ID: fmt.Sprintf("%d-%s", j.place.Launch+1, rand.Text()[:8]), Salt: salt,
			StableURL: j.stable(f.cfg.Base), CandidateURL: candidate, Plan: plan, Actor: actor, Reason: reason,
		}, now)
		return r, err
	})
}

// Stable is the upstream that a launch would leave from.
func (f *Fleet) Stable() string { return f.view().stable(f.cfg.Base) }

// Pause, Resume and Promote are the commands of an operator; see [rollout.Launch].
func (f *Fleet) Pause(ctx context.Context, actor, reason string) (rollout.Record, error) {
	return f.order(ctx, rollout.Launch.Pause, actor, reason)
}

// Resume ends a pause or a hold.
func (f *Fleet) Resume(ctx context.Context, actor, reason string) (rollout.Record, error) {
	return f.order(ctx, rollout.Launch.Resume, actor, reason)
}

// Promote goes to the next step at once.
func (f *Fleet) Promote(ctx context.Context, actor, reason string) (rollout.Record, error) {
	return f.order(ctx, rollout.Launch.Promote, actor, reason)
}

// order is an operator's word.
type order struct{ actor, reason string }

// Abort sends everyone back to stable, also when the journal is corrupt: then it puts it aside. When the
// store is away this instance goes back at once, and the error is [ErrAway]: the others follow when
// it can be written, which the Fleet sees to.
func (f *Fleet) Abort(ctx context.Context, actor, reason string) (rollout.Record, error) {
	r, err := f.abort(ctx, order{actor, reason})
	if errors.Is(err, ErrAway) {
		f.traffic.Trip("aborted by " + actor)
		f.change(func(s *state) { s.owed = &order{actor, reason} })
	}
	return r, err
}

func (f *Fleet) abort(ctx context.Context, o order) (rollout.Record, error) {
	return f.decide(ctx, func(j journal, now time.Time) (rollout.Record, error) {
		if j.corrupt != nil {
			return j.putAside(o.actor, o.reason, now), nil
		}
		_, r, err := j.launch.Abort(o.actor, o.reason, now)
		return r, err
	})
}

// pay writes the abort that could not be written before.
func (f *Fleet) pay(ctx context.Context) error {
	owed := f.view().owed
	if owed == nil {
		return nil
	}
	_, err := f.abort(ctx, *owed)
	if err != nil && !errors.Is(err, rollout.ErrPhase) { // it may be over meanwhile
		return err
	}
	f.change(func(s *state) { s.owed = nil })
	return nil
}

func (f *Fleet) order(ctx context.Context, do func(l rollout.Launch, actor, reason string, now time.Time) (rollout.Launch, rollout.Record, error), actor, reason string) (rollout.Record, error) {
	return f.decide(ctx, func(j journal, now time.Time) (rollout.Record, error) {
		if j.corrupt != nil {
			return rollout.Record{}, j.corrupt
		}
		_, r, err := do(j.launch, actor, reason, now)
		return r, err
	})
}

// maxRaces is how often a decision is made again because another was written first.
const maxRaces = 20

// decide writes what make makes of the journal, and puts it in force here before it returns.
func (f *Fleet) decide(ctx context.Context, choose func(j journal, now time.Time) (rollout.Record, error)) (rollout.Record, error) {
	f.turn.Lock()
	defer f.turn.Unlock()
	for range maxRaces {
		if err := f.catchUp(ctx); err != nil {
			return rollout.Record{}, fmt.Errorf("%w: %w", ErrAway, err)
		}
		s := f.view()
		r, err := choose(s.journal, f.clock())
		if err != nil {
			return rollout.Record{}, err
		}
		err = f.write(ctx, s.journal, r)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if again := f.catchUp(ctx); again != nil || f.view().latest.Sum != r.Sum && err != nil {
			return r, fmt.Errorf("%w: %w", ErrAway, errors.Join(err, again))
		}
		return r, nil
	}
	return rollout.Record{}, ErrConflict
}

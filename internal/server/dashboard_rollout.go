package server

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/internal/dashboard"
	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/rollout/fleet"
)

// launchWatch keeps what the page shows of a launch at hand: the page must not wait for the store, which others ask
// more often than people look.
type launchWatch struct {
	fleet *fleet.Fleet
	seen  atomic.Pointer[launchSeen]
	asked chan struct{} // wakes Run

	curve  []dashboard.Proof
	number int64  // of the launch that the curve is of
	epoch  uint64 // and its epoch
	read   uint64 // revision of the journal
}

// launchSeen is one look.
type launchSeen struct {
	fleet.Status
	curve []dashboard.Proof
}

// Bounds of a launchWatch.
const (
	launchPulse  = time.Second
	launchWait   = 2 * time.Second // for the store
	curvePoints  = 120
	troubleShown = time.Hour // how long a roll back is trouble
)

// Run looks until ctx ends.
func (w *launchWatch) Run(ctx context.Context) error {
	tick := time.NewTicker(launchPulse)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-w.asked:
		}
	}
}

func (w *launchWatch) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, launchWait)
	defer cancel()
	st := w.fleet.Status(ctx)
	if st.Number != w.number || st.Launch.Epoch != w.epoch {
		w.curve, w.epoch = nil, st.Launch.Epoch
	}
	if st.Number != w.number {
		w.number, w.read = st.Number, 0
	}
	if st.Launch.Revision > w.read && !st.Frozen {
		w.follow(ctx)
	}
	w.seen.Store(&launchSeen{st, slices.Clone(w.curve)})
}

// follow reads what the judge wrote down since the last look.
func (w *launchWatch) follow(ctx context.Context) {
	records, err := w.fleet.Journal(ctx, w.number, w.read)
	if err != nil && !errors.Is(err, rollout.ErrJournal) {
		return // the store is away, and the page says so
	}
	for _, r := range records {
		w.read = r.Revision
		if r.Verdict == nil || r.Epoch != w.epoch {
			continue
		}
		e := r.Verdict.Candidate.Errors
		w.curve = thinned(append(w.curve, dashboard.Proof{Requests: uint64(e.N), Rate: e.Rate(), Upper: e.Upper()}))
	}
}

// thinned is every other point, and the last, where there are too many.
func thinned(curve []dashboard.Proof) []dashboard.Proof {
	if len(curve) <= curvePoints {
		return curve
	}
	kept := curve[:0]
	for i, p := range curve {
		if i%2 == 1 || i == len(curve)-1 {
			kept = append(kept, p)
		}
	}
	return kept
}

// rolloutNow is nil without an upstream: there is nothing to move.
func (b bridge) rolloutNow(now time.Time) *dashboard.Rollout {
	if b.launch == nil {
		return nil
	}
	seen := b.launch.seen.Load()
	if seen == nil {
		return nil // the process has only just begun
	}
	return rolloutOf(seen, now)
}

func rolloutOf(seen *launchSeen, now time.Time) *dashboard.Rollout {
	l := seen.Launch
	r := &dashboard.Rollout{
		ID: l.ID, To: l.CandidateURL, Phase: string(l.Phase), Reason: l.Reason, Since: l.StepAt,
		Weight: share(l.Weight), SlowAfter: l.Plan.SlowAfter.Seconds(), Left: seen.StepLeft.Seconds(), Curve: seen.curve,
		Trouble: l.Phase.Held() || seen.Fault != "" || l.Phase == rollout.RolledBack && now.Sub(l.EpochAt) < troubleShown,
		Verbs:   verbsOf(seen),
	}
	if l.EpochAt.After(r.Since) {
		r.Since = l.EpochAt
	}
	if l.Phase == rollout.None {
		r.Phase, r.To = "none", seen.StableURL
		return r
	}
	if seen.Fault != "" {
		r.Reason = seen.Fault
	}
	for _, s := range l.Plan.Steps {
		r.Steps = append(r.Steps, share(s.Weight))
	}
	if v := seen.Verdict; v != nil {
		r.Evidence, r.Needed = string(v.Evidence), uint64(max(0, v.Needed))
		r.PValue = min(v.Candidate.Errors.P, v.Candidate.Slow.P)
	}
	if !l.Phase.Over() {
		r.Versions = []dashboard.Version{
			versionOf(rollout.Stable, 1-r.Weight, seen.Stable, l.Plan), versionOf(rollout.Candidate, r.Weight, seen.Candidate, l.Plan),
		}
	}
	return r
}

func share(b rollout.BasisPoints) float64 { return float64(b) / float64(rollout.All) }

func versionOf(v rollout.Version, weight float64, t fleet.Totals, p rollout.Plan) dashboard.Version {
	return dashboard.Version{
		Name: v.String(), Weight: weight, Requests: uint64(t.Requests), Failed: uint64(t.Failed), Slow: uint64(t.Slow),
		MaxFailed: p.MaxErrors, MaxSlow: p.MaxSlow,
	}
}

func verbsOf(seen *launchSeen) []dashboard.Verb {
	switch phase := seen.Launch.Phase; {
	case seen.Corrupt:
		return []dashboard.Verb{dashboard.Abort}
	case phase.Over():
		return []dashboard.Verb{dashboard.Start}
	case phase == rollout.Paused || phase.Held():
		return []dashboard.Verb{dashboard.Resume, dashboard.Promote, dashboard.Abort}
	}
	return []dashboard.Verb{dashboard.Pause, dashboard.Promote, dashboard.Abort}
}

// errNoRollouts is what a door without an upstream says to all verbs.
var errNoRollouts = errors.New("there is nothing to roll out without UPSTREAM_URL")

// Rollout implements dashboard.Actions. A launch that the page starts has the plan of the document.
func (b bridge) Rollout(ctx context.Context, verb dashboard.Verb, to string) (err error) {
	if b.fleet == nil {
		return errNoRollouts
	}
	const actor = "dashboard"
	switch verb {
	case dashboard.Start:
		_, err = b.beginRollout(ctx, RolloutOrder{To: to, Actor: actor})
	case dashboard.Pause:
		_, err = b.fleet.Pause(ctx, actor, "")
	case dashboard.Resume:
		_, err = b.fleet.Resume(ctx, actor, "")
	case dashboard.Promote:
		_, err = b.fleet.Promote(ctx, actor, "")
	case dashboard.Abort:
		_, err = b.fleet.Abort(ctx, actor, "")
	}
	select {
	case b.launch.asked <- struct{}{}: // the page that comes next should show it
	default:
	}
	return err
}

package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/gantryhq/gantry/rollout"
)

// Status is how a launch stands, as one instance knows it.
type Status struct {
	Now    time.Time `json:"now"` // by the store's clock
	Number int64     `json:"number"`
	// Launch is the latest, also when it is over; the salt is left out. Its Phase is empty before the first.
	Launch rollout.Launch `json:"launch"`
	// StableURL is where everyone is who is not on the candidate.
	StableURL string `json:"stable"`
	Stable    Totals `json:"stable_counts"` // of the current epoch
	Candidate Totals `json:"candidate_counts"`
	Missing   int    `json:"missing"` // instances whose counts are old or not there
	// Verdict is that of the latest look of this epoch, nil before it.
	Verdict *rollout.Verdict `json:"verdict"`
	// StepLeft and Left are the least time until the next step and until the end: they take evidence, too.
	StepLeft  time.Duration `json:"step_left"`
	Left      time.Duration `json:"left"`
	Judge     string        `json:"judge"` // Instance.Name of who judges
	Instances []Instance    `json:"instances"`
	// Rate is the requests per second over the last minutes, of all instances and to all versions.
	Rate float64 `json:"rate"`
	// Here is the instance that was asked.
	Here    string `json:"here"`
	Tripped string `json:"tripped,omitempty"` // why this instance alone is back on stable
	Frozen  bool   `json:"frozen"`            // the store is away: this instance keeps its weight
	Corrupt bool   `json:"corrupt"`           // the journal is unreadable: everyone is on stable
	Fault   string `json:"fault,omitempty"`   // what a person should know of
}

// Totals is the counts of one version without who was counted.
type Totals struct {
	Requests     int64 `json:"requests"`
	Failed       int64 `json:"failed"`
	Slow         int64 `json:"slow"`
	Callers      int   `json:"callers"`
	FailedProbes int   `json:"failed_probes"`
}

// Instance is one of those that share the store.
type Instance struct {
	Name    string        `json:"name"`
	Age     time.Duration `json:"age"`   // since it was last heard of
	Epoch   uint64        `json:"epoch"` // of its counts
	Tripped string        `json:"tripped,omitempty"`
	Missing bool          `json:"missing,omitempty"`
}

// Status asks the store for what the others have seen. When it does not answer, the counts are those of this
// instance.
func (f *Fleet) Status(ctx context.Context) Status {
	shares, err := f.shares(ctx)
	s := f.view()
	out := Status{
		Now: f.clock(), Number: s.place.Launch, Launch: s.launch, StableURL: s.stable(f.cfg.Base), Verdict: s.verdict,
		Here: f.cfg.Name, Tripped: f.traffic.Tripped(), Corrupt: s.corrupt != nil, Frozen: err != nil,
	}
	out.Launch.Salt = nil
	if fault := f.Fault(); fault != nil {
		out.Fault = fault.Error()
	}
	out.StepLeft, out.Left = s.left(out.Now)
	seen := f.traffic.Observe()
	if err == nil {
		seen = observe(s.journal, shares, f.cfg.Tick)
		out.hear(s, shares, f.cfg.Tick)
	}
	if !s.over() {
		out.Stable, out.Candidate, out.Missing = totals(seen.Stable), totals(seen.Candidate), seen.Missing
	}
	return out
}

// hear adds what the instances say of themselves.
func (out *Status) hear(s state, shares []share, tick time.Duration) {
	for _, sh := range shares {
		if !sh.here(tick) {
			continue
		}
		missing := !s.over() && !(sh.of(s.place.Launch, s.launch.Epoch) && sh.fresh(tick))
		out.Instances = append(out.Instances, Instance{Name: sh.Name, Age: sh.age, Epoch: sh.Seen.Epoch, Tripped: sh.Tripped, Missing: missing})
		out.Rate += sh.Rate
		if sh.instance == s.judge && !s.over() {
			out.Judge = sh.Name
		}
	}
}

func totals(s rollout.Side) Totals {
	return Totals{Requests: s.Requests, Failed: s.Failed.Sum(), Slow: s.Slow.Sum(), Callers: s.Callers.Len(), FailedProbes: s.FailedProbes}
}

// left is the least time until the next step and until the end.
func (j journal) left(now time.Time) (step, all time.Duration) {
	if j.over() {
		return 0, 0
	}
	step = max(0, j.launch.MinTime()-now.Sub(j.launch.StepAt))
	all = step
	for l := j.launch; l.Step < len(l.Plan.Steps)-1; {
		l.Step++
		all += l.MinTime()
	}
	return step, all
}

// Enough says, step by step, which evidence the traffic of the last minutes cannot bring before the step
// is inconclusive, how long it would take, and what could be proven; nothing if it can.
func (s Status) Enough(p rollout.Plan) (warnings []string) {
	for _, proof := range p.Proofs(s.Rate) {
		switch {
		case proof.Rate == 0:
			warnings = append(warnings, fmt.Sprintf("at %v: it takes %d clean requests to prove the limits, and there was no traffic of late", proof.Weight, proof.Requests))
		case !proof.Possible():
			warnings = append(warnings, fmt.Sprintf("at %v: it takes %d clean requests to prove the limits, which at %.2g/s is %v; the step is inconclusive after %v, in which a limit of %.2g %% could be proven",
				proof.Weight, proof.Requests, proof.Rate, proof.Time, proof.Patience, 100*proof.Provable()))
		}
	}
	return warnings
}

// Past is one launch of the history.
type Past struct {
	Number    int64               `json:"number"`
	ID        string              `json:"id"`
	Stable    string              `json:"stable"`
	Candidate string              `json:"candidate"`
	StartedAt time.Time           `json:"started_at"`
	EndedAt   time.Time           `json:"ended_at,omitzero"`
	Phase     rollout.Phase       `json:"phase"`
	Weight    rollout.BasisPoints `json:"weight"`
	Actor     string              `json:"actor"`  // of the latest record
	Reason    string              `json:"reason"` // of the latest record
	Unread    string              `json:"unreadable,omitempty"`
}

// History returns the newest n launches, the newest first.
func (f *Fleet) History(ctx context.Context, n int) ([]Past, error) {
	var ends []Line
	err := f.call(ctx, func(ctx context.Context) (err error) {
		ends, err = f.store.Ends(ctx, min(n, Kept))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	var all []Past
	for _, l := range ends {
		if len(all) == 0 || all[0].Number != l.Launch {
			all = append([]Past{{Number: l.Launch}}, all...)
		}
		all[0].add(l)
	}
	return all, nil
}

func (p *Past) add(l Line) {
	r, err := rollout.DecodeRecord([]byte(l.Text))
	if err != nil {
		p.Unread = err.Error()
		return
	}
	if r.Opening != nil {
		p.ID, p.StartedAt, p.Stable, p.Candidate = r.Launch, r.At, r.Opening.StableURL, r.Opening.CandidateURL
	}
	p.Phase, p.Weight, p.Actor, p.Reason = r.Phase, r.Weight, r.Actor, r.Reason
	if r.Phase.Over() {
		p.EndedAt = r.At
	}
}

// Journal returns records of a launch behind a revision, at most [PageSize]; launch 0 is the newest. It
// stops before a line that cannot be read, whose error it returns with the records before it.
func (f *Fleet) Journal(ctx context.Context, launch int64, after uint64) ([]rollout.Record, error) {
	if launch == 0 {
		launch = f.view().place.Launch
	}
	var page Page
	err := f.call(ctx, func(ctx context.Context) (err error) {
		page, err = f.store.Read(ctx, Place{launch, after})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	var records []rollout.Record
	for _, l := range page.Lines {
		r, err := rollout.DecodeRecord([]byte(l.Text))
		if err != nil {
			return records, fmt.Errorf("launch %d, line %d: %w", l.Launch, l.Revision, err)
		}
		records = append(records, r)
	}
	return records, nil
}

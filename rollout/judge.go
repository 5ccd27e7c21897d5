package rollout

import (
	"fmt"
	"time"
)

// calm is how long there must be no trouble for a hold to end by itself.
const calm = time.Minute

// Next is one look of the judge: what to do about a launch, given what was seen of it until now. It is
// asked every few seconds; where there is nothing to do the record is an [ActLook]. For a launch that is
// over there is nothing to record either, and the Revision of the record is 0.
func Next(l Launch, o Observation, now time.Time) (Launch, Record) {
	if l.Phase.Over() {
		return l, Record{}
	}
	d := judge(l, o, now)
	d.verdict.Needed = d.verdict.needed()
	if d.reason == "" {
		d.reason = d.verdict.String()
	}
	return l.record(d.next, Record{Action: d.action, At: now, Actor: Judge, Reason: d.reason, Verdict: &d.verdict})
}

// decision is what the judge makes of one look.
type decision struct {
	next    Launch
	action  Action
	reason  string // empty: the verdict says it all
	verdict Verdict
}

func judge(l Launch, o Observation, now time.Time) decision {
	if o.Epoch != l.Epoch {
		o.Candidate.Counts, o.Stable.Counts = Counts{}, Counts{}
	}
	v := look(l.Plan, o)
	d := l.decide(v, now)
	d.verdict = v
	return d
}

// blame is the first fault that is the candidate's alone, or nil. Right after both failed that takes a stable
// version that has been seen to be well, since one of the two is always the first to fail again.
func (l Launch) blame(v Verdict, faults []fault, now time.Time) *fault {
	if l.Phase == HeldShared && v.Stable.Errors.N < l.Plan.MinRequests && l.Weight < All && now.Sub(l.EpochAt) < calm {
		return nil
	}
	for i, f := range faults {
		if !f.shared {
			return &faults[i]
		}
	}
	return nil
}

func (l Launch) decide(v Verdict, now time.Time) decision {
	faults := v.faults(l.Plan)
	own := l.blame(v, faults, now)
	gone := l.alone(v)
	switch {
	case own != nil && !gone:
		return decision{next: l.rollBack(now), action: ActRollBack, reason: own.reason}
	case l.Phase == Paused, l.Phase == HeldWorse: // for a person to end
		return l.stay()
	case own != nil:
		return l.hold(HeldAlone, own.reason+", and stable is gone as well", now)
	case len(faults) > 0:
		return l.hold(HeldShared, faults[0].reason+", and stable has the same trouble", now)
	case l.Phase == HeldShared && v.Stable.ill(l.Plan) && !gone:
		return l.hold(HeldShared, l.Reason, now)
	case l.Phase == HeldShared, l.Phase == HeldAlone:
		return l.release(now)
	}
	return l.progress(v, now)
}

// alone is whether there is no stable version to go back to. Its probes may be wrong, if its health has another
// address, say: in a hold, where the counts are fresh, it is not gone as long as it answers.
func (l Launch) alone(v Verdict) bool {
	fresh := l.Phase == HeldShared || l.Phase == HeldAlone
	return v.Stable.gone(l.Plan) && !(fresh && v.Stable.answers(l.Plan))
}

// ill is whether stable has trouble of any kind.
func (a Assessment) ill(p Plan) bool { return a.troubled(p) || a.Slow.suspect(p) }

func (v Verdict) worse() string {
	what, c, s := "errors", v.Candidate.Errors, v.Stable.Errors
	if !v.Errors.Worse {
		what, c, s = "slow", v.Candidate.Slow, v.Stable.Slow
	}
	return fmt.Sprintf("%s: within the limit, but %s against %s of stable", what, percent(c.Rate()), percent(s.Rate()))
}

// hold goes to a phase, or stays in it. The counts of a trouble that may be over are of no use, so
// they begin anew with the hold and, while it lasts, every minute.
func (l Launch) hold(phase Phase, reason string, now time.Time) decision {
	if l.Phase == phase && (now.Sub(l.EpochAt) < calm || phase == HeldWorse) {
		return l.stay()
	}
	d := decision{next: l, action: ActHold, reason: reason}
	d.next.Phase = phase
	if phase != HeldWorse {
		d.next = d.next.recount(now)
	}
	return d
}

// release begins the step anew after a minute of calm.
func (l Launch) release(now time.Time) decision {
	if now.Sub(l.EpochAt) < calm {
		return l.stay()
	}
	return decision{next: l.enter(l.Step, now), action: ActResume, reason: "a minute without trouble"}
}

// progress is what time and evidence allow when nothing is wrong.
func (l Launch) progress(v Verdict, now time.Time) decision {
	least, elapsed := l.MinTime(), now.Sub(l.StepAt)
	sound := v.Missing == 0 && v.Candidate.FailedProbes == 0
	late := elapsed >= l.patience()
	policy := l.Plan.OnInconclusive
	switch {
	// To hold is not to promote, so it is time enough to ask when promotion is due: one look
	// instead of many that each may err.
	case elapsed >= least && (v.Errors.Worse || v.Slow.Worse) && !l.Accepted:
		return l.hold(HeldWorse, v.worse(), now)
	case sound && elapsed >= least && v.Evidence == Proven:
		return decision{next: l.advance(now), action: ActPromote}
	case late && policy == PromoteIfConsistent && sound && v.Evidence == Consistent:
		return decision{next: l.advance(now), action: ActPromote, reason: v.String() + ", and the plan is content with that"}
	case late && policy == GiveUp && !v.Stable.gone(l.Plan):
		return decision{next: l.rollBack(now), action: ActRollBack, reason: "inconclusive: " + v.String()}
	case late && l.Phase != Inconclusive:
		d := decision{next: l, action: ActHold}
		d.next.Phase = Inconclusive
		return d
	}
	return l.stay()
}

// MinTime is the least time of the current step.
func (l Launch) MinTime() time.Duration {
	if l.Step == len(l.Plan.Steps)-1 {
		return l.Plan.Watch
	}
	return l.Plan.Steps[l.Step].MinTime
}

// patience is how long a step goes on without evidence before it is [Inconclusive].
func (l Launch) patience() time.Duration { return 3 * max(l.MinTime(), time.Minute) }

func (l Launch) stay() decision { return decision{next: l, action: ActLook} }

// String says how far the evidence is: "consistent, 1204 more requests without a failure are needed".
func (v Verdict) String() string {
	s := string(v.Evidence)
	if v.Missing > 0 {
		s += fmt.Sprintf(", instances missing: %d", v.Missing)
	}
	if n := v.Candidate.FailedProbes; n > 0 {
		s += fmt.Sprintf(", %d health probes failed", n)
	}
	if n := v.needed(); n > 0 {
		s += fmt.Sprintf(", %d more requests without a failure are needed", n)
	}
	return s
}

func (v Verdict) needed() int64 { return max(v.Candidate.Errors.needed(), v.Candidate.Slow.needed()) }

func (t Test) needed() int64 { return CleanRequests(t.N, t.Counted, t.Limit) }

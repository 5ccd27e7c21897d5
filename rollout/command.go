package rollout

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// ErrPhase is that a command makes no sense in the phase the launch is in.
var ErrPhase = errors.New("not in this phase")

// Request asks for a launch.
type Request struct {
	ID   string // names the launch in the journal
	Salt []byte // at least 16 random bytes, new for each launch
	// StableURL and CandidateURL are two different URLs of the same scheme, or two names without any.
	StableURL, CandidateURL string
	Plan                    Plan
	Actor, Reason           string
}

// Validate returns every fault at once, each with the name of its field.
func (r Request) Validate() error {
	var faults []error
	if r.ID == "" {
		faults = append(faults, errors.New("id: is empty"))
	}
	if len(r.Salt) < 16 {
		faults = append(faults, fmt.Errorf("salt: %d bytes, at least 16 are needed", len(r.Salt)))
	}
	stable, errStable := url.Parse(r.StableURL)
	candidate, errCandidate := url.Parse(r.CandidateURL)
	switch {
	case errStable != nil || r.StableURL == "":
		faults = append(faults, fmt.Errorf("stable: %q is no URL", r.StableURL))
	case errCandidate != nil || r.CandidateURL == "":
		faults = append(faults, fmt.Errorf("candidate: %q is no URL", r.CandidateURL))
	case stable.Scheme != candidate.Scheme:
		faults = append(faults, fmt.Errorf("candidate: scheme %q differs from %q of stable", candidate.Scheme, stable.Scheme))
	case stable.String() == candidate.String():
		faults = append(faults, fmt.Errorf("candidate: %s is the stable version", r.CandidateURL))
	}
	if err := r.Plan.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("plan: %w", err))
	}
	return errors.Join(faults...)
}

// Start begins a launch at the first step.
func Start(r Request, now time.Time) (Launch, Record, error) {
	if err := r.Validate(); err != nil {
		return Launch{}, Record{}, err
	}
	opening := &Opening{Salt: r.Salt, StableURL: r.StableURL, CandidateURL: r.CandidateURL, Plan: r.Plan.withDefaults()}
	next := Launch{ID: r.ID, Plan: opening.Plan}.enter(0, now)
	l, record := Launch{}.record(next, Record{Action: ActStart, At: now, Actor: r.Actor, Reason: r.Reason, Opening: opening})
	return l, record, nil
}

// Pause keeps the weight where it is until [Launch.Resume]. The candidate is still judged, and may be
// aborted, while the launch is paused.
func (l Launch) Pause(actor, reason string, now time.Time) (Launch, Record, error) {
	if l.Phase.Over() || l.Phase == Paused {
		return l, Record{}, l.refuse("pause")
	}
	next := l
	next.Phase = Paused
	return l.command(next, ActPause, actor, reason, now)
}

// Resume ends a pause or a hold. The time of the step begins anew, the counts go on. A candidate that
// was held as worse than stable is accepted by it.
func (l Launch) Resume(actor, reason string, now time.Time) (Launch, Record, error) {
	if l.Phase != Paused && !l.Phase.Held() {
		return l, Record{}, l.refuse("resume")
	}
	next := l
	next.Accepted = l.Accepted || l.Phase == HeldWorse
	next.Phase, next.StepAt = l.working(), now
	return l.command(next, ActResume, actor, reason, now)
}

// Promote goes to the next step at once, whatever the evidence, and from the last ends the launch. It
// also ends a pause or a hold.
func (l Launch) Promote(actor, reason string, now time.Time) (Launch, Record, error) {
	if l.Phase.Over() {
		return l, Record{}, l.refuse("promote")
	}
	return l.command(l.advance(now), ActPromote, actor, reason, now)
}

// Abort sends everyone back to stable, in every phase in which the candidate has traffic.
func (l Launch) Abort(actor, reason string, now time.Time) (Launch, Record, error) {
	if l.Phase.Over() {
		return l, Record{}, l.refuse("abort")
	}
	return l.command(l.rollBack(now), ActRollBack, actor, reason, now)
}

func (l Launch) refuse(command string) error {
	phase := l.Phase
	if phase == None {
		phase = "not begun"
	}
	return fmt.Errorf("%s: launch is %s: %w", command, phase, ErrPhase)
}

func (l Launch) command(next Launch, act Action, actor, reason string, now time.Time) (Launch, Record, error) {
	l, record := l.record(next, Record{Action: act, At: now, Actor: actor, Reason: reason})
	return l, record, nil
}

// enter is the launch at the beginning of a step.
func (l Launch) enter(step int, now time.Time) Launch {
	l.Step, l.Weight, l.StepAt = step, l.Plan.Steps[step].Weight, now
	l.Phase = l.working()
	return l.recount(now)
}

// recount is the launch with all counts to begin at zero.
func (l Launch) recount(now time.Time) Launch {
	l.Epoch++
	l.EpochAt = now
	return l
}

// working is the phase of a launch that nothing stops.
func (l Launch) working() Phase {
	if l.Step == len(l.Plan.Steps)-1 {
		return Watching
	}
	return Running
}

func (l Launch) advance(now time.Time) Launch {
	if l.Step == len(l.Plan.Steps)-1 {
		l.Phase = Completed
		return l
	}
	return l.enter(l.Step+1, now)
}

func (l Launch) rollBack(now time.Time) Launch {
	l.Phase, l.Weight = RolledBack, 0
	return l.recount(now)
}

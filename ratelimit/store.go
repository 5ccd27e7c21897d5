package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// MaxCharges bounds the charges of one decision.
const MaxCharges = 6

// ErrCharges says that a list of charges is empty, longer than [MaxCharges], names one log twice,
// or holds a rate out of bounds. It is the caller's mistake, not an outage.
var ErrCharges = errors.New("ratelimit: charges are not valid")

// Charge asks one admission of one log. The log is named by Policy and Key together.
type Charge struct {
	// Policy names the rule, for example "user". Clients see it unless Hidden.
	Policy string
	// Key names who is counted. It may be of any length: a Store hashes or bounds it.
	Key string
	// Rate is the rule now. It may differ between calls for the same log: plans change.
	Rate Rate
	// Hidden keeps Limit and Remaining from clients: how much the whole service takes is not
	// theirs to know.
	Hidden bool
}

// CheckCharges is for a [Store] to begin with: it returns nil or wraps [ErrCharges].
func CheckCharges(charges []Charge) error {
	if len(charges) == 0 || len(charges) > MaxCharges {
		return fmt.Errorf("%w: %d of them", ErrCharges, len(charges))
	}
	for i := range charges {
		c := &charges[i]
		if err := c.Rate.Validate(); err != nil {
			return fmt.Errorf("%w: policy %s: %w", ErrCharges, c.Policy, err)
		}
		for j := range i {
			if charges[j].Policy == c.Policy && charges[j].Key == c.Key {
				return fmt.Errorf("%w: policy %s names one log twice", ErrCharges, c.Policy)
			}
		}
	}
	return nil
}

// Store keeps the logs of admissions. A store of several instances answers each call with one
// round trip. Methods may be called from any goroutine.
//
// The law: let A be the admissions of a log. For every time t, no more than Limit of A lie in
// (t-Window, t]; a log with none in that span grants Limit at once; refusals are not in A. Time is
// the store's own, the same for all who share it.
//
// When a log's Limit changes, all admissions of the Window count against the new one. When its
// Window grows, what the old one no longer needed may be forgotten.
type Store interface {
	// Take admits all charges and records each in its log, or refuses and records nothing.
	Take(ctx context.Context, charges []Charge) (Decision, error)
	// Peek answers as Take would, and records nothing in any case.
	Peek(ctx context.Context, charges []Charge) (Decision, error)
}

// Decision is the answer to a list of charges. The zero Decision is a refusal.
type Decision struct {
	// Allowed says that all charges were admitted.
	Allowed bool
	// Full says that a refusal is for want of memory, see [Memory].
	Full bool
	// Mode says who answered.
	Mode Mode
	// Wait is how long until these charges would be admitted if nobody else came; 0 when Allowed.
	Wait time.Duration

	quotas [MaxCharges]Quota
	n      int
}

// Quota is what one charge's log looks like after the decision.
type Quota struct {
	// Policy and Rate are the charge's.
	Policy string
	Rate   Rate
	// Remaining is how many more would be admitted now.
	Remaining int
	// Reset is how long until Remaining grows; 0 when nothing is used up.
	Reset time.Duration
	// Violated says that this charge by itself was refused.
	Violated bool
	// Hidden is the charge's: do not tell clients the numbers.
	Hidden bool
}

// NewDecision is for a [Store] to answer with; quotas are in the order of the charges.
func NewDecision(allowed bool, wait time.Duration, quotas ...Quota) Decision {
	d := Decision{Allowed: allowed, Wait: wait}
	d.n = copy(d.quotas[:], quotas)
	return d
}

// Quotas returns one Quota for each charge, in their order.
func (d *Decision) Quotas() []Quota { return d.quotas[:d.n] }

// Violated names the policies that refused, hidden ones too.
func (d *Decision) Violated() []string {
	var names []string
	for _, q := range d.Quotas() {
		if q.Violated {
			names = append(names, q.Policy)
		}
	}
	return names
}

// Binding returns the visible quota that is nearest to its end, and false where none is visible.
func (d *Decision) Binding() (Quota, bool) {
	best := -1
	for i, q := range d.Quotas() {
		if !q.Hidden && (best < 0 || q.tighter(d.quotas[best])) {
			best = i
		}
	}
	if best < 0 {
		return Quota{}, false
	}
	return d.quotas[best], true
}

func (q Quota) tighter(than Quota) bool {
	if q.Remaining != than.Remaining {
		return q.Remaining < than.Remaining
	}
	return q.Reset > than.Reset
}

// Mode says who answered a decision.
type Mode int

// The modes.
const (
	// Shared is the configured store: the limits are in force.
	Shared Mode = iota
	// Local is this process alone, while the configured store fails.
	Local
	// Open is nobody: the store fails and requests are let through.
	Open
	// Closed is nobody: the store fails and requests are refused.
	Closed
)

// String returns "shared", "local", "open" or "closed".
func (m Mode) String() string {
	switch m {
	case Local:
		return "local"
	case Open:
		return "open"
	case Closed:
		return "closed"
	default:
		return "shared"
	}
}

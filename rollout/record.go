package rollout

import "time"

// Record is one line of the journal of a launch: what was seen, what was decided, and why. Write it
// durably, then act on it; a roll back may act first.
type Record struct {
	Format   int       `json:"format"`
	Launch   string    `json:"launch"`
	Revision uint64    `json:"revision"` // from 1, without gaps
	At       time.Time `json:"at"`
	Actor    string    `json:"actor"` // who decided: [Judge], or an operator's name
	Action   Action    `json:"action"`
	Reason   string    `json:"reason"`

	// Where the launch is from then on.
	Phase    Phase       `json:"phase"`
	Step     int         `json:"step"`
	Weight   BasisPoints `json:"weight"`
	Epoch    uint64      `json:"epoch"`
	StepAt   time.Time   `json:"step_at"`
	EpochAt  time.Time   `json:"epoch_at"`
	Accepted bool        `json:"accepted,omitempty"`

	// Verdict is what the judge made of the look; nil in the record of an operator.
	Verdict *Verdict `json:"verdict,omitempty"`
	// Opening is set in the first record only.
	Opening *Opening `json:"opening,omitempty"`

	// Sum is a SHA-256 over the record before and this one.
	Sum string `json:"sum"`
}

// Judge is the actor of what [Next] decides.
const Judge = "judge"

// Opening is what does not change in a launch.
type Opening struct {
	Salt         []byte `json:"salt"`
	StableURL    string `json:"stable"`
	CandidateURL string `json:"candidate"`
	Plan         Plan   `json:"plan"`
}

// Action is what a record does to the launch.
type Action string

// What a record can do. Look changes nothing.
const (
	ActStart    Action = "start"
	ActLook     Action = "look"
	ActPromote  Action = "promote"  // to the next step, or from the last to Completed
	ActPause    Action = "pause"    // by an operator
	ActResume   Action = "resume"   // by an operator, or by the judge when what it held for is over
	ActHold     Action = "hold"     // by the judge
	ActRollBack Action = "rollback" // by the judge, or an operator's abort
)

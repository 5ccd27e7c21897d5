package rollout

import "time"

// Format is the version of the JSON of a [Launch] and a [Record].
const Format = 1

// Launch is the state of one move from stable to candidate. The zero Launch sends nobody to the
// candidate. Treat it as a value: what changes it returns the changed one.
type Launch struct {
	Format int    `json:"format"` // of this JSON
	ID     string `json:"id"`
	Salt   []byte `json:"salt"` // of the buckets, new for each launch
	// StableURL and CandidateURL are the upstreams, or names for two handlers of one process.
	StableURL    string `json:"stable"`
	CandidateURL string `json:"candidate"`
	Plan         Plan   `json:"plan"` // with its defaults

	Phase  Phase       `json:"phase"`
	Reason string      `json:"reason"` // of the phase and weight, for people
	Step   int         `json:"step"`   // index in Plan.Steps
	Weight BasisPoints `json:"weight"` // in force
	// Epoch numbers the counts: when it rises, every instance begins to count from zero. It rises with
	// each step, and when the counts of a step are spoilt by trouble that was not the candidate's.
	Epoch uint64 `json:"epoch"`
	// Accepted is that an operator has resumed a candidate held as worse than stable; it is not held for
	// that again.
	Accepted bool `json:"accepted,omitempty"`

	StartedAt time.Time `json:"started_at"`
	StepAt    time.Time `json:"step_at"`  // when the time of the step began to count
	EpochAt   time.Time `json:"epoch_at"` // when the epoch began

	// Revision is how many records led here, and Sum the checksum of the latest: compare and swap on
	// Revision, and the state and the journal cannot part.
	Revision uint64 `json:"revision"`
	Sum      string `json:"sum"`
}

// Phase is what a launch is doing.
type Phase string

// Where a launch can be. It is judged in all but the last two and None, and may be aborted in all of
// those.
const (
	None    Phase = ""        // no launch: the zero value
	Running Phase = "running" // at a step below 100 %
	Paused  Phase = "paused"  // by an operator
	// HeldShared is that stable fails as well; it ends by itself when stable is well again, or gone
	// and the candidate well.
	HeldShared Phase = "held-shared"
	// HeldWorse is that both are within the limits and the candidate is clearly worse than stable; it ends
	// by Resume.
	HeldWorse Phase = "held-worse"
	// HeldAlone is that the candidate should go and stable cannot take over; it ends by itself when one
	// of the two is well again.
	HeldAlone Phase = "held-alone"
	// Inconclusive is that three times the minimum time did not bring the evidence; it ends by itself
	// when the evidence comes.
	Inconclusive Phase = "inconclusive"
	Watching     Phase = "watching"    // at 100 %, still judged
	Completed    Phase = "completed"   // the candidate is the stable version of the next launch
	RolledBack   Phase = "rolled-back" // everyone is on stable
)

// Over is whether the launch has ended, or never begun.
func (p Phase) Over() bool { return p == None || p == Completed || p == RolledBack }

// Held is whether the judge, not an operator, keeps the launch where it is.
func (p Phase) Held() bool {
	return p == HeldShared || p == HeldWorse || p == HeldAlone || p == Inconclusive
}

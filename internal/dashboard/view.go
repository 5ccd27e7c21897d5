package dashboard

import (
	"slices"
	"time"
)

// View is all that the page shows, as of one moment. Its JSON is what GET /api/view answers and `gantry top` draws:
// durations are seconds, shares are 0 to 1, and what is not known is left out or zero, as each field says.
type View struct {
	At          time.Time `json:"at"`
	Started     time.Time `json:"started"` // when the process began to serve
	Instance    string    `json:"instance"`
	Environment string    `json:"environment"`
	Version     string    `json:"version"`
	Draining    bool      `json:"draining,omitempty"`

	// Verdict is made of the rest; a Source leaves it empty.
	Verdict Verdict `json:"verdict"`

	Limits   Limits     `json:"limits"`
	Now      Point      `json:"now"`       // the last minute
	InFlight uint64     `json:"in_flight"` // requests
	Short    History    `json:"short"`     // 15 minutes
	Long     History    `json:"long"`      // 24 hours
	Alerts   []Alert    `json:"alerts"`
	Health   Health     `json:"health"`
	Refusals []Refusal  `json:"refusals"` // the newest first
	Routes   []Route    `json:"routes"`   // those that limits refused most on, over 15 minutes
	Pool     *Pool      `json:"pool,omitempty"`
	Degraded []Degraded `json:"degraded,omitempty"`
	Keys     []Keys     `json:"keys"`
	Rollout  *Rollout   `json:"rollout,omitempty"` // nil hides it
	Audits   []Audit    `json:"audits"`            // of one target, the oldest first
	Config   Setup      `json:"config"`
}

// Limits are what the charts draw as lines; zero draws none.
type Limits struct {
	ErrorRate float64 `json:"error_rate"`  // share of answers
	P95       float64 `json:"p95_seconds"` // seconds
	Pool      float64 `json:"pool"`        // share in use
}

// History is a run of points of equal length, but for the last, which ends now.
type History struct {
	From   time.Time `json:"from"`
	Step   float64   `json:"step_seconds"`
	Points []Point   `json:"points"`
}

// Point is what happened in one stretch of time.
type Point struct {
	Seconds     float64 `json:"seconds"` // its length; 0 when nobody looked
	Requests    uint64  `json:"requests"`
	Errors      uint64  `json:"errors"`       // answers that are 5xx
	RateLimited uint64  `json:"rate_limited"` // 429
	Timeouts    uint64  `json:"timeouts"`     // 504
	Refusals    uint64  `json:"token_refusals"`
	P50         float64 `json:"p50_seconds"` // 0 without requests
	P95         float64 `json:"p95_seconds"`
	P99         float64 `json:"p99_seconds"`
	Health      int     `json:"health"`    // 200, or 503 when it was so at any time; 0 unknown
	PoolUsed    float64 `json:"pool_used"` // the most connections in use
	PoolMax     float64 `json:"pool_max"`  // 0 unknown
}

// Rate is requests a second.
func (p Point) Rate() float64 { return ratio(float64(p.Requests), p.Seconds) }

// ErrorRate is the share of answers that are 5xx.
func (p Point) ErrorRate() float64 { return ratio(float64(p.Errors), float64(p.Requests)) }

// PoolShare is the share of the pool in use.
func (p Point) PoolShare() float64 { return ratio(p.PoolUsed, p.PoolMax) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Alert is a rule and where it stands.
type Alert struct {
	Name      string    `json:"name"`
	Condition string    `json:"condition"`
	Signal    string    `json:"signal"`
	Severity  string    `json:"severity"` // critical, high, medium or low
	State     string    `json:"state"`    // inactive, pending or firing
	Since     time.Time `json:"since"`
	// Reading is the last value, ready to be read: "3.1 %"; empty when nothing was measured.
	Reading        string    `json:"reading,omitempty"`
	SilencedUntil  time.Time `json:"silenced_until,omitzero"`
	AcknowledgedBy string    `json:"acknowledged_by,omitempty"`
	Runbook        string    `json:"runbook,omitempty"` // where to read what to do
}

// Silenced says that nobody is told of the alert at t.
func (a Alert) Silenced(t time.Time) bool { return t.Before(a.SilencedUntil) }

// fires says that an alert about a signal is firing.
func (v View) fires(signal string) bool {
	return slices.ContainsFunc(v.Alerts, func(a Alert) bool { return a.Signal == signal && a.State == "firing" })
}

// Health is what GET /health answers, and its checks.
type Health struct {
	Status int     `json:"status"` // 200 or 503; 0 before the first round
	Checks []Check `json:"checks"`
}

// Check is one dependency. A check that never ran has no Status: it is not well, it is unknown.
type Check struct {
	Name     string  `json:"name"`
	Status   string  `json:"status,omitempty"` // pass, warn or fail
	Age      float64 `json:"age_seconds"`      // of the last result
	Took     float64 `json:"took_seconds,omitempty"`
	Observed string  `json:"observed,omitempty"` // "3.2 s", "41 %"
	Reason   string  `json:"reason,omitempty"`
}

// Refusal is a request that was not served as asked.
type Refusal struct {
	At        time.Time `json:"at"`
	RequestID string    `json:"request_id"`
	Status    int       `json:"status"`
	Reason    string    `json:"reason"` // token:expired, quota:user, ...
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Who       string    `json:"who,omitempty"` // a user's pseudonym, or an address
}

// Route is what limits did on one route.
type Route struct {
	Name    string `json:"name"` // the template, never a raw path; empty for what matched none
	Refused uint64 `json:"refused"`
}

// Pool is the database pool at this moment.
type Pool struct {
	Used    int `json:"used"`
	Idle    int `json:"idle"`
	Max     int `json:"max"`
	Waiting int `json:"waiting"` // callers without a connection
}

// Degraded is a way in which the door works with less than it should: limits-local, cache-away, keys-stale.
type Degraded struct {
	Mode  string    `json:"mode"`
	Text  string    `json:"text"` // what it means
	Since time.Time `json:"since,omitzero"`
}

// Keys are an issuer's signing keys.
type Keys struct {
	Issuer string  `json:"issuer"`
	Count  int     `json:"count"`
	Age    float64 `json:"age_seconds"`
	Stale  bool    `json:"stale,omitempty"`
	Error  string  `json:"error,omitempty"` // of the last fetch
}

// Audit is one report's outcome.
type Audit struct {
	At         time.Time `json:"at"`
	Target     string    `json:"target"`
	Score      float64   `json:"score"` // 0 to 10
	CouldBe    float64   `json:"could_be"`
	RangeOnly  bool      `json:"range_only,omitempty"` // under half is proven: Score to CouldBe, no grade
	Label      string    `json:"label"`
	Critical   int       `json:"critical"`
	Incomplete bool      `json:"incomplete,omitempty"`
	Next       []string  `json:"next,omitempty"` // what to fix first
}

// Setup is what the process runs with.
type Setup struct {
	Hash     string    `json:"hash"` // of what is in force; the same on instances that are set alike
	LoadedAt time.Time `json:"loaded_at"`
	// Refused is why the last reload was not taken over, Waiting what of it waits for a restart.
	Refused  string    `json:"refused,omitempty"`
	Waiting  []string  `json:"waiting,omitempty"`
	Settings []Setting `json:"settings"` // those that were set
}

// Setting is a name and its value, secrets redacted.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // where it was set
}

// Rollout is a launch and its evidence.
type Rollout struct {
	ID     string    `json:"id"`
	To     string    `json:"to"`    // the candidate's address
	Phase  string    `json:"phase"` // none, running, paused, held-..., watching, completed, rolled-back
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// Trouble says that somebody should look: held, or rolled back.
	Trouble  bool      `json:"trouble,omitempty"`
	Steps    []float64 `json:"steps"`    // shares: 0.1, 0.5, 1
	Weight   float64   `json:"weight"`   // the candidate's share now
	Versions []Version `json:"versions"` // stable, candidate
	// Evidence is the word of the judge: proven, consistent, no traffic.
	Evidence string  `json:"evidence,omitempty"`
	PValue   float64 `json:"p_value,omitempty"` // of the worse of the two tests; 0 without a verdict
	Needed   uint64  `json:"needed,omitempty"`  // requests until the step is proven
	Left     float64 `json:"left_seconds,omitempty"`
	Curve    []Proof `json:"curve,omitempty"`
	Verbs    []Verb  `json:"verbs"` // what may be done now
	// SlowAfter is from when on an answer is slow.
	SlowAfter float64 `json:"slow_after_seconds"`
}

// Version is one side of a rollout, counted since the step began.
type Version struct {
	Name     string  `json:"name"`
	Weight   float64 `json:"weight"`
	Requests uint64  `json:"requests"`
	Failed   uint64  `json:"failed"`
	Slow     uint64  `json:"slow"`
	// MaxFailed and MaxSlow are the plan's limits, as shares.
	MaxFailed float64 `json:"max_failed"`
	MaxSlow   float64 `json:"max_slow"`
}

// Proof is a point of the evidence curve: after so many requests the failure rate is at most Upper, with 95 % confidence.
type Proof struct {
	Requests uint64  `json:"requests"`
	Rate     float64 `json:"rate"`
	Upper    float64 `json:"upper"`
}

// Verb is what an operator can do to a rollout.
type Verb string

// The verbs.
const (
	Start   Verb = "start"
	Pause   Verb = "pause"
	Resume  Verb = "resume"
	Promote Verb = "promote"
	Abort   Verb = "abort"
)

package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gantryhq/gantry/audit/load"
)

// Config is how an audit runs. The zero value is a polite, read-only run.
type Config struct {
	Active, Load, Faults bool     // allow the modes A, L and X
	Authorized           string   // --i-am-authorized: the target's host, word for word, for A, L, X beyond private addresses
	Only                 []string // run these probes only; empty means all
	Skip                 []string

	Pace   float64 // requests per second of safe probes; 10
	Budget Budget
	Seed   uint64 // of everything random; 42
	Policy Policy
	Hooks  Hooks
	Trust  load.Trust // up to where the load generator is believed

	Callback string         // address of the audit's own listener that targets may be lured to call; 127.0.0.1:0
	Harness  string         // address of the audit's own token issuer; none when empty
	Claims   map[string]any // of tokens minted by the harness, over iss, sub, iat and exp
	OTLPSink string         // address where the target sends its traces, as OTLP over HTTP; none when empty

	// Observers are vantage points behind the target, by name.
	Database DatabaseObserver
	Cache    CacheObserver
	// Vantage findings come from beside the wire (source, environment file). They can only lower the score.
	Vantage []Finding
	Points  []string // vantage points to name in the report

	Waivers    []Waiver
	Attested   []Attestation
	NoDeclared bool // --no-declared-na: what is declared not applicable is left unproven

	Version  string // of Gantry
	Now      func() time.Time
	Log      *slog.Logger
	Progress func(Progress) // one call at a time
}

// Budget bounds a run. Zero fields are the defaults.
type Budget struct {
	Requests int           `json:"requests"` // 3000; load windows are counted apart
	Time     time.Duration `json:"time"`     // 15 minutes, an hour with load or faults; nanoseconds
	Bytes    int64         `json:"bytes"`    // received; 256 MiB
	Load     int           `json:"load"`     // requests of load probes; 200,000
}

// Hooks are commands of the operator that let the audit break and mend things. Each runs under "sh -c".
type Hooks struct {
	Fault, Restore string // stop a dependency, start it again
	Hang           string // make a dependency hang instead (SIGSTOP, a black hole); Restore mends it
	Restart        string // restart the API with SIGTERM
	Deploy         string // deploy a new version
	Rollback       string
	RestoreDrill   string // restore a backup elsewhere and print what came back
	Log            string // print the API's recent log
	AlertWebhook   string // address where the audit listens for the alert that a fault must cause
}

// Waiver accepts a failure: it keeps failing in the score, and only the exit code looks away until it expires.
type Waiver struct {
	ID      string    `yaml:"id" json:"id"` // probe or root
	Reason  string    `yaml:"reason" json:"reason"`
	Owner   string    `yaml:"owner" json:"owner"`
	Expires time.Time `yaml:"expires" json:"expires"`
}

// Attestation vouches for a launch probe that no machine can run here; it earns half.
type Attestation struct {
	ID      string    `yaml:"id" json:"id"`
	Owner   string    `yaml:"owner" json:"owner"`
	Date    time.Time `yaml:"date" json:"date"`
	Link    string    `yaml:"link" json:"link"`
	Expires time.Time `yaml:"expires" json:"expires"`
}

// Defaults fills what is zero, as [Run] does.
func (c Config) Defaults() Config {
	set(&c.Pace, 10)
	set(&c.Seed, 42)
	set(&c.Budget.Requests, 3000)
	set(&c.Budget.Bytes, 256<<20)
	set(&c.Budget.Load, 200_000)
	limit := 15 * time.Minute
	if c.Load || c.Faults {
		limit = time.Hour
	}
	set(&c.Budget.Time, limit)
	set(&c.Callback, "127.0.0.1:0")
	c.Policy = c.Policy.WithDefaults()
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	return c
}

func (c Config) allows(m Mode) bool {
	switch m {
	case Passive, Safe:
		return true
	case Active:
		return c.Active
	case Load:
		return c.Load
	case Fault:
		return c.Faults
	}
	return false
}

// Validate returns every fault of the configuration for a target.
func (c Config) Validate(t *Target) error {
	var faults []error
	if t == nil || t.URL == nil {
		return errors.New("no target")
	}
	if c.Pace < 0 || c.Pace > 1000 || c.Pace > 0 && c.Pace < 0.1 {
		faults = append(faults, errors.New("--pace: give 0.1 to 1000 requests a second"))
	}
	if c.Budget.Requests < 0 || c.Budget.Time < 0 || c.Budget.Bytes < 0 || c.Budget.Load < 0 {
		faults = append(faults, errors.New("--max-requests and --max-time: a budget is more than nothing"))
	}
	for _, p := range t.paths() {
		if p != "" && p[0] != '/' {
			faults = append(faults, fmt.Errorf("path %q: it begins with a slash, below the target's URL", p))
		}
	}
	risky := c.Active || c.Load || c.Faults
	if risky && !t.Local() && c.Authorized != t.URL.Hostname() {
		faults = append(faults, fmt.Errorf(
			"%s is neither loopback nor a private address: --active, --load and --fault-cmd need --i-am-authorized %s",
			t.URL.Hostname(), t.URL.Hostname()))
	}
	if c.Hooks.Fault != "" && c.Hooks.Restore == "" {
		faults = append(faults, errors.New("--fault-cmd needs --restore-cmd, so that the audit can mend what it broke"))
	}
	for _, w := range c.Waivers {
		if w.ID == "" || w.Owner == "" || w.Reason == "" || w.Expires.IsZero() {
			faults = append(faults, fmt.Errorf("waiver %q: it needs an id, a reason, an owner and an expiry", w.ID))
		}
	}
	for _, a := range c.Attested {
		if a.ID == "" || a.Owner == "" || a.Link == "" || a.Date.IsZero() || a.Expires.IsZero() {
			faults = append(faults, fmt.Errorf("attestation %q: it needs an id, an owner, a date, a link and an expiry", a.ID))
		}
	}
	return errors.Join(faults...)
}

// Progress is where a run stands.
type Progress struct {
	Stage    string
	Probe    string // running or just finished
	Finished *Finding
	Done     int // of Total probes
	Total    int
	Requests int
	Elapsed  time.Duration
	Waiting  time.Duration // for the target's rate limit to let go; zero when not
}

// Package alert watches signals, and wakes people when a rule about them holds.
//
// Begin with [Parse] for rules as operators write them, then [NewEngine] and [Engine.Run]. The rules of the
// production-readiness document are [Defaults].
//
// The surprise: no data is not zero. A rule about a signal that nothing was measured of neither fires nor
// resolves; it stays as it was, and says so.
package alert

import (
	"context"
	"time"
)

// Severity says how much a firing rule matters.
type Severity string

// The severities, as the document writes them. PagerDuty's are critical, error, warning and info.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
)

// Signal is the name of something measured, as conditions write it.
type Signal string

// The signals. The first four are the document's.
const (
	HealthStatus    Signal = "health_check_status"    // what /health answers: 200 or 503; the worst in the window
	ErrorRate       Signal = "error_rate"             // share of answers that are 5xx
	P95Latency      Signal = "p95_latency"            // seconds from the request's headers to the whole answer
	RateLimitHits   Signal = "rate_limit_hits"        // answers that are 429, in the window
	Timeouts        Signal = "timeouts"               // answers that are 504, in the window
	TokenRefusals   Signal = "token_refusals"         // requests whose token was refused, in the window
	PoolUtilization Signal = "pool_utilization"       // share of the database pool in use; the highest in the window
	JWKSAge         Signal = "jwks_age"               // seconds since the issuer's keys were last fetched
	CertExpiry      Signal = "certificate_expires_in" // seconds until the door's certificate ends
	WebhookSilence  Signal = "webhook_silence"        // seconds since Clerk's last webhook while users signed in
	DiskFree        Signal = "disk_free"              // share of the data directory's file system that is free
	SlowRate        Signal = "slow_rate"              // share of answers that took longer than the success criteria allow (500 ms)
	RolloutTrouble  Signal = "rollout_rolled_back"    // rollouts that were rolled back or held, in the window
	TelemetryLost   Signal = "telemetry_dropped"      // spans and events that could not be delivered, in the window
)

// Reading is a signal's value over a window.
type Reading struct {
	Value float64
	// Count is of how many events the value is made; 0 for a gauge.
	Count uint64
}

// Source measures. It answers from memory, at once.
type Source interface {
	// Read returns a signal over the window that ends now; false means that nothing was measured of it.
	Read(s Signal, window time.Duration) (Reading, bool)
}

// State is where a rule stands.
type State string

// The states. A rule that holds is Pending until it has held for its For.
const (
	Inactive State = "inactive"
	Pending  State = "pending"
	Firing   State = "firing"
)

// Alert is a rule and where it stands.
type Alert struct {
	Rule  Rule  `json:"rule"`
	State State `json:"state"`
	// Since is when State began; Fired is when the alert last began to fire, zero when it never did.
	Since time.Time `json:"since"`
	Fired time.Time `json:"fired,omitzero"`
	// Incident is the key that all messages of one firing share, so that receivers can deduplicate.
	Incident string  `json:"incident,omitempty"`
	Reading  Reading `json:"reading"`
	// NoData says that the last evaluation measured nothing.
	NoData         bool      `json:"no_data,omitempty"`
	SilencedUntil  time.Time `json:"silenced_until,omitzero"`
	SilencedBy     string    `json:"silenced_by,omitempty"`
	AcknowledgedBy string    `json:"acknowledged_by,omitempty"`
}

// Notification is one message about an alert.
type Notification struct {
	Alert Alert `json:"alert"`
	// Resolved says that the alert no longer fires.
	Resolved bool      `json:"resolved"`
	At       time.Time `json:"at"`
	// Instance names the process that evaluated the rule, Environment where it runs.
	Instance    string `json:"instance"`
	Environment string `json:"environment"`
	// Dashboard is the address of the page that shows more; Runbook is the rule's entry in the runbook.
	Dashboard string `json:"dashboard,omitempty"`
	Runbook   string `json:"runbook,omitempty"`
	// Facts are what else is worth reading at three in the morning, in order: "requests" "1,204".
	Facts []Fact `json:"facts,omitempty"`
	// Test says that nobody needs to get up.
	Test bool `json:"test,omitempty"`
}

// Fact is a name and a value, ready to be read.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Notifier delivers messages. Notify makes one attempt; who calls it retries.
type Notifier interface {
	Notify(ctx context.Context, n Notification) error
}

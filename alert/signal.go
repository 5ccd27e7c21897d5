package alert

import (
	"slices"
	"time"
)

// unit is what a signal is measured in, and so how its limits are written.
type unit int

const (
	status unit = iota + 1
	share
	seconds
	count
)

func (u unit) String() string {
	switch u {
	case status:
		return "a status"
	case share:
		return "a share"
	case seconds:
		return "a time"
	}
	return "a number"
}

// measure is what there is to know about a signal.
type measure struct {
	signal Signal
	unit   unit
	// best and worst are the ends of what it can measure.
	best, worst float64
	// window is over how long it is read, hold for how long a condition about it must hold. Of a signal that is made
	// of events hold is the longer, so that a single event, which the window shows until it has left, wakes nobody.
	window, hold time.Duration
	limit        string // as one is written, for example
	help         string
}

const day = 24 * time.Hour

// measures are in the order in which documentation lists them.
func measures() []measure {
	return []measure{
		{HealthStatus, status, 200, 503, 10 * time.Second, 20 * time.Second, "200", "what /health answers, 200 or 503; the worst in the window"},
		{ErrorRate, share, 0, 1, time.Minute, 2 * time.Minute, "1%", "share of answers that are 5xx"},
		{P95Latency, seconds, 0, forever, time.Minute, 3 * time.Minute, "500ms", "95th percentile of the time from a request's headers to its whole answer"},
		{RateLimitHits, count, 0, forever, time.Hour, 0, "100/hour", "answers that are 429"},
		{Timeouts, count, 0, forever, 5 * time.Minute, 0, "10", "answers that are 504"},
		{TokenRefusals, count, 0, forever, 5 * time.Minute, 0, "100", "requests whose token was refused"},
		{PoolUtilization, share, 0, 1, time.Minute, 2 * time.Minute, "80%", "share of the database pool in use; the highest in the window"},
		{JWKSAge, seconds, 0, forever, 10 * time.Second, time.Minute, "1h", "time since the issuer's keys were last fetched"},
		{CertExpiry, seconds, forever, -forever, 10 * time.Second, time.Minute, "14d", "time until the door's certificate ends; negative when it has"},
		{WebhookSilence, seconds, 0, forever, 10 * time.Second, time.Minute, "24h", "time since Clerk's last webhook while users signed in"},
		{DiskFree, share, 1, 0, 10 * time.Second, time.Minute, "10%", "share of the data directory's file system that is free"},
		{SlowRate, share, 0, 1, time.Minute, 2 * time.Minute, "5%", "share of answers that took longer than 500 ms"},
		{RolloutTrouble, count, 0, forever, 5 * time.Minute, 0, "0", "rollouts that were rolled back or held"},
		{TelemetryLost, count, 0, forever, 10 * time.Minute, 0, "100", "spans, events and messages that could not be delivered"},
	}
}

// forever is more than any signal measures, in seconds or in events.
const forever = 1e15

// measureOf returns what there is to know about a signal; false means that it is none.
func measureOf(s Signal) (measure, bool) {
	all := measures()
	i := slices.IndexFunc(all, func(m measure) bool { return m.signal == s })
	if i < 0 {
		return measure{}, false
	}
	return all[i], true
}

// burns says that an objective can be set for the signal: it is a share of events that are bad.
func (s Signal) burns() bool { return s == ErrorRate || s == SlowRate }

func signalNames() []string {
	var names []string
	for _, m := range measures() {
		names = append(names, string(m.signal))
	}
	return names
}

package server

import (
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/telemetry"
)

// signals is what alerts are about, read from the history and from what the features know.
type signals struct{ s *Server }

var _ alert.Source = signals{}

// slow is the limit of the success criteria: 95 of 100 answers take no longer.
const slow = 500 * time.Millisecond

// Read implements alert.Source.
func (g signals) Read(signal alert.Signal, window time.Duration) (alert.Reading, bool) {
	if gauge, ok := g.gauges()[signal]; ok {
		v, ok := gauge()
		return alert.Reading{Value: v}, ok
	}
	seen := g.s.meters.History().Over(window, time.Now())
	return readingOf(signal, &seen)
}

// gauges are the signals that have a value now, whatever the window.
func (g signals) gauges() map[alert.Signal]func() (float64, bool) {
	return map[alert.Signal]func() (float64, bool){
		alert.JWKSAge: g.oldestKeys, alert.CertExpiry: g.certificateLasts,
		alert.WebhookSilence: g.s.webhookSilence, alert.DiskFree: g.s.freeShare,
	}
}

func (g signals) oldestKeys() (oldest float64, ok bool) {
	g.s.keyAges(func(_ string, age time.Duration) { oldest, ok = max(oldest, age.Seconds()), true })
	return oldest, ok
}

func (g signals) certificateLasts() (float64, bool) {
	end, ok := g.s.certificateEnd()
	if !ok {
		return 0, false
	}
	return end - float64(time.Now().Unix()), true
}

// readingOf reads a signal out of what happened. Numbers of events are known also when there were none; shares
// and latencies are not.
func readingOf(signal alert.Signal, seen *telemetry.Sample) (alert.Reading, bool) {
	events := func(n uint64) (alert.Reading, bool) { return alert.Reading{Value: float64(n), Count: n}, true }
	perRequest := func(v float64) (alert.Reading, bool) {
		return alert.Reading{Value: v, Count: seen.Requests}, seen.Requests > 0
	}
	switch signal {
	case alert.HealthStatus:
		return alert.Reading{Value: float64(seen.Health)}, seen.Health != 0
	case alert.PoolUtilization:
		return alert.Reading{Value: seen.PoolUsed / max(1, seen.PoolMax)}, seen.PoolMax > 0
	case alert.ErrorRate:
		return perRequest(float64(seen.Errors) / max(1, float64(seen.Requests)))
	case alert.P95Latency:
		return perRequest(seen.Latency.Quantile(0.95).Seconds())
	case alert.SlowRate:
		return perRequest(seen.Latency.Over(slow))
	case alert.RateLimitHits:
		return events(seen.RateLimited)
	case alert.Timeouts:
		return events(seen.Timeouts)
	case alert.TokenRefusals:
		return events(seen.TokenRefusals)
	case alert.RolloutTrouble:
		return events(seen.RolledBack + seen.Held)
	case alert.TelemetryLost:
		return events(seen.Lost)
	}
	return alert.Reading{}, false
}

package telemetry

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// MetricsConfig of a [Metrics]. The zero value of each field means its default.
type MetricsConfig struct {
	// Version names the build; default "unknown".
	Version string
	// Policies and Reasons are those of limits and of token refusals. They are shown at 0 from the start, so
	// that Prometheus sees the first of each as an increase.
	Policies, Reasons []string
	// Sources are read at each scrape.
	Sources Sources
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger hears of scrapes that fail. Nil discards.
	Logger *slog.Logger
}

// Metrics counts, for Prometheus and in a [History]. All methods may be called from any goroutine, and those
// that count never wait.
type Metrics struct {
	cfg      MetricsConfig
	registry *prometheus.Registry
	history  *History
	inFlight atomic.Int64

	answers                              *answers
	upstream                             *limited[pair, prometheus.Observer]
	decisions, timeouts, refusals, broke *limited[pair, prometheus.Counter]
	lost                                 *limited[pair, prometheus.Counter]
	accepted, rolledBack, held           prometheus.Counter
}

// NewMetrics returns metrics in a registry of their own, and with an empty history.
func NewMetrics(cfg MetricsConfig) *Metrics {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Version == "" {
		cfg.Version = "unknown"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := prometheus.NewRegistry()
	m := &Metrics{
		cfg: cfg, registry: r, history: NewHistory(cfg.Now()),
		answers: newAnswers(r), upstream: newDurations(r, upstreamDuration),
		decisions: newCounters(r, ratelimitDecisions), timeouts: newCounters(r, requestTimeouts),
		refusals: newCounters(r, tokenRefusals), broke: newCounters(r, upstreamErrors), lost: newCounters(r, telemetryDropped),
		accepted: newCounter(r, tokensAccepted), rolledBack: newCounter(r, rolloutRollbacks), held: newCounter(r, rolloutHolds),
	}
	m.scrapes()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, policy := range cfg.Policies {
		m.decisions.get(pair{policy, "allowed"})
		m.decisions.get(pair{policy, "refused"})
	}
	for _, reason := range cfg.Reasons {
		m.refusals.get(pair{reason})
	}
	return m
}

// History returns what is remembered of that which was counted.
func (m *Metrics) History() *History { return m.history }

// Answer is a request that was answered.
type Answer struct {
	// Route is the configured pattern, never the path; "" for a request refused before it had one.
	Route, Method string
	Status        int
	// Duration is from the request's headers to the whole answer, or to the first byte of a stream.
	Duration time.Duration
	// At is when it ended.
	At time.Time
	// Panicked says that its handler did.
	Panicked bool
}

// Begin and End count the requests under way.
func (m *Metrics) Begin() { m.inFlight.Add(1) }

// End is called once for each Begin.
func (m *Metrics) End() { m.inFlight.Add(-1) }

// Answered counts an answer.
func (m *Metrics) Answered(a Answer) {
	m.answers.of(&a).Observe(a.Duration.Seconds())
	m.history.answered(&a)
}

// Limited counts what one policy decided about a request, "allowed" or "refused" for instance.
func (m *Metrics) Limited(policy, outcome string) { m.decisions.get(pair{policy, outcome}).Inc() }

// TimedOut counts a request whose time was up in a phase of its work.
func (m *Metrics) TimedOut(route, phase string) { m.timeouts.get(pair{route, phase}).Inc() }

// TokenAccepted counts a request that was let in with a token.
func (m *Metrics) TokenAccepted() { m.accepted.Inc() }

// TokenRefused counts a token that was refused.
func (m *Metrics) TokenRefused(reason string, at time.Time) {
	m.refusals.get(pair{reason}).Inc()
	m.history.count(tokensRefused, at, 1)
}

// UpstreamAnswered counts an answer of the upstream, "stable" or "candidate", by the time to its first byte.
func (m *Metrics) UpstreamAnswered(version string, firstByte time.Duration) {
	m.upstream.get(pair{version}).Observe(firstByte.Seconds())
}

// UpstreamFailed counts a request that the upstream did not answer, or not to the end.
func (m *Metrics) UpstreamFailed(version, reason string) { m.broke.get(pair{version, reason}).Inc() }

// RolledBack counts a rollout that was rolled back.
func (m *Metrics) RolledBack() {
	m.rolledBack.Inc()
	m.history.count(rolledBack, m.cfg.Now(), 1)
}

// Held counts a rollout that was held.
func (m *Metrics) Held() {
	m.held.Inc()
	m.history.count(held, m.cfg.Now(), 1)
}

// Lost counts what could not be delivered: a kind ("span", "event", "alert"), n of them, and why.
func (m *Metrics) Lost(kind, cause string, n int) {
	m.lost.get(pair{kind, cause}).Add(float64(n))
	m.history.count(lost, m.cfg.Now(), uint32(n))
}

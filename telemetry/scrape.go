package telemetry

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Sources are what is read when somebody asks. Each answers from memory and at once: a scrape touches neither
// a database nor the network. The metrics of those that are nil are left out.
type Sources struct {
	// Health returns what /health and /health/ready would answer now, 200 or 503; 0 when that is not known yet.
	Health func() (health, ready int)
	// Pool returns how the database connections are used.
	Pool func() Pool

	Checks         Reader // by check: 1 pass, 0.5 warn, 0 fail
	Degraded       Reader // by mode: 0 or 1
	CacheRequests  Reader // by cache and result: totals
	JWKSAge        Reader // by issuer: seconds
	BreakerOpen    Reader // by version: 0 or 1
	RolloutWeight  Reader // by version: a share, 0 to 1
	RolloutPhase   Reader // by phase: 0 or 1
	CertificateEnd Reader // seconds since 1970
	WebhookSilence Reader // seconds
	DiskFree       Reader // a share, 0 to 1
	AlertsFiring   Reader // by alert and severity: 0 or 1
}

// Reader calls set for each value that it has, with its labels in the metric's order.
type Reader func(set func(value float64, labels ...string))

// Pool is how the database connections are used.
type Pool struct {
	Used, Idle, Max int
	// Pending calls wait for a connection; negative when nobody knows.
	Pending int
	// Waits is how many connections were asked for, or waited for where that alone is known, and WaitTime how
	// long that took in all.
	Waits    uint64
	WaitTime time.Duration
}

// Run samples the gauges once a second for the history, until ctx ends. It returns nil.
func (m *Metrics) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		m.sample()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Metrics) sample() {
	var seen [gauges]int64
	seen[inFlight] = m.inFlight.Load()
	if m.cfg.Sources.Health != nil {
		health, _ := m.cfg.Sources.Health()
		seen[healthStatus] = int64(health)
	}
	if m.cfg.Sources.Pool != nil {
		pool := m.cfg.Sources.Pool()
		seen[poolUsed], seen[poolMax] = int64(pool.Used), int64(pool.Max)
	}
	m.history.gauge(m.cfg.Now(), &seen)
}

// Handler answers scrapes: as text, as OpenMetrics, or in Prometheus's protobuf form, which alone has the native
// histograms. It is for a private port.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, CoalesceGather: true, ErrorHandling: promhttp.ContinueOnError,
		ErrorLog: slog.NewLogLogger(m.cfg.Logger.Handler(), slog.LevelError),
	})
}

// scrape is the prometheus.Collector of a metric that is read.
type scrape struct {
	metric Metric
	desc   *prometheus.Desc
	read   Reader
}

// scrapes registers what the sources have.
func (m *Metrics) scrapes() {
	s := &m.cfg.Sources
	for metric, read := range map[*Metric]Reader{
		&activeRequests:   func(set func(float64, ...string)) { set(float64(m.inFlight.Load())) },
		&buildInfo:        func(set func(float64, ...string)) { set(1, m.cfg.Version, runtime.Version()) },
		&healthHTTPStatus: s.health(), &healthCheckStatus: s.Checks, &degradedModes: s.Degraded,
		&poolConnections: s.pool(func(p Pool, set func(float64, ...string)) {
			set(float64(p.Used), "used")
			set(float64(p.Idle), "idle")
		}),
		&poolLimit: s.pool(func(p Pool, set func(float64, ...string)) { set(float64(p.Max)) }),
		&poolPending: s.pool(func(p Pool, set func(float64, ...string)) {
			if p.Pending >= 0 {
				set(float64(p.Pending))
			}
		}),
		&cacheRequests: s.CacheRequests, &jwksAge: s.JWKSAge, &upstreamBreaker: s.BreakerOpen,
		&rolloutWeight: s.RolloutWeight, &rolloutPhase: s.RolloutPhase, &certificateEnd: s.CertificateEnd,
		&webhookSilence: s.WebhookSilence, &diskFree: s.DiskFree, &alertsFiring: s.AlertsFiring,
	} {
		if read != nil {
			m.registry.MustRegister(&scrape{*metric, prometheus.NewDesc(metric.Name, metric.Help, metric.Labels, nil), read})
		}
	}
	if s.Pool != nil {
		m.registry.MustRegister(poolWaits{s.Pool, prometheus.NewDesc(poolWait.Name, poolWait.Help, nil, nil)})
	}
}

func (s *Sources) health() Reader {
	if s.Health == nil {
		return nil
	}
	return func(set func(float64, ...string)) {
		health, ready := s.Health()
		for endpoint, status := range map[string]int{"health": health, "ready": ready} {
			if status != 0 {
				set(float64(status), endpoint)
			}
		}
	}
}

// pool reads a part of what Pool says.
func (s *Sources) pool(part func(p Pool, set func(float64, ...string))) Reader {
	if s.Pool == nil {
		return nil
	}
	return func(set func(float64, ...string)) { part(s.Pool(), set) }
}

// Describe implements prometheus.Collector.
func (s *scrape) Describe(out chan<- *prometheus.Desc) { out <- s.desc }

// Collect implements prometheus.Collector. What is above the limit is left out: no source is a stranger's.
func (s *scrape) Collect(out chan<- prometheus.Metric) {
	kind := prometheus.GaugeValue
	if s.metric.Type == "counter" {
		kind = prometheus.CounterValue
	}
	n := 0
	s.read(func(value float64, labels ...string) {
		if n++; n <= s.metric.Limit {
			out <- prometheus.MustNewConstMetric(s.desc, kind, value, labels...)
		}
	})
}

// poolWaits is the prometheus.Collector of how long calls wait for a connection, as a sum and a count.
type poolWaits struct {
	pool func() Pool
	desc *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (w poolWaits) Describe(out chan<- *prometheus.Desc) { out <- w.desc }

// Collect implements prometheus.Collector.
func (w poolWaits) Collect(out chan<- prometheus.Metric) {
	p := w.pool()
	out <- prometheus.MustNewConstSummary(w.desc, p.Waits, p.WaitTime.Seconds(), nil)
}

package server

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/rollout"
	"github.com/gantryhq/gantry/telemetry"
	"github.com/gantryhq/gantry/users/postgres"
	"github.com/gantryhq/gantry/users/sqlite"
)

// meters turn what the stages decided into numbers.
type meters struct {
	*telemetry.Metrics
	started time.Time
	// knownTokens needed no verification, newTokens did.
	knownTokens, newTokens atomic.Uint64
	limitedRoutes          routeCounts
}

func (s *Server) openMeters(context.Context) error {
	s.meters = &meters{started: time.Now()}
	s.meters.Metrics = telemetry.NewMetrics(telemetry.MetricsConfig{
		Version: s.cfg.Version, Logger: s.log, Reasons: refusalReasons(),
		Policies: []string{ratelimit.PolicyUser, ratelimit.PolicyAddress, ratelimit.PolicyRoute, ratelimit.PolicyAnonymous, ratelimit.PolicyGlobal},
		Sources: telemetry.Sources{
			Health: s.healthStatus, Pool: s.poolOf(), Checks: s.readChecks, Degraded: s.readDegraded,
			CacheRequests: s.readCaches, JWKSAge: s.readKeyAges, BreakerOpen: s.readBreaker,
			CertificateEnd: single(s.certificateEnd), WebhookSilence: single(s.webhookSilence), DiskFree: single(s.freeShare), AlertsFiring: s.readFiring,
			RolloutWeight: s.readWeight, RolloutPhase: s.readPhase,
		},
	})
	s.work = append(s.work, s.meters.Run)
	return nil
}

func refusalReasons() (names []string) {
	for r := identity.Accepted + 1; r.String() != "unknown"; r++ {
		names = append(names, r.String())
	}
	return names
}

// underWay counts the requests that are in next.
func (m *meters) underWay(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Begin()
		defer m.End()
		next(w, r)
	})
}

// answered is guard.TraceConfig.Done.
func (m *meters) answered(s guard.Summary) {
	a := telemetry.Answer{
		Route: routeLabel(&s), Method: s.Method, Status: s.Status,
		Duration: s.Duration, At: s.Start.Add(s.Duration), Panicked: s.Decision == "panic",
	}
	if s.Stream {
		a.Duration = s.FirstByte
	}
	m.Answered(a)
	if a.Status == http.StatusTooManyRequests {
		m.limitedRoutes.count(a.Route, a.At)
	}
	if s.Expired || s.Status == http.StatusGatewayTimeout {
		m.TimedOut(a.Route, s.Phase.String())
	}
}

// routeLabel is the path of the pattern that a request matched, "" for one that was refused before.
func routeLabel(s *guard.Summary) string {
	switch {
	case s.Route == nil:
		return ""
	case s.Route.Index < 0 && strings.HasPrefix(s.Path, usersPath):
		return usersPath // most of the built-in routes have no entry of their own
	}
	return s.Route.Pattern[strings.IndexByte(s.Route.Pattern, ' ')+1:]
}

// identified counts what became of a token.
func (m *meters) identified(r *http.Request, o identity.Outcome) {
	switch {
	case o.Reason != identity.Accepted:
		m.TokenRefused(o.Reason.String(), arrived(r))
	case o.Result == identity.Passed:
		m.TokenAccepted()
		if o.Cached {
			m.knownTokens.Add(1)
		} else {
			m.newTokens.Add(1)
		}
	}
}

// limited counts a decision by the policies that made it: all that admitted the request, or those that did not.
func (m *meters) limited(d *ratelimit.Decision) {
	outcome, counted := outcomeOf(d), false
	for _, q := range d.Quotas() {
		if d.Allowed || q.Violated {
			m.Limited(q.Policy, outcome)
			counted = true
		}
	}
	if !counted {
		m.Limited("store", outcome)
	}
}

// outcomeOf names a decision.
func outcomeOf(d *ratelimit.Decision) string {
	switch {
	case d.Mode == ratelimit.Open || d.Mode == ratelimit.Closed:
		return d.Mode.String()
	case d.Allowed:
		return "allowed"
	case d.Full:
		return "full"
	}
	return "refused"
}

// forwarded counts what became of a forwarded request.
func (m *meters) forwarded(o proxy.Outcome) {
	version := markOf(o).Version().String() // stable when there is only one
	if o.Reason != "" {
		m.UpstreamFailed(version, string(o.Reason))
		return
	}
	m.UpstreamAnswered(version, o.FirstByte)
}

func (s *Server) healthStatus() (health, ready int) {
	return statusOf(s.health.HealthReport()), statusOf(s.health.ReadyReport())
}

// statusOf is what a report is answered with; 0 as long as a check has not been made for the first time, so that
// the start of a process is no outage.
func statusOf(r health.Report) int {
	for _, f := range r.Findings {
		if f.Since.IsZero() {
			return 0
		}
	}
	if r.Status == health.Fail {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

// poolOf returns how to read the store's connections.
func (s *Server) poolOf() func() telemetry.Pool {
	switch store := s.store.(type) {
	case *postgres.Store:
		return func() telemetry.Pool {
			st := store.Stats()
			return telemetry.Pool{
				Used: st.InUse, Idle: st.Idle, Max: st.Max, Pending: st.Waiting, Waits: uint64(st.Acquired), WaitTime: st.AcquireTime,
			}
		}
	case *sqlite.Store:
		return func() telemetry.Pool {
			st := store.Stats()
			return telemetry.Pool{
				Used: st.InUse, Idle: st.Idle, Max: st.MaxOpenConnections, Pending: -1, Waits: uint64(st.WaitCount), WaitTime: st.WaitDuration,
			}
		}
	}
	return nil
}

func (s *Server) readChecks(set func(float64, ...string)) {
	for _, f := range s.health.HealthReport().Findings {
		set(map[health.Status]float64{health.Pass: 1, health.Warn: 0.5, health.Fail: 0}[f.Status], f.Name)
	}
}

// readDegraded says in which ways the door works, but not as it should.
func (s *Server) readDegraded(set func(float64, ...string)) {
	mode := s.policy.Load().limiter.Status().Mode
	stale, missing := s.keysTroubled()
	for name, on := range map[string]bool{
		"limits-local": mode == ratelimit.Local, "limits-open": mode == ratelimit.Open, "limits-closed": mode == ratelimit.Closed,
		"cache-away": s.failing("cache"), "keys-stale": stale, "keys-missing": missing,
		"standing-stale": s.standing.Age() > standingMaxAge,
	} {
		set(number(on), name)
	}
}

func number(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// failing says whether a check fails, whatever that means to /health.
func (s *Server) failing(check string) bool {
	for _, f := range s.health.HealthReport().Findings {
		if f.Name == check {
			return f.Stale || f.Last.Status == health.Fail
		}
	}
	return false
}

func (s *Server) keysTroubled() (stale, missing bool) {
	for _, st := range s.verifier.Status() {
		stale, missing = stale || st.Stale, missing || st.Keys == 0
	}
	return stale, missing
}

func (s *Server) readCaches(set func(float64, ...string)) {
	st := s.reads.Stats()
	set(float64(st.Hits), "users", "hit")
	set(float64(st.Stale), "users", "stale")
	set(float64(st.Misses), "users", "miss")
	set(float64(s.meters.knownTokens.Load()), "tokens", "hit")
	set(float64(s.meters.newTokens.Load()), "tokens", "miss")
}

func (s *Server) readKeyAges(set func(float64, ...string)) {
	s.keyAges(func(issuer string, age time.Duration) { set(age.Seconds(), issuer) })
}

// keyAges visits the issuers whose keys are fetched. Those of one that never answered are as old as the process.
func (s *Server) keyAges(visit func(issuer string, age time.Duration)) {
	for _, st := range s.verifier.Status() {
		switch {
		case st.Static:
		case st.Fetched.IsZero():
			visit(st.Issuer, time.Since(s.meters.started))
		default:
			visit(st.Issuer, st.Age)
		}
	}
}

func (s *Server) readBreaker(set func(float64, ...string)) {
	if s.proxy != nil {
		s.traffic.each(func(v rollout.Version, up *proxy.Upstream) { set(number(up.BreakerOpen()), v.String()) })
	}
}

// single reads a metric without labels.
func single(read func() (float64, bool)) telemetry.Reader {
	return func(set func(float64, ...string)) {
		if v, ok := read(); ok {
			set(v)
		}
	}
}

// certificateEnd is in seconds since 1970.
func (s *Server) certificateEnd() (float64, bool) {
	cert := s.policy.Load().cert
	if cert == nil {
		return 0, false
	}
	return float64(cert.Leaf.NotAfter.Unix()), true
}

// webhookSilence is in seconds.
func (s *Server) webhookSilence() (float64, bool) {
	if s.policy.Load().signedIn == nil {
		return 0, false
	}
	return s.silence.Missed().Seconds(), true
}

func (s *Server) freeShare() (float64, bool) {
	share := s.diskFree.Load()
	if share == nil {
		return 0, false
	}
	return *share, true
}

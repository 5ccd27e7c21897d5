package server

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/internal/dashboard"
	"github.com/gantryhq/gantry/telemetry"
)

// openDashboard makes the page of the admin port, and the lock on all of it.
func (s *Server) openDashboard(context.Context) (err error) {
	s.dashboard, err = dashboard.New(bridge{s}, bridge{s}, dashboard.Config{
		Token:  func() dashboard.Secret { return s.adminToken() },
		Keys:   s.sessionKeys,
		Secure: s.speaksTLS,
		Audits: filepath.Join(s.cfg.DataDir, "audits"),
		Logger: s.log,
	})
	s.work = append(s.work, s.dashboard.Run)
	if s.fleet != nil {
		s.launch = &launchWatch{fleet: s.fleet, asked: make(chan struct{}, 1)}
		s.work = append(s.work, s.launch.Run)
	}
	return err
}

// sessionKeys change with the admin token too, so that a new one ends all sessions.
func (s *Server) sessionKeys() [][]byte {
	cfg := s.policy.Load().cfg
	return derive(cfg.SecretKeys, "gantry dashboard "+cfg.AdminToken.Reveal())
}

// speaksTLS says whether the browser does, to the admin port or to a proxy that is trusted to tell.
func (s *Server) speaksTLS(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	trusted := func(p netip.Prefix) bool { return p.Contains(peer.Addr().Unmap()) }
	return err == nil && r.Header.Get("X-Forwarded-Proto") == "https" && slices.ContainsFunc(s.policy.Load().cfg.TrustedProxies, trusted)
}

// bridge is what the page shows and does, by the features that know.
type bridge struct{ *Server }

var (
	_ dashboard.Source  = bridge{}
	_ dashboard.Actions = bridge{}
)

// View implements dashboard.Source.
func (b bridge) View(now time.Time) dashboard.View {
	history := b.meters.History()
	alerts := b.alerts.Alerts()
	minute := history.Over(time.Minute, now)
	if b.meters.started.After(minute.From) {
		minute.From = b.meters.started
	}
	recent := history.Over(5*time.Second, now)
	return dashboard.View{
		At: now, Started: b.meters.started, Instance: b.instance(), Environment: string(b.cfg.Environment), Version: b.cfg.Version,
		Draining: b.draining.Load(),
		Limits:   limitsOf(alerts), Alerts: alertsOf(alerts),
		Now: pointOf(&minute), InFlight: recent.InFlight,
		Short: b.historyOf(history.Series(15*time.Minute, now), now), Long: b.historyOf(history.Series(24*time.Hour, now), now),
		Health: healthOf(b.health.HealthReport(), now), Pool: b.poolNow(), Degraded: b.degraded(), Keys: b.keysNow(),
		Refusals: b.lastRefusals(), Routes: b.meters.limitedRoutes.top(now), Rollout: b.rolloutNow(now),
		Config: b.setup(),
	}
}

// instance is where the admin port is, for people who watch several.
func (b bridge) instance() string {
	host, err := os.Hostname()
	if err != nil {
		return b.AdminAddr()
	}
	_, port, _ := net.SplitHostPort(b.AdminAddr())
	return net.JoinHostPort(host, port)
}

// leastPart is how much of the last slot must be over to tell a rate by.
const leastPart = 2 * time.Second

// historyOf leaves out what nobody could see, before the door began, and a last slot that has only just begun.
func (b bridge) historyOf(samples []telemetry.Sample, now time.Time) dashboard.History {
	last := len(samples) - 1
	h := dashboard.History{From: samples[0].From, Step: samples[0].To.Sub(samples[0].From).Seconds()}
	for i := range samples {
		s := &samples[i]
		if i == last {
			if s.To = now; s.To.Sub(s.From) < leastPart {
				break
			}
		}
		p := pointOf(s)
		if s.To.Before(b.meters.started) {
			p.Seconds = 0
		}
		h.Points = append(h.Points, p)
	}
	return h
}

func pointOf(s *telemetry.Sample) dashboard.Point {
	return dashboard.Point{
		Seconds: s.To.Sub(s.From).Seconds(), Requests: s.Requests, Errors: s.Errors, RateLimited: s.RateLimited, Timeouts: s.Timeouts,
		Refusals: s.TokenRefusals, P50: s.Latency.Quantile(0.5).Seconds(), P95: s.Latency.Quantile(0.95).Seconds(), P99: s.Latency.Quantile(0.99).Seconds(),
		Health: s.Health, PoolUsed: s.PoolUsed, PoolMax: s.PoolMax,
	}
}

func healthOf(r health.Report, now time.Time) dashboard.Health {
	h := dashboard.Health{Status: statusOf(r)}
	for _, f := range r.Findings {
		c := dashboard.Check{Name: f.Name}
		if f.Streak > 0 {
			c.Status, c.Reason = f.Status.String(), causeOf(f)
			c.Age, c.Took = now.Sub(f.Last.Time).Seconds(), f.Last.Latency.Seconds()
			c.Observed = observed(f)
		}
		h.Checks = append(h.Checks, c)
	}
	return h
}

// causeOf is why a check does not pass, with the cause.
func causeOf(f health.Finding) string {
	switch {
	case f.Stale:
		return "the newest result is too old to count"
	case f.Last.Err != nil:
		return f.Last.Err.Error()
	case f.Status != f.Last.Status:
		return "works again, for too short a time to count"
	}
	return f.Last.Reason
}

// observed is what a check measured, or how long it took.
func observed(f health.Finding) string {
	switch seen := f.Last.Observed; seen.Unit {
	case "":
		return f.Last.Latency.Round(time.Microsecond).String()
	case "s":
		return f.Measurement + " " + time.Duration(seen.Value*float64(time.Second)).Round(time.Second).String()
	case "B":
		return fmt.Sprintf("%s %.1f GiB", f.Measurement, seen.Value/(1<<30))
	default:
		return fmt.Sprintf("%s %.4g %s", f.Measurement, seen.Value, seen.Unit)
	}
}

func (b bridge) poolNow() *dashboard.Pool {
	read := b.poolOf()
	if read == nil {
		return nil
	}
	p := read()
	return &dashboard.Pool{Used: p.Used, Idle: p.Idle, Max: p.Max, Waiting: max(0, p.Pending)}
}

// degradedTexts say what a mode means to those who run the door. What a health check already says is left out.
var degradedTexts = map[string]string{
	"limits-open":   "the limits' store is away, and nothing is limited (RATE_LIMIT_ON_STORE_FAILURE=allow)",
	"limits-closed": "the limits' store is away, and requests are refused (RATE_LIMIT_ON_STORE_FAILURE=refuse)",
	"limits-local":  "the limits' store is away: each instance counts its own part of the limits",
}

func (b bridge) degraded() (out []dashboard.Degraded) {
	since := b.policy.Load().limiter.Status().Since
	b.readDegraded(func(on float64, labels ...string) {
		if text, told := degradedTexts[labels[0]]; told && on == 1 {
			out = append(out, dashboard.Degraded{Mode: labels[0], Text: text, Since: since})
		}
	})
	return out
}

func (b bridge) keysNow() (out []dashboard.Keys) {
	for _, st := range b.verifier.Status() {
		out = append(out, dashboard.Keys{Issuer: st.Issuer, Count: st.Keys, Age: st.Age.Seconds(), Stale: st.Stale, Error: st.LastError})
	}
	return out
}

func (b bridge) setup() dashboard.Setup {
	p := b.policy.Load()
	c := dashboard.Setup{Hash: p.cfg.Loaded.Hash, LoadedAt: p.loaded, Waiting: p.waiting}
	if why := b.notReloaded.Load(); why != nil {
		c.Refused = *why
	}
	for _, s := range p.cfg.Loaded.Settings {
		c.Settings = append(c.Settings, dashboard.Setting(s))
	}
	return c
}

// limits are those of the rules in force, or the document's.
func limitsOf(alerts []alert.Alert) dashboard.Limits {
	l := dashboard.Limits{ErrorRate: 0.01, P95: slow.Seconds(), Pool: 0.8}
	lines := map[alert.Signal]*float64{alert.ErrorRate: &l.ErrorRate, alert.P95Latency: &l.P95, alert.PoolUtilization: &l.Pool}
	for _, a := range alerts {
		if line := lines[a.Rule.Condition.Signal]; line != nil && a.Rule.Condition.Budget == 0 && a.Rule.Condition.Operator == ">" {
			*line = a.Rule.Condition.Limit
		}
	}
	return l
}

func alertsOf(all []alert.Alert) []dashboard.Alert {
	out := make([]dashboard.Alert, len(all))
	for i, a := range all {
		out[i] = dashboard.Alert{
			Name: a.Rule.Name, Condition: a.Rule.Condition.Text, Signal: string(a.Rule.Condition.Signal), Severity: string(a.Rule.Severity),
			State: string(a.State), Since: a.Since, SilencedUntil: a.SilencedUntil, AcknowledgedBy: a.AcknowledgedBy,
			Runbook: cmp.Or(a.Rule.Runbook, alert.RunbookURL+"#"+alert.Anchor(a.Rule.Name)),
		}
		if !a.NoData {
			out[i].Reading = a.Rule.Condition.Signal.Value(a.Reading.Value)
		}
	}
	return out
}

// Silence implements dashboard.Actions.
func (b bridge) Silence(_ context.Context, name string, d time.Duration) error {
	if d == 0 {
		return b.alerts.Unsilence(name)
	}
	return b.alerts.Silence(name, d, "dashboard")
}

// Acknowledge implements dashboard.Actions.
func (b bridge) Acknowledge(_ context.Context, name, by string) error {
	return b.alerts.Acknowledge(name, by)
}

const shownRefusals = 10

// lastRefusals are the newest requests that were not served as asked.
func (b bridge) lastRefusals() (out []dashboard.Refusal) {
	for _, r := range b.recorder.Last(shownRefusals, true) {
		refusal := dashboard.Refusal{
			At: r.Start, RequestID: r.ID, Status: r.Status, Reason: cmp.Or(r.Decision, "the handler's own answer"),
			Method: r.Method, Path: r.Path, Who: r.Caller,
		}
		if refusal.Who == "" && r.Client.IsValid() {
			refusal.Who = r.Client.String()
		}
		out = append(out, refusal)
	}
	return out
}

// routeCounts counts answers by route over the last quarter of an hour, by the minute. Routes are those of the
// configuration, so there are few.
type routeCounts struct {
	mu     sync.Mutex
	routes map[string]*[countedMinutes]minute
}

const (
	countedMinutes = 15
	topRoutes      = 8
)

type minute struct {
	number int64 // since 1970
	n      uint64
}

func (c *routeCounts) count(route string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	minutes := c.routes[route]
	if minutes == nil {
		minutes = new([countedMinutes]minute)
		if c.routes == nil {
			c.routes = map[string]*[countedMinutes]minute{}
		}
		c.routes[route] = minutes
	}
	number := at.Unix() / 60
	m := &minutes[number%countedMinutes]
	if m.number != number {
		*m = minute{number: number}
	}
	m.n++
}

// top are the routes with the highest counts.
func (c *routeCounts) top(now time.Time) []dashboard.Route {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []dashboard.Route
	for name, minutes := range c.routes {
		r := dashboard.Route{Name: name}
		for _, m := range minutes {
			if now.Unix()/60-m.number < countedMinutes {
				r.Refused += m.n
			}
		}
		if r.Refused > 0 {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(x, y dashboard.Route) int {
		return cmp.Or(cmp.Compare(y.Refused, x.Refused), strings.Compare(x.Name, y.Name))
	})
	return all[:min(topRoutes, len(all))]
}

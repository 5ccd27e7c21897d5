package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/dashboard"
	"github.com/gantryhq/gantry/rollout"
)

// knock sends a request to the door from an address.
func knock(s *Server, from, path string, h http.Header) int {
	r := httptest.NewRequest("GET", path, nil)
	r.Host, r.RemoteAddr = "localhost", from+":1"
	for name, values := range h {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	s.main.Handler.ServeHTTP(w, r)
	return w.Code
}

func TestThePageShowsWhatTheDoorCounted(t *testing.T) {
	s := open(t, quiet, "RATE_LIMIT_ANONYMOUS=3")
	look(t, s)
	for range 5 {
		knock(s, "192.0.2.1", "/v1/users/me", nil)
	}
	knock(s, "192.0.2.2", "/v1/users/me", http.Header{"Authorization": {"Bearer nonsense"}})
	s.alerts.Evaluate(time.Now())
	v := bridge{s}.View(time.Now())
	if v.Now.Requests != 6 || v.Now.RateLimited != 2 || v.Now.Refusals != 1 || v.Now.P95 == 0 {
		t.Errorf("the last minute is %+v", v.Now)
	}
	if want := []dashboard.Route{{Name: "/v1/users/me", Refused: 2}}; !cmp.Equal(v.Routes, want) {
		t.Errorf("routes = %v, want %v", v.Routes, want)
	}
	if last := v.Refusals[0]; last.Status != 401 || last.Reason != "token:malformed" || last.Who != "192.0.2.2" || last.Path != "/v1/users/me" || last.RequestID == "" {
		t.Errorf("the last refusal is %+v", last)
	}
	if v.Health.Status != 200 || v.Health.Checks[0].Name != "database" || v.Health.Checks[0].Status != "pass" || v.Health.Checks[0].Observed == "" {
		t.Errorf("health = %+v", v.Health)
	}
	if len(v.Alerts) < 4 || v.Alerts[1].Name != "High Error Rate" || v.Alerts[1].Reading != "0.00%" || v.Alerts[8].Reading != "" {
		t.Errorf("alerts = %+v", v.Alerts[:9])
	}
	if want := (dashboard.Limits{ErrorRate: .01, P95: .5, Pool: .8}); v.Limits != want {
		t.Errorf("limits = %v, want %v", v.Limits, want)
	}
	if len(v.Short.Points) < 179 || len(v.Long.Points) < 287 || v.Short.Points[0].Seconds != 0 {
		t.Errorf("histories of %d and %d points, and the first, before the start, is %v", len(v.Short.Points), len(v.Long.Points), v.Short.Points[0])
	}
	if len(v.Keys) != 1 || v.Keys[0].Count != 1 || v.Pool == nil || v.Pool.Max == 0 || v.Config.Hash == "" || v.Rollout != nil {
		t.Errorf("keys %v, pool %v, configuration %v, rollout %v", v.Keys, v.Pool, v.Config, v.Rollout)
	}
}

func TestLinesFollowTheRulesInForce(t *testing.T) {
	dir := t.TempDir()
	rules := "alerts:\n  - name: High Latency\n    condition: p95_latency > 250ms\n    severity: medium\n    notify: slack\n"
	if err := os.WriteFile(filepath.Join(dir, "gantry.yaml"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	v := bridge{openIn(t, dir, quiet)}.View(time.Now())
	if v.Limits.P95 != .25 {
		t.Errorf("the line is at %v s, want 0.25", v.Limits.P95)
	}
}

func TestRoutesAreCountedForAQuarterOfAnHour(t *testing.T) {
	var c routeCounts
	now := time.Now()
	c.count("/gone", now.Add(-time.Hour))
	for i := 29; i >= 0; i-- {
		c.count("/old", now.Add(-time.Duration(i)*time.Minute))
	}
	c.count("/new", now)
	want := []dashboard.Route{{Name: "/old", Refused: countedMinutes}, {Name: "/new", Refused: 1}}
	if got := c.top(now); !cmp.Equal(got, want) {
		t.Errorf("top = %v, want %v", got, want)
	}
	for i := range 2 * topRoutes {
		c.count(fmt.Sprint("/", i), now)
	}
	if got := c.top(now); len(got) != topRoutes {
		t.Errorf("%d routes are told, want %d", len(got), topRoutes)
	}
}

func TestASessionEndsWithTheAdminToken(t *testing.T) {
	s := open(t, quiet, "ADMIN_TOKEN=9f1c47d0b2a86e35c1d90b7742aee8f1cdaa")
	before := s.sessionKeys()
	cfg := s.policy.Load().cfg
	cfg.AdminToken = config.NewSecret("another")
	if _, err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(before, s.sessionKeys()) {
		t.Error("the keys of sessions are the same under another token")
	}
}

func TestOnlyATrustedProxyTellsOfTLS(t *testing.T) {
	s := open(t, quiet, "TRUSTED_PROXIES=192.0.2.0/24")
	for from, want := range map[string]bool{"192.0.2.7:1": true, "198.51.100.7:1": false} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = from
		r.Header.Set("X-Forwarded-Proto", "https")
		if got := s.speaksTLS(r); got != want {
			t.Errorf("a request of %s is taken for TLS: %v", from, got)
		}
	}
}

// The curve is read out of the journal, so that it has what was judged before anybody looked.
func TestTheEvidenceCurveComesOutOfTheJournal(t *testing.T) {
	p := newPair(t, quiet, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "candidate") })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.fleet.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if _, err := p.beginRollout(ctx, RolloutOrder{To: p.candidate, Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	w := &launchWatch{fleet: p.fleet}
	until := func(what string, ok func(*launchSeen) bool) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond) // the fleet follows the journal, and judges, at its own pace
		defer tick.Stop()
		for w.look(ctx); !ok(w.seen.Load()); w.look(ctx) {
			if w.seen.Load().Now.Sub(p.meters.started) > 30*time.Second {
				t.Fatalf("%s did not come: %+v", what, w.seen.Load())
			}
			<-tick.C
		}
	}
	until("the launch", func(s *launchSeen) bool { return s.Launch.Phase == rollout.Running })
	r := rolloutOf(w.seen.Load(), time.Now())
	want := []dashboard.Verb{dashboard.Pause, dashboard.Promote, dashboard.Abort}
	if r.Weight != .1 || r.To != w.seen.Load().Launch.CandidateURL || !cmp.Equal(r.Verbs, want) || len(r.Versions) != 2 || !cmp.Equal(r.Steps, []float64{.1, .5, 1}) {
		t.Errorf("the launch is %+v", r)
	}
	until("a look of the judge", func(s *launchSeen) bool { return len(s.curve) > 0 })
	if _, err := p.fleet.Abort(ctx, "test", "enough"); err != nil {
		t.Fatal(err)
	}
	until("the end", func(s *launchSeen) bool { return s.Launch.Phase.Over() })
	if r := rolloutOf(w.seen.Load(), time.Now()); !r.Trouble || !cmp.Equal(r.Verbs, []dashboard.Verb{dashboard.Start}) {
		t.Errorf("after a roll back it is %+v", r)
	}
}

func TestALongCurveKeepsItsEnds(t *testing.T) {
	var all []dashboard.Proof
	for i := range 1000 {
		all = thinned(append(all, dashboard.Proof{Requests: uint64(i)}))
	}
	if n := len(all); n > curvePoints || all[n-1].Requests != 999 {
		t.Errorf("%d points up to %+v", n, all[n-1])
	}
}

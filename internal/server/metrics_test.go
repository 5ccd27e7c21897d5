package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/telemetry"
)

var quiet = slog.New(slog.DiscardHandler)

// scrape asks the admin port for the metrics, and returns the series by name and labels.
func scrape(t testing.TB, s *Server) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	s.admin.Handler.ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("/metrics = %d %s", w.Code, w.Body)
	}
	series := make(map[string]string)
	for line := range strings.Lines(w.Body.String()) {
		if name := strings.TrimSpace(line[:strings.LastIndexByte(line, ' ')+1]); !strings.HasPrefix(line, "#") {
			series[name] = strings.TrimSpace(line[len(name):])
		}
	}
	return series
}

// look makes every health check once.
func look(t testing.TB, s *Server) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.health.Run(ctx) }()
	for status := 0; status == 0; status, _ = s.healthStatus() {
		runtime.Gosched()
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestMetricsTellWhatTheFeaturesKnow(t *testing.T) {
	s := open(t, quiet)
	look(t, s)
	got := scrape(t, s)
	for series, want := range map[string]string{
		`gantry_health_http_status{endpoint="health"}`:            "200",
		`gantry_health_http_status{endpoint="ready"}`:             "503", // it does not serve yet
		`gantry_health_check_status{check="database"}`:            "1",
		`gantry_degraded{mode="limits-local"}`:                    "0",
		`db_client_connection_max`:                                "5", // SQLite's readers and its writer
		`gantry_cache_requests_total{cache="users",result="hit"}`: "0",
		`http_server_active_requests`:                             "0",
	} {
		if got[series] != want {
			t.Errorf("%s = %q, want %s", series, got[series], want)
		}
	}
	for _, absent := range []string{"gantry_certificate_not_after_timestamp_seconds", "gantry_webhook_silence_seconds", `gantry_upstream_breaker_open{version="stable"}`} {
		if v, found := got[absent]; found {
			t.Errorf("%s = %s, and there is no such thing here", absent, v)
		}
	}
	if got["gantry_disk_free_ratio"] == "" {
		t.Error("nobody knows how full the disk is")
	}
}

func TestDecisionsAreCountedByPolicy(t *testing.T) {
	user, global := ratelimit.Quota{Policy: "user"}, ratelimit.Quota{Policy: "global"}
	violated := global
	violated.Violated = true
	s := open(t, quiet)
	count := func(d ratelimit.Decision) { s.meters.limited(&d) }
	count(ratelimit.NewDecision(true, 0, user, global))
	count(ratelimit.NewDecision(false, time.Second, user, violated))
	count(ratelimit.Decision{Full: true})
	count(ratelimit.Decision{Allowed: true, Mode: ratelimit.Open})
	count(ratelimit.Decision{Mode: ratelimit.Closed})
	got := scrape(t, s)
	for labels, want := range map[string]string{
		`outcome="allowed",policy="user"`: "1", `outcome="allowed",policy="global"`: "1",
		`outcome="refused",policy="user"`: "0", `outcome="refused",policy="global"`: "1",
		`outcome="full",policy="store"`: "1", `outcome="open",policy="store"`: "1", `outcome="closed",policy="store"`: "1",
	} {
		if n := got["gantry_ratelimit_decisions_total{"+labels+"}"]; n != want {
			t.Errorf("%s = %q, want %s", labels, n, want)
		}
	}
}

// every signal that a rule may name.
var every = []alert.Signal{
	alert.HealthStatus, alert.ErrorRate, alert.P95Latency, alert.RateLimitHits, alert.Timeouts, alert.TokenRefusals, alert.PoolUtilization,
	alert.JWKSAge, alert.CertExpiry, alert.WebhookSilence, alert.DiskFree, alert.SlowRate, alert.RolloutTrouble, alert.TelemetryLost,
}

func TestNothingMeasuredIsNotZero(t *testing.T) {
	s := open(t, quiet)
	known := map[alert.Signal]bool{
		alert.RateLimitHits: true, alert.Timeouts: true, alert.TokenRefusals: true, alert.RolloutTrouble: true, alert.TelemetryLost: true,
	}
	for _, signal := range every {
		if r, ok := (signals{s}).Read(signal, time.Hour); ok != known[signal] || r.Value != 0 {
			t.Errorf("%s of a server that has done nothing = %v %v, want known: %v", signal, r.Value, ok, known[signal])
		}
	}
	if _, ok := (signals{s}).Read("weather", time.Hour); ok {
		t.Error("a signal that does not exist has a reading")
	}
}

func TestSignalsTellWhatHappened(t *testing.T) {
	cert, key, _ := testenv.Certificate(t, t.TempDir(), time.Now().Add(48*time.Hour))
	s := open(t, quiet, "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key,
		"CLERK_PUBLISHABLE_KEY=pk_test_"+base64.StdEncoding.EncodeToString([]byte("quiet-fox-1.clerk.accounts.dev$")), "CLERK_SECRET_KEY=sk_test_abcdef",
		"CLERK_WEBHOOK_SIGNING_SECRET=whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 24)))
	look(t, s)
	now := time.Now()
	for i := range 100 {
		a := telemetry.Answer{Method: "GET", Route: "/", Status: 200, Duration: 10 * time.Millisecond, At: now}
		switch {
		case i < 2:
			a.Status = 504
		case i < 5:
			a.Status = 429
		case i < 11:
			a.Duration = 2 * time.Second
		}
		s.meters.Answered(a)
	}
	s.meters.TokenRefused("expired", now)
	s.meters.Held()
	s.meters.Lost("span", "full", 7)
	s.silence.SignedIn()
	over, stop := context.WithCancel(t.Context())
	stop()
	if err := s.meters.Run(over); err != nil { // one look
		t.Error(err)
	}
	for signal, want := range map[alert.Signal][2]float64{
		alert.HealthStatus: {200, 503}, alert.ErrorRate: {0.02, 0.02}, alert.P95Latency: {1.9, 2.1}, alert.SlowRate: {0.06, 0.06},
		alert.RateLimitHits: {3, 3}, alert.Timeouts: {2, 2}, alert.TokenRefusals: {1, 1}, alert.PoolUtilization: {0, 1},
		alert.JWKSAge: {0, 60}, alert.CertExpiry: {47 * 3600, 48 * 3600}, alert.WebhookSilence: {0, 60}, alert.DiskFree: {0, 1},
		alert.RolloutTrouble: {1, 1}, alert.TelemetryLost: {7, 7},
	} {
		r, ok := (signals{s}).Read(signal, time.Minute)
		if !ok || r.Value < want[0] || r.Value > want[1] {
			t.Errorf("%s = %v %v, want %v to %v", signal, r.Value, ok, want[0], want[1])
		}
	}
	if r, _ := (signals{s}).Read(alert.ErrorRate, time.Minute); r.Count != 100 {
		t.Errorf("the error rate is made of %d requests, want 100", r.Count)
	}
}

// TestAMillionStrangersMakeNoSeries sends distinct paths, hosts, methods, users and tokens through the real pipeline.
func TestAMillionStrangersMakeNoSeries(t *testing.T) {
	n := 1_000_000
	if build, _ := debug.ReadBuildInfo(); testing.Short() || slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		n = 50_000
	}
	const plenty = "1000000/s"
	s := open(t, quiet, "ALLOWED_HOSTS=*", "RATE_LIMIT_ANONYMOUS="+plenty, "RATE_LIMIT_PER_USER="+plenty, "RATE_LIMIT_GLOBAL="+plenty)
	p := s.policy.Load()
	for i := range 20 {
		p.cfg.Routes = append(p.cfg.Routes, config.Route{Pattern: fmt.Sprintf("/open/%d/{id}", i), Auth: identity.None})
	}
	door, err := s.newDoor(p)
	if err != nil {
		t.Fatal(err)
	}
	strangers := func(from, to int) {
		for i := from; i < to; i++ {
			r := httptest.NewRequest("GET", fmt.Sprintf("/%s/%d/x%d", []string{"open", "closed", "v1/users"}[i%3], i%20, i), nil)
			r.Method, r.Host = fmt.Sprintf("M%d", i), fmt.Sprintf("h%d.example", i)
			if i%4 == 0 {
				r.Method = []string{"GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD"}[i/4%7]
			}
			r.Header["X-User-Id"] = []string{fmt.Sprintf("user_%d", i)}
			r.Header["Authorization"] = []string{fmt.Sprintf("Bearer a%d.b.c", i)}
			door.ServeHTTP(&nullWriter{h: make(http.Header)}, r)
		}
	}
	strangers(0, n/2)
	before, first := heap(), len(scrape(t, s))
	strangers(n/2, n)
	grown, series := heap()-before, len(scrape(t, s))
	t.Logf("%d requests: %d series, %d of them since half of the requests; memory %+d KiB", n, series, series-first, grown>>10)
	if series >= 2000 || series-first > 20 || grown > 4<<20 {
		t.Errorf("%d series, %d new ones, %d KiB more; want fewer than 2,000, hardly any, and 4 MiB", series, series-first, grown>>10)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

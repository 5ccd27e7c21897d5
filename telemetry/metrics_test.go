package telemetry

import (
	"bufio"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// full has something to say of every metric.
func full() *Metrics {
	one := func(labels ...string) Reader { return func(set func(float64, ...string)) { set(1, labels...) } }
	m := NewMetrics(MetricsConfig{
		Version: "v1.2.3", Policies: []string{"user"}, Reasons: []string{"expired"},
		Now: func() time.Time { return noon },
		Sources: Sources{
			Health: func() (int, int) { return 200, 503 },
			Pool:   func() Pool { return Pool{Used: 3, Idle: 1, Max: 10, Pending: 2, Waits: 7, WaitTime: time.Second} },
			Checks: one("disk"), Degraded: one("limits-local"), CacheRequests: one("users", "hit"), JWKSAge: one("https://issuer"),
			BreakerOpen: one("stable"), RolloutWeight: one("candidate"), RolloutPhase: one("canary"), CertificateEnd: one(),
			WebhookSilence: one(), DiskFree: one(), AlertsFiring: one("High Error Rate", "high"),
		},
	})
	m.Answered(*answer(noon, 200, 20*time.Millisecond))
	m.Limited("user", "allowed")
	m.TimedOut("/", "upstream")
	m.TokenAccepted()
	m.TokenRefused("expired", noon)
	m.UpstreamAnswered("stable", time.Millisecond)
	m.UpstreamFailed("stable", "connect-refused")
	m.RolledBack()
	m.Held()
	m.Lost("span", "full", 3)
	return m
}

// scrapeOf returns what the handler says, line by line without the comments.
func scrapeOf(t testing.TB, m *Metrics) (text string, series []string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape = %d %s", w.Code, w.Body)
	}
	text = w.Body.String()
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if !strings.HasPrefix(s.Text(), "#") {
			series = append(series, s.Text())
		}
	}
	return text, series
}

func TestEveryMetricIsInTheCatalogueAndNoOther(t *testing.T) {
	found, err := full().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	for _, f := range found {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		seen[f.GetName()] = fmt.Sprintf("%s %v %s", strings.ToLower(f.GetType().String()), labels, f.GetHelp())
	}
	for _, metric := range Catalogue() {
		labels := slices.Sorted(slices.Values(metric.Labels))
		if want := fmt.Sprintf("%s %v %s", metric.Type, labels, metric.Help); seen[metric.Name] != want {
			t.Errorf("%s is %q, the catalogue says %q", metric.Name, seen[metric.Name], want)
		}
		delete(seen, metric.Name)
	}
	for name := range seen {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not in the catalogue", name)
		}
	}
}

func TestPromtoolFindsNothingToSay(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here")
	}
	text, _ := scrapeOf(t, full())
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	// The one name it minds is OpenTelemetry's.
	const minds = `db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix`
	if out, _ := cmd.CombinedOutput(); strings.TrimSpace(string(out)) != minds {
		t.Errorf("promtool check metrics:\n%s", out)
	}
}

func TestNativeHistogramsComeOutAsProtobuf(t *testing.T) {
	m := full()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if kind := w.Header().Get("Content-Type"); w.Code != 200 || !strings.HasPrefix(kind, "application/vnd.google.protobuf") {
		t.Errorf("answer = %d %s, want protobuf", w.Code, kind)
	}
	found, _ := m.registry.Gather()
	for _, f := range found {
		if f.GetName() != requestDuration.Name {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if h.GetSchema() != 3 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("schema %d with %d spans; want 3 (a factor below 1.1) and one", h.GetSchema(), len(h.GetPositiveSpan()))
		}
	}
}

func TestOpenMetricsIsSpoken(t *testing.T) {
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	w := httptest.NewRecorder()
	full().Handler().ServeHTTP(w, r)
	if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("answer is %s, ends %q", kind, w.Body.String()[max(0, w.Body.Len()-20):])
	}
}

func TestWhatIsNotThereHasNoMetric(t *testing.T) {
	text, _ := scrapeOf(t, NewMetrics(MetricsConfig{}))
	for _, metric := range []Metric{poolConnections, poolWait, certificateEnd, rolloutWeight, jwksAge, healthHTTPStatus} {
		if strings.Contains(text, metric.Name) {
			t.Errorf("%s is told, and nobody knows it", metric.Name)
		}
	}
}

// TestNoAttackMakesTwoThousandSeries fills every metric to its limit and beyond.
func TestNoAttackMakesTwoThousandSeries(t *testing.T) {
	everything := func(set func(float64, ...string)) {
		for i := range 1000 {
			set(1, fmt.Sprint(i))
		}
	}
	pairs := func(set func(float64, ...string)) {
		for i := range 1000 {
			set(1, fmt.Sprint(i), fmt.Sprint(i))
		}
	}
	single := func(set func(float64, ...string)) { set(1) }
	m := NewMetrics(MetricsConfig{Sources: Sources{
		Health: func() (int, int) { return 200, 200 }, Pool: func() Pool { return Pool{Max: 1} },
		Checks: everything, Degraded: everything, CacheRequests: pairs, JWKSAge: everything, BreakerOpen: everything,
		RolloutWeight: everything, RolloutPhase: everything, CertificateEnd: single, WebhookSilence: single, DiskFree: single,
		AlertsFiring: pairs,
	}})
	attack := func(n int) {
		for i := range n {
			x := fmt.Sprint(i)
			m.Answered(Answer{Route: "/" + x, Method: x, Status: i % 1000, Duration: time.Duration(i) * time.Microsecond, At: noon})
			m.Answered(Answer{Route: "/", Method: "GET", Status: i, Duration: time.Second, At: noon})
			m.Limited(x, x)
			m.TimedOut(x, x)
			m.TokenRefused(x, noon)
			m.UpstreamAnswered(x, time.Second)
			m.UpstreamFailed(x, x)
			m.Lost(x, x, 1)
		}
	}
	attack(2000)
	text, series := scrapeOf(t, m)
	t.Logf("%d series", len(series))
	if len(series) >= 2000 {
		t.Errorf("%d series", len(series))
	}
	for _, metric := range []Metric{requestDuration, ratelimitDecisions, requestTimeouts, tokenRefusals, upstreamErrors, telemetryDropped, upstreamDuration} {
		if !strings.Contains(text, metric.Name) || !strings.Contains(text, `"`+Other+`"`) {
			t.Errorf("%s has no series for the rest", metric.Name)
		}
	}
	before := heap()
	attack(100_000)
	if _, again := scrapeOf(t, m); len(again) != len(series) {
		t.Errorf("%d series after the first attack, %d after the second", len(series), len(again))
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("memory has grown by %d KiB", grown>>10)
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestErrorsAreCountedWithoutRoomForThem(t *testing.T) {
	m := NewMetrics(MetricsConfig{})
	for i := range 200 {
		m.Answered(Answer{Route: fmt.Sprint(i), Method: "GET", Status: 200})
	}
	m.Answered(Answer{Route: "/late", Method: "GET", Status: 503})
	m.Answered(Answer{Route: "/late", Method: "GET", Status: 418})
	text, _ := scrapeOf(t, m)
	want := requestDuration.Name + `_count{http_request_method="_OTHER",http_response_status_code="503",http_route="_OTHER"} 1`
	if !strings.Contains(text, want) {
		t.Errorf("a 503 without a series of its own is not told as one")
	}
	if !strings.Contains(text, `http_response_status_code="418",http_route="/late"`) {
		t.Errorf("answers of 200 have used up the room for 4xx")
	}
}

func TestStrangersMethodsAndStatusesAreOther(t *testing.T) {
	m := NewMetrics(MetricsConfig{})
	m.Answered(Answer{Route: "/", Method: "BREW", Status: 200})
	m.Answered(Answer{Route: "/", Method: "get", Status: 200})
	m.Answered(Answer{Route: "/", Method: "GET", Status: 999})
	m.Answered(Answer{Route: "/", Method: "GET", Status: -1})
	text, _ := scrapeOf(t, m)
	for _, want := range []string{
		`_count{http_request_method="_OTHER",http_response_status_code="200",http_route="/"} 2`,
		`_count{http_request_method="GET",http_response_status_code="_OTHER",http_route="/"} 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %s", want)
		}
	}
}

func TestFirstOfEachIsAnIncrease(t *testing.T) {
	text, _ := scrapeOf(t, NewMetrics(MetricsConfig{Policies: []string{"user"}, Reasons: []string{"expired"}}))
	for _, want := range []string{
		`gantry_ratelimit_decisions_total{outcome="refused",policy="user"} 0`, `gantry_token_refusals_total{reason="expired"} 0`,
		"gantry_tokens_accepted_total 0", "gantry_rollout_rollbacks_total 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %s", want)
		}
	}
}

func TestAllAtOnce(t *testing.T) {
	m := full()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 500 {
				m.Begin()
				m.Answered(Answer{Route: fmt.Sprint(i % 100), Method: "GET", Status: 200, At: noon})
				m.TimedOut(fmt.Sprint(i), "handler")
				m.End()
			}
		})
	}
	for range 5 {
		scrapeOf(t, m)
		m.sample()
	}
	all.Wait()
	if s := m.History().Over(time.Minute, noon); s.Requests != 2001 || s.Health != 200 || s.PoolUsed != 3 || s.PoolMax != 10 {
		t.Errorf("history has %d requests, health %d, pool %v of %v", s.Requests, s.Health, s.PoolUsed, s.PoolMax)
	}
	if text, _ := scrapeOf(t, m); !strings.Contains(text, "http_server_active_requests 0") {
		t.Error("requests are under way, and all have ended")
	}
}

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// TestMetricsAreDocumented keeps docs/metrics.md what -update makes of the catalogue.
func TestMetricsAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, m := range Catalogue() {
		labels := "-"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, m.Help)
	}
	const path = "../docs/metrics.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != b.String() {
		t.Errorf("docs/metrics.md is not current (%v); run go test ./telemetry -update", err)
	}
}

// BenchmarkAnswered is what a request costs: its histogram, its history, and what limits and identity count.
func BenchmarkAnswered(b *testing.B) {
	m := NewMetrics(MetricsConfig{})
	for _, route := range []string{"/", "/v1/users/me", "/v1/users/{handle}", "GET /v1/docs"} {
		m.Answered(Answer{Route: route, Method: "POST", Status: 201, At: noon})
	}
	a := Answer{Route: "/v1/users/{handle}", Method: "GET", Status: 200, At: time.Now()}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		a.Duration = time.Duration(i%1000) * time.Microsecond
		m.Begin()
		m.TokenAccepted()
		m.Limited("user", "allowed")
		m.Limited("global", "allowed")
		m.Answered(a)
		m.End()
	}
}

// BenchmarkScrape is a scrape of a busy door.
func BenchmarkScrape(b *testing.B) {
	m := full()
	for i := range 200 {
		for d := range 160 {
			m.Answered(Answer{Route: fmt.Sprint(i), Method: "GET", Status: 200, Duration: time.Duration(d*d*d) * time.Microsecond, At: noon})
		}
	}
	h := m.Handler()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), &http.Request{Method: "GET"})
	}
}

const docsHead = `# Metrics

What ` + "`GET /metrics`" + ` on the admin port (ADMIN_LISTEN) tells, besides Go's runtime (` + "`go_*`" + `) and the process (` + "`process_*`" + `).
Names are OpenTelemetry's where it has one. Histograms have OpenTelemetry's classic buckets, and a native histogram where Prometheus
asks for protobuf.

No label is a path, a host, a user or anything else that a client makes up. Each metric has room for a fixed number of label combinations; later ones
are counted together, as ` + "`_OTHER`" + `. Answers that have no room keep the statuses 429, 500, 502, 503 and 504. All metrics together have fewer
than 2,000 series.

| name | type | labels | meaning |
|---|---|---|---|
`

package selftest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func observabilityCases() []Case {
	return []Case{
		{
			Probe:   "OBS-01",
			Prepare: func(a *API) { (&watch{}).over(a) },
			Break:   func(a *API) { (&watch{anyID: true}).over(a) },
		},
		{
			Probe: "OBS-02", Knobs: logKnobs,
			Prepare: func(a *API) { logged(a, &watch{}) },
			Break:   func(a *API) { (&watch{file: a.LogFile, noTrace: true}).over(a) },
		},
		{
			Probe:   "OBS-03",
			Prepare: func(a *API) { (&watch{}).over(a) },
			Break:   func(a *API) { (&watch{oldRoutes: true}).over(a) },
			Knobs:   func(url string, _ *API, t *audit.Target, _ *audit.Config) { t.MetricsURL = url + "/internal/metrics" },
		},
		{
			Probe: "OBS-04", Knobs: logKnobs,
			Prepare: func(a *API) { logged(a, &watch{}) },
			Break:   func(a *API) { (&watch{file: a.LogFile, bodies: true}).over(a) },
		},
	}
}

func logKnobs(_ string, a *API, _ *audit.Target, c *audit.Config) {
	c.Hooks.Log = "cat '" + a.LogFile + "'"
}

// logged gives the API a log file of its own.
func logged(a *API, w *watch) {
	f, err := os.CreateTemp("", "gantry-selftest-*.log")
	if err != nil {
		panic(fmt.Sprintf("the self-test needs a temporary file: %v", err))
	}
	f.Close()
	a.LogFile, w.file = f.Name(), f.Name()
	a.OnClose(func() { os.Remove(f.Name()) })
	w.over(a)
}

// watch is the API's middleware for ids, traces, metrics and logs. Its zero value is sound; each field is a fault.
type watch struct {
	file      string // of the log
	anyID     bool   // whatever the client calls its request is taken over
	noTrace   bool   // the incoming traceparent is not read
	oldRoutes bool   // metrics are on the routes of the first version only
	bodies    bool   // the debug switch that logs bodies was left on

	mu       sync.Mutex
	requests map[string]int
}

func (m *watch) over(a *API) {
	m.requests = map[string]int{}
	a.Outer = []func(http.Handler) http.Handler{m.wrap}
	a.Routes["GET /internal/metrics"] = m.page
}

var soundID = regexp.MustCompile(`^[A-Za-z0-9-]{8,64}$`)

func (m *watch) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if id == "" || (!m.anyID && !soundID.MatchString(id)) {
			id = strings.ToLower(rand.Text())
		}
		w.Header().Set("X-Request-Id", id)
		body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		r.Body = io.NopCloser(bytes.NewReader(body))
		began, out := time.Now(), &statusWriter{ResponseWriter: w, status: 200}
		next.ServeHTTP(out, r)
		if !m.oldRoutes || strings.HasPrefix(r.URL.Path, "/v0/") {
			m.count(r.URL.Path, out.status)
		}
		m.log(id, r, string(body), out.status, time.Since(began))
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (m *watch) count(path string, status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests[fmt.Sprintf(`route="%s",status="%d"`, path, status)]++
}

// page in the Prometheus text format.
func (m *watch) page(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprint(w, "# TYPE go_goroutines gauge\ngo_goroutines 7\n# TYPE http_request_duration_seconds histogram\n")
	fmt.Fprint(w, "http_request_duration_seconds_count{route=\"/v0/users\",status=\"200\"} 4\n")
	for labels, n := range m.requests {
		fmt.Fprintf(w, "http_request_duration_seconds_bucket{%s,le=\"0.1\"} %d\nhttp_request_duration_seconds_bucket{%s,le=\"+Inf\"} %d\n", labels, n, labels, n)
		fmt.Fprintf(w, "http_request_duration_seconds_sum{%s} %g\nhttp_request_duration_seconds_count{%s} %d\n", labels, 0.001*float64(n), labels, n)
	}
}

func (m *watch) log(id string, r *http.Request, body string, status int, took time.Duration) {
	if m.file == "" {
		return
	}
	line := map[string]any{
		"time": time.Now().UTC(), "id": id, "method": r.Method, "path": r.URL.Path, "status": status, "duration_ms": float64(took.Microseconds()) / 1000,
	}
	if parts := strings.Split(r.Header.Get("Traceparent"), "-"); len(parts) == 4 && !m.noTrace {
		line["trace_id"] = parts[1]
	}
	if m.bodies {
		line["body"] = body
	}
	text, err := json.Marshal(line)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := os.OpenFile(m.file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	f.Write(append(text, '\n'))
}

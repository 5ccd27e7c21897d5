package probes

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"

	"github.com/google/go-cmp/cmp"
)

// wrapped lets a middleware of one line see every request before /me is answered.
func wrapped(before func(w http.ResponseWriter, r *http.Request)) http.Handler {
	inner := api(nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before(w, r)
		inner.ServeHTTP(w, r)
	})
}

func TestRequestIDMustBeOneAndMustBeSafe(t *testing.T) {
	var n atomic.Int64
	fresh := func() string { return fmt.Sprintf("id-%08d", n.Add(1)) }
	for _, c := range []struct {
		name   string
		before func(w http.ResponseWriter, r *http.Request)
		want   audit.Outcome
	}{
		{"none", func(http.ResponseWriter, *http.Request) {}, audit.Fail},
		{"the same for everybody", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Request-Id", "server-1") }, audit.Fail},
		{"always its own", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Correlation-Id", fresh()) }, audit.Pass},
		{"traceresponse", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Traceresponse", "00-"+fresh()) }, audit.Pass},
		{"taken over, cut to 64 letters and digits", func(w http.ResponseWriter, r *http.Request) {
			id := strings.Map(func(c rune) rune {
				if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", c) {
					return c
				}
				return -1
			}, r.Header.Get("X-Request-Id"))
			if id == "" {
				id = fresh()
			}
			w.Header().Set("X-Request-Id", id[:min(len(id), 64)])
		}, audit.Pass},
		{"taken over whatever it is", func(w http.ResponseWriter, r *http.Request) {
			id := r.Header.Get("Request-Id")
			if id == "" {
				id = fresh()
			}
			w.Header().Set("Request-Id", id)
		}, audit.Fail},
		{"only valid ones make it fail to have one", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Request-Id") == "" {
				w.Header().Set("X-Request-Id", fresh())
			}
		}, audit.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOutcome(t, auditOf(t, wrapped(c.before), nil, "OBS-01"), c.want, 0)
		})
	}
}

func TestTraceIsLookedForWhereSpansArrive(t *testing.T) {
	for _, c := range []struct {
		name    string
		respond func(w http.ResponseWriter, trace string)
		export  func(trace string) string // body of an OTLP export, empty for none
		sink    bool
		want    audit.Outcome
	}{
		{"nothing to look in", nil, nil, false, audit.Inconclusive},
		{"Server-Timing", func(w http.ResponseWriter, trace string) {
			w.Header().Set("Server-Timing", `traceparent;desc="00-`+trace+`-00f067aa0ba902b7-01"`)
		}, nil, false, audit.Pass},
		{"the span of the trace arrives", nil, func(trace string) string {
			id, _ := hex.DecodeString(trace)
			return "\x0a\x20\x12\x10" + string(id)
		}, true, audit.Pass},
		{"spans of other traces arrive", nil, func(string) string { return "\x0a\x20\x12\x100123456789abcdef" }, true, audit.Fail},
		{"nothing arrives", nil, nil, true, audit.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			address, exporter := testenv.FreeAddress(t), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			h := wrapped(func(w http.ResponseWriter, r *http.Request) {
				parts := strings.Split(r.Header.Get("Traceparent"), "-")
				if len(parts) != 4 {
					return
				}
				if c.respond != nil {
					c.respond(w, parts[1])
				}
				if c.export != nil {
					res, err := exporter.Post("http://"+address+"/v1/traces", "application/x-protobuf", strings.NewReader(c.export(parts[1])))
					if err != nil {
						t.Errorf("export: %v", err)
						return
					}
					res.Body.Close()
				}
			})
			f := auditOf(t, h, func(_ string, _ *audit.Target, cfg *audit.Config) {
				if c.sink {
					cfg.OTLPSink = address
				}
			}, "OBS-02")
			wantOutcome(t, f, c.want, 0)
		})
	}
}

func TestMetricsTextIsRead(t *testing.T) {
	p := parsePage("# HELP a_total what\n# TYPE a_total counter\n" +
		`a_total{path="/x,\"y\"}",code="200",} 3 1700000000` + "\n" +
		"b 1e3\nc_bucket{le=\"+Inf\"} 7 # {trace_id=\"1\"} 0.5\nnot a line at all\n{} 3\nd{open=\"\n<html>\n")
	want := []sample{
		{"a_total", map[string]string{"path": `/x,\"y\"}`, "code": "200"}, 3},
		{"b", map[string]string{}, 1000},
		{"c_bucket", map[string]string{"le": "+Inf"}, 7},
	}
	if diff := cmp.Diff(want, p.samples, cmp.AllowUnexported(sample{})); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	if got, want := p.types["a_total"], "counter"; got != want {
		t.Errorf("type = %q, want %q", got, want)
	}
}

// meter counts what /me answers, and shows it in a form of the test's own.
func meter(public http.HandlerFunc, page func(w io.Writer, n int64)) http.Handler {
	var n atomic.Int64
	return api(func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/me":
			n.Add(1)
			return false
		case "/metrics":
			if public != nil {
				public(w, r)
			}
			return public != nil
		case "/private":
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			page(w, n.Load())
			return true
		}
		return false
	})
}

func TestMetricsAreHeldAgainstFiftyRequests(t *testing.T) {
	full := func(w io.Writer, n int64) {
		fmt.Fprintf(w, "# TYPE http_requests_total counter\nhttp_requests_total{code=\"200\",path=\"/me\"} %d\n", n)
		fmt.Fprintf(w, "# TYPE http_request_duration_seconds histogram\nhttp_request_duration_seconds_bucket{le=\"+Inf\"} %d\n", n)
	}
	anybody := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		io.WriteString(w, "# TYPE go_goroutines gauge\ngo_goroutines 1\ngo_threads 2\ngo_other 3\n")
	}
	for _, c := range []struct {
		name     string
		server   http.Handler
		url      string
		declared bool
		want     audit.Outcome
		as       audit.Severity
	}{
		{"true and private", meter(nil, full), "/private", false, audit.Pass, 0},
		{"public", meter(anybody, full), "/private", false, audit.Fail, audit.High},
		{"public by declaration", meter(anybody, full), "/private", true, audit.Pass, 0},
		{"a page for every unknown path", meter(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "<html>\nthe application 1\nof 2\nlines 3\n</html>")
		}, full), "/private", false, audit.Pass, 0},
		{"nobody said where", meter(nil, full), "", false, audit.Inconclusive, 0},
		{"not Prometheus text", meter(nil, func(w io.Writer, _ int64) { io.WriteString(w, `{"requests": 3}`) }), "/private", false, audit.Inconclusive, 0},
		{"no counter", meter(nil, func(w io.Writer, _ int64) { io.WriteString(w, "go_goroutines 1\n") }), "/private", false, audit.Fail, audit.High},
		{"a counter that stands", meter(nil, func(w io.Writer, _ int64) { full(w, 4) }), "/private", false, audit.Fail, audit.High},
		{"half of the processes", meter(nil, func(w io.Writer, n int64) { full(w, n/2) }), "/private", false, audit.Inconclusive, 0},
		{"no histogram", meter(nil, func(w io.Writer, n int64) {
			fmt.Fprintf(w, "http_requests_total{code=\"200\"} %d\n", n)
		}), "/private", false, audit.Fail, audit.Medium},
		{"no split by status", meter(nil, func(w io.Writer, n int64) {
			fmt.Fprintf(w, "http_request_duration_seconds_count %d\nhttp_request_duration_seconds_bucket{le=\"1\"} %d\n", n, n)
		}), "/private", false, audit.Fail, audit.Medium},
		{"others come to another route", meter(nil, func(w io.Writer, n int64) {
			full(w, n)
			fmt.Fprintf(w, "http_requests_total{code=\"200\",path=\"/busy\"} %d\n", 100*n)
		}), "/private", false, audit.Pass, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := auditOf(t, c.server, func(url string, target *audit.Target, _ *audit.Config) {
				if c.url != "" {
					target.MetricsURL = url + c.url
				}
				if c.declared {
					target.Declared = map[string]string{"OBS-03": "the network is private"}
				}
			}, "OBS-03")
			wantOutcome(t, f, c.want, c.as)
		})
	}
}

func TestMetricsURLIsReadWithoutCredential(t *testing.T) {
	var seen atomic.Value
	h := meter(nil, func(io.Writer, int64) {})
	spy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/private" {
			seen.Store(r.Header.Get("Authorization") + r.Header.Get("Cookie"))
		}
		h.ServeHTTP(w, r)
	})
	auditOf(t, spy, func(url string, target *audit.Target, _ *audit.Config) { target.MetricsURL = url + "/private" }, "OBS-03")
	if got, ok := seen.Load().(string); !ok || got != "" {
		t.Errorf("credential at the metrics URL = %q (asked: %v), want none", got, ok)
	}
}

// logger writes what a format makes of a request to a file.
type logger struct {
	file   string
	mu     sync.Mutex
	format func(r *http.Request, body string) string
}

func (l *logger) before(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(l.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	io.WriteString(f, l.format(r, string(body)))
}

func statusFor(r *http.Request) int {
	switch {
	case r.Header.Get("Authorization") != "Bearer good":
		return 401
	case r.URL.Path == "/me":
		return 200
	}
	return 404
}

func TestLogIsHeldAgainstWhatWasSent(t *testing.T) {
	good := func(r *http.Request, _ string) string {
		return fmt.Sprintf(`{"id":%q,"http":{"status":%d},"duration":"1.5ms"}`+"\n", r.Header.Get("X-Request-Id"), statusFor(r))
	}
	for _, c := range []struct {
		name    string
		format  func(r *http.Request, body string) string
		command string
		want    audit.Outcome
		as      audit.Severity
	}{
		{"sound, nested", good, "", audit.Pass, 0},
		{"sound, behind a runtime's own words", func(r *http.Request, b string) string { return "web-1  | " + good(r, b) }, "", audit.Pass, 0},
		{"text", func(r *http.Request, _ string) string {
			return fmt.Sprintf("%s %s %d 1.5ms\n", r.Header.Get("X-Request-Id"), r.URL.Path, statusFor(r))
		}, "", audit.Fail, audit.Medium},
		{"no id", func(r *http.Request, _ string) string {
			return fmt.Sprintf(`{"path":%q,"status":%d,"ms":1}`+"\n", r.URL.Path, statusFor(r))
		}, "", audit.Fail, audit.Medium},
		{"no latency", func(r *http.Request, _ string) string {
			return fmt.Sprintf(`{"id":%q,"status":%d}`+"\n", r.Header.Get("X-Request-Id"), statusFor(r))
		}, "", audit.Fail, audit.Medium},
		{"the token in clear", func(r *http.Request, b string) string {
			return strings.Replace(good(r, b), "{", fmt.Sprintf(`{"headers":%q,`, r.Header.Get("Authorization")), 1)
		}, "", audit.Fail, audit.High},
		{"the e-mail address in clear", func(r *http.Request, b string) string {
			_, email, _ := strings.Cut(b, `"email":"`)
			email, _, _ = strings.Cut(email, `"`)
			return strings.Replace(good(r, b), "{", fmt.Sprintf(`{"user":%q,`, email), 1)
		}, "", audit.Fail, audit.High},
		{"refusals are not logged", func(r *http.Request, b string) string {
			if statusFor(r) == 401 {
				return ""
			}
			return good(r, b)
		}, "", audit.Fail, audit.High},
		{"nothing is logged", func(*http.Request, string) string { return "" }, "", audit.Fail, audit.High},
		{"the command fails", good, "exit 3", audit.Inconclusive, 0},
		{"the command prints too much", good, "yes | head -c 100000", audit.Inconclusive, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := &logger{file: filepath.Join(t.TempDir(), "log"), format: c.format}
			command := c.command
			if command == "" {
				command = "touch '" + l.file + "'; cat '" + l.file + "'"
			}
			f := auditOf(t, wrapped(l.before), func(_ string, _ *audit.Target, cfg *audit.Config) { cfg.Hooks.Log = command }, "OBS-04")
			wantOutcome(t, f, c.want, c.as)
			shown, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, prefix := range []string{"gantry-token-", "gantry-password-"} {
				if strings.Contains(string(shown), prefix) {
					t.Errorf("the finding shows a made-up secret (%s...): %s", prefix, shown)
				}
			}
		})
	}
	wantOutcome(t, auditOf(t, api(nil), nil, "OBS-04"), audit.Inconclusive, 0)
}

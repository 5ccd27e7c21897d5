package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/gantryhq/gantry/internal/config"
)

// open builds a server that is not serving, as `gantry serve` with nothing set but env.
func open(t testing.TB, log *slog.Logger, env ...string) *Server {
	t.Helper()
	return openIn(t, t.TempDir(), log, env...)
}

// openIn is open with the gantry.yaml of a directory.
func openIn(t testing.TB, dir string, log *slog.Logger, env ...string) *Server {
	t.Helper()
	cfg, report := config.Load(config.Sources{
		Dir: dir, Environ: append([]string{"DATA_DIR=" + t.TempDir(), "LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:0"}, env...),
	})
	if !report.OK() {
		t.Fatalf("%+v", report.Faults)
	}
	s, err := New(t.Context(), cfg, Ports{}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestPseudonymsAreStableAndKeyed(t *testing.T) {
	a, b := newPseudonyms(config.NewSecret("one secret")), newPseudonyms(config.NewSecret("another"))
	name := a.of("user_1")
	if name != a.of("user_1") || name != newPseudonyms(config.NewSecret("one secret")).of("user_1") {
		t.Error("one user has two names")
	}
	if name == a.of("user_2") || name == b.of("user_1") || strings.Contains(name, "user_1") {
		t.Errorf("%q tells too much", name)
	}
}

func TestBoundPortIsNamed(t *testing.T) {
	s := open(t, slog.New(slog.DiscardHandler))
	cfg := s.cfg
	cfg.Listen = s.Addr()
	if _, err := New(t.Context(), cfg, Ports{}, s.log); err == nil || !strings.Contains(err.Error(), "LISTEN") {
		t.Errorf("error = %v, want one that names LISTEN", err)
	}
}

func TestAdminPortIsClosedWithoutItsToken(t *testing.T) {
	const token = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9"
	s := open(t, slog.New(slog.DiscardHandler), "ADMIN_TOKEN="+token)
	for header, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer " + token: 200} {
		for _, path := range []string{"/debug/pprof/", "/metrics"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Authorization", header)
			w := httptest.NewRecorder()
			s.admin.Handler.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s with %q = %d, want %d", path, header, w.Code, want)
			}
		}
	}
}

func TestARoutesTimeoutIsNotUndercut(t *testing.T) {
	s := open(t, slog.New(slog.DiscardHandler))
	s.cfg.Routes = []config.Route{{Pattern: "/v1/export", Timeout: 5 * time.Minute}}
	if got := s.listener(nil).WriteTimeout; got < 5*time.Minute {
		t.Errorf("the port cuts answers after %v, before the route's 5 min", got)
	}
	if got := s.longestTimeout(); got != 5*time.Minute {
		t.Errorf("longest timeout = %v, want the route's", got)
	}
}

var empty = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// guarded is every stage around an empty handler, with a request whose token is known and whose
// limits are far away.
func guarded(t testing.TB, log *slog.Logger, env ...string) (http.Handler, *http.Request) {
	t.Helper()
	const plenty = "1000000/s"
	s := open(t, log, append(env, "RATE_LIMIT_PER_USER="+plenty, "RATE_LIMIT_GLOBAL="+plenty)...)
	text, err := s.dev.Mint(devissuer.Claims{Subject: "user_1"})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := compileRoutes(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/v1/things", nil)
	r.Host = "localhost"
	r.Header.Set("Authorization", "Bearer "+text)
	return s.pipeline(s.policy.Load(), nil, routes).Then(empty), r.WithContext(context.Background())
}

func TestPipelineAllocatesAtMostTwelveTimes(t *testing.T) {
	h, r := guarded(t, slog.New(slog.DiscardHandler))
	w := &nullWriter{h: make(http.Header)}
	if n := testing.AllocsPerRun(1000, func() { clear(w.h); h.ServeHTTP(w, r) }); n > 12 {
		t.Errorf("%v allocations a request, want at most 12", n)
	}
}

// BenchmarkPipeline says what the stages cost over the bare handler, with the garbage collector as `gantry
// serve` sets it.
func BenchmarkPipeline(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // internal/cli, tuneGC
	quiet := slog.New(slog.DiscardHandler)
	logging := slog.New(slog.NewJSONHandler(io.Discard, nil))
	for name, log := range map[string]*slog.Logger{"bare": nil, "guarded": quiet, "guarded+log": logging, "guarded+trace": quiet} {
		b.Run(name, func(b *testing.B) {
			h, r := http.Handler(empty), httptest.NewRequest("GET", "/v1/things", nil)
			switch {
			case name == "guarded+trace": // a hundredth is recorded, and dropped: nobody sends
				h, r = guarded(b, log, "OTEL_TRACES_EXPORTER=otlp", "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01")
			case log != nil:
				h, r = guarded(b, log)
			}
			w := &nullWriter{h: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		})
	}
}

type nullWriter struct{ h http.Header }

func (n *nullWriter) Header() http.Header         { return n.h }
func (n *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (n *nullWriter) WriteHeader(int)             {}

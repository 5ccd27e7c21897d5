package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/gantryhq/gantry/internal/config"
)

// open builds a server that is not serving, as `gantry serve` with nothing set but env.
func open(t testing.TB, log *slog.Logger, env ...string) *Server {
	t.Helper()
	cfg, report := config.Load(config.Sources{
		Dir: t.TempDir(), Environ: append([]string{"DATA_DIR=" + t.TempDir(), "LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:0"}, env...),
	})
	if !report.OK() {
		t.Fatalf("%+v", report.Faults)
	}
	s, err := New(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestPseudonymsAreStableAndKeyed(t *testing.T) {
	a, b := newPseudonyms("one secret"), newPseudonyms("another")
	name := a.of("user_1")
	if name != a.of("user_1") || name != newPseudonyms("one secret").of("user_1") {
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
	if _, err := New(t.Context(), cfg, s.log); err == nil || !strings.Contains(err.Error(), "LISTEN") {
		t.Errorf("error = %v, want one that names LISTEN", err)
	}
}

func TestAdminPortIsClosedWithoutItsToken(t *testing.T) {
	const token = "q8Zr2vXnT5yKd0WmEoGc7LhBfU3sJtA9"
	s := open(t, slog.New(slog.DiscardHandler), "ADMIN_TOKEN="+token)
	for header, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer " + token: 200} {
		r := httptest.NewRequest("GET", "/debug/pprof/cmdline", nil)
		r.URL.Path = "/debug/pprof/"
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		s.admin.Handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q = %d, want %d", header, w.Code, want)
		}
	}
}

// BenchmarkPipeline is every stage around an empty handler, the token known, the limits far away.
func BenchmarkPipeline(b *testing.B) {
	const plenty = "1000000/s"
	quiet := slog.New(slog.DiscardHandler)
	logging := slog.New(slog.NewJSONHandler(io.Discard, nil))
	empty := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for name, log := range map[string]*slog.Logger{"bare": nil, "guarded": quiet, "guarded+log": logging} {
		b.Run(name, func(b *testing.B) {
			h := http.Handler(empty)
			r := httptest.NewRequest("GET", "/v1/things", nil)
			r.Host = "localhost"
			if log != nil {
				s := open(b, log, "RATE_LIMIT_PER_USER="+plenty, "RATE_LIMIT_GLOBAL="+plenty)
				text, err := s.dev.Mint(devissuer.Claims{Subject: "user_1"})
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+text)
				routes, err := compileRoutes(nil)
				if err != nil {
					b.Fatal(err)
				}
				h = s.pipeline(nil, routes).Then(empty)
			}
			r = r.WithContext(context.Background())
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

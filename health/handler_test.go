package health_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/health"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const secret = "let-me-see"

func maySee(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+secret }

// fleet is a database that fails, a cache that is well, a disk with a measured value and a check that
// has not answered yet.
func fleet() []health.Check {
	database := health.Database(func(context.Context) error {
		time.Sleep(12345 * time.Microsecond)
		return errDown
	}, nil)
	cache := (&dependency{takes: 250 * time.Microsecond}).check("cache", health.Fails, health.Warns)
	cache.Type = "datastore"
	disk := health.Check{Name: "disk", Measurement: "freeBytes", Type: "system", Health: health.Fails, Ready: health.Fails, Run: func(context.Context) (health.Observation, error) {
		return health.Observation{Value: 5 << 30, Unit: "B"}, nil
	}}
	pending := (&dependency{takes: 800 * time.Millisecond}).check("upstream", health.Warns, health.Warns)
	return []health.Check{database, cache, disk, pending}
}

func TestBodiesAreGolden(t *testing.T) {
	for _, path := range []string{"/health", "/health/live", "/health/ready"} {
		for _, details := range []bool{false, true} {
			name := fmt.Sprintf("%s-details-%t", strings.ReplaceAll(path[1:], "/", "-"), details)
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := start(t, health.Config{Checks: fleet(), Details: maySee})
					settle()
					r := httptest.NewRequest(http.MethodGet, path, nil)
					if details {
						r.Header.Set("Authorization", "Bearer "+secret)
					}
					w := ask(h, r)
					golden(t, name, fmt.Sprintf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), w.Body))
				})
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("%s (-got +want):\n%s", name, diff)
	}
}

func TestStrangersSeeStatusLatencyAndTimeOfEachCheckAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, health.Config{Checks: fleet()}) // no Details: nobody may see them
		after(5 * time.Second)
		w := get(h, "/health")
		for name, list := range parse(t, w).Checks {
			if c := list[0]; c.Status == "" || c.LatencyMS == nil || c.Time == "" {
				t.Errorf("%s: %+v, want status, latency and time", name, c)
			}
		}
		for _, word := range []string{"10.1.2.3", "5432", "admin", "password", "PostgreSQL", "output", "5368709120"} {
			if strings.Contains(w.Body.String(), word) {
				t.Errorf("body contains %q: %s", word, w.Body)
			}
		}
	})
}

func TestDetailsRememberTheLastFiveResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &dependency{}
		h := start(t, health.Config{
			Checks:  []health.Check{db.check("database", health.Fails, health.Fails)},
			Details: func(*http.Request) bool { return true },
		})
		after(2*time.Second + 100*time.Millisecond)
		db.set(errDown)
		after(7 * time.Second)
		db.set(nil)
		after(time.Second)
		c := parse(t, get(h, "/health/ready")).Checks["database:responseTime"][0]
		var got []string
		for _, r := range c.Recent {
			got = append(got, r.Status)
		}
		if diff := cmp.Diff(got, []string{"pass", "fail", "fail", "fail", "fail"}); diff != "" {
			t.Errorf("recent (-got +want):\n%s", diff)
		}
		if c.Reason != "recovering" || c.Status != "fail" || c.Streak != 1 || c.Since != "2000-01-01T00:00:10.000Z" {
			t.Errorf("check = %+v, want recovering since second 10", c)
		}
	})
}

func TestStaleResultsSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := health.New(health.Config{
			Checks:  []health.Check{(&dependency{}).check("database", health.Fails, health.Fails)},
			Details: func(*http.Request) bool { return true },
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := parse(t, get(h, "/health")).Checks["database:responseTime"][0].Reason; got != "pending" {
			t.Errorf("reason before Run = %q, want pending", got)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		settle()
		stop()
		<-done
		after(5 * time.Second)
		if got := parse(t, get(h, "/health")).Checks["database:responseTime"][0].Reason; got != "stale" {
			t.Errorf("reason after Run = %q, want stale", got)
		}
	})
}

func TestHeadersMethodsAndAliases(t *testing.T) {
	h, err := health.New(health.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h.Open()
	server := httptest.NewServer(h.Middleware(http.NotFoundHandler()))
	defer server.Close()
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/health", 200},
		{"HEAD", "/health", 200},
		{"GET", "/health/live", 200},
		{"HEAD", "/livez", 200},
		{"GET", "/health/ready", 200},
		{"HEAD", "/readyz", 200},
		{"GET", "/health?verbose=1", 200},
		{"POST", "/health", 405},
		{"DELETE", "/livez", 405},
		{"OPTIONS", "/health/ready", 405},
		{"BREW", "/readyz", 405},
		{"GET", "/health/", 404},
		{"GET", "/healthz", 404},
		{"GET", "/%68ealth", 404},
		{"GET", "//health", 404},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.want {
				t.Fatalf("status = %d, want %d", resp.StatusCode, c.want)
			}
			header := resp.Header
			switch c.want {
			case 200:
				if header.Get("Content-Type") != "application/health+json" || header.Get("Cache-Control") != "no-store" {
					t.Errorf("headers = %v, want health+json and no-store", header)
				}
				if c.method == "HEAD" && (len(body) != 0 || resp.ContentLength < 16) {
					t.Errorf("HEAD: %d bytes, Content-Length %d; want none and the length of GET", len(body), resp.ContentLength)
				}
			case 405:
				if header.Get("Allow") != "GET, HEAD" || header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("headers = %v, want Allow and problem+json", header)
				}
			}
		})
	}
}

func TestTenThousandConcurrentProbesAreAllAnswered(t *testing.T) {
	db := &dependency{takes: time.Hour} // hangs
	begun := time.Now()
	h := start(t, health.Config{Checks: []health.Check{db.check("database", health.Fails, health.Fails)}})
	want := map[string]int{"/health": 503, "/health/live": 200, "/health/ready": 503}
	var all sync.WaitGroup
	for range 10_000 {
		for path, code := range want {
			all.Go(func() { wantCode(t, h, path, code) })
		}
	}
	all.Wait()
	if got, most := db.asked.Load(), 1+int64(time.Since(begun)/time.Second); got > most {
		t.Errorf("30,000 probes ran the check %d times, want at most %d", got, most)
	}
}

func TestProbesDuringChangesOfStateAreConsistent(t *testing.T) {
	db := &dependency{}
	h := start(t, health.Config{
		Checks:   []health.Check{db.check("database", health.Fails, health.Fails)},
		Interval: time.Millisecond, Timeout: time.Second,
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 500 {
				if i%50 == 0 {
					db.set([]error{nil, errDown}[i/50%2])
				}
				w := get(h, "/health")
				if a := parse(t, w); (a.Status == "fail") != (w.Code == 503) {
					t.Errorf("status %q with code %d", a.Status, w.Code)
				}
			}
		})
	}
	all.Go(h.Drain)
	all.Wait()
	wantCode(t, h, "/readyz", 503)
}

func TestOnlyChangesAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := &dependency{}
		start(t, health.Config{
			Checks: []health.Check{db.check("database", health.Fails, health.Fails)},
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		after(5 * time.Second)
		db.set(errDown)
		after(5 * time.Second)
		if got := strings.Count(log.String(), "health check changed"); got != 2 {
			t.Errorf("log lines = %d, want 2 (well, then down):\n%s", got, log.String())
		}
		if !strings.Contains(log.String(), "reason=error") || !strings.Contains(log.String(), "10.1.2.3") {
			t.Errorf("the log lacks the cause:\n%s", log.String())
		}
	})
}

func BenchmarkProbe(b *testing.B) {
	h, err := health.New(health.Config{Checks: fleet()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	b.Cleanup(func() { stop(); <-done })
	handler := h.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, path := range []string{"/health", "/health/live", "/health/ready", "/other"} {
		b.Run(path, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			w := discard{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(w, r)
			}
		})
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

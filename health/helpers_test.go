package health_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/health"
)

// dependency is something whose state a test decides, and that counts how often it is asked.
type dependency struct {
	mu    sync.Mutex
	err   error
	takes time.Duration
	asked atomic.Int64
}

func (d *dependency) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *dependency) ping(ctx context.Context) error {
	d.asked.Add(1)
	d.mu.Lock()
	err, takes := d.err, d.takes
	d.mu.Unlock()
	select {
	case <-time.After(takes):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *dependency) check(name string, onHealth, onReady health.Impact) health.Check {
	return health.Check{Name: name, Health: onHealth, Ready: onReady, Run: func(ctx context.Context) (health.Observation, error) {
		return health.Observation{}, d.ping(ctx)
	}}
}

// start returns an opened Health whose checks run until the test ends. In a bubble, its first
// results are there.
func start(t *testing.T, cfg health.Config) *health.Health {
	t.Helper()
	h, err := health.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Open()
	run(t, h)
	return h
}

func run(t *testing.T, h *health.Health) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}

func get(h *health.Health, path string) *httptest.ResponseRecorder {
	return ask(h, httptest.NewRequest(http.MethodGet, path, nil))
}

func ask(h *health.Health, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.Middleware(http.NotFoundHandler()).ServeHTTP(w, r)
	return w
}

// wantCode asks path and compares the status.
func wantCode(t *testing.T, h *health.Health, path string, want int) {
	t.Helper()
	if w := get(h, path); w.Code != want {
		t.Errorf("GET %s = %d, want %d: %s", path, w.Code, want, w.Body)
	}
}

type answer struct {
	Status string
	Output string
	Checks map[string][]struct {
		Status        string
		Time          string
		LatencyMS     *float64
		ObservedValue *float64
		ObservedUnit  string
		Output        string
		Reason        string
		Since         string
		Streak        int
		Recent        []struct{ Status, Time, Output string }
	}
}

func parse(t *testing.T, w *httptest.ResponseRecorder) (a answer) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return a
}

// after lets virtual time pass and everything that is due happen.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// settle lets the first results arrive, and puts the test between two rounds of checks.
func settle() { after(100 * time.Millisecond) }

package health_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/health"
)

func TestReadinessNeedsThreeFailuresToLeaveAndTwoSuccessesToReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &dependency{}
		h := start(t, health.Config{Checks: []health.Check{db.check("database", health.Fails, health.Fails)}})
		settle()
		// Each step is one run: whether it fails, and what readiness says after it.
		for i, step := range []struct {
			err  error
			want int
		}{
			{nil, 200},
			{errDown, 200},
			{errDown, 200},
			{nil, 200}, // two failures are not enough
			{errDown, 200},
			{errDown, 200},
			{errDown, 503},
			{errDown, 503},
			{nil, 503},
			{errDown, 503},
			{nil, 503}, // one success is not enough
			{nil, 200},
			{errDown, 200},
			{errDown, 200},
			{errDown, 503},
		} {
			db.set(step.err)
			after(time.Second)
			if got := get(h, "/health/ready").Code; got != step.want {
				t.Errorf("step %d: ready = %d, want %d", i, got, step.want)
			}
		}
	})
}

func TestOneSuccessOfEveryRequiredCheckIsEnoughAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, keys, cache := &dependency{}, &dependency{}, &dependency{}
		db.set(errDown)
		keys.set(errDown)
		cache.set(errDown)
		h := start(t, health.Config{Checks: []health.Check{
			db.check("database", health.Fails, health.Fails),
			keys.check("keys", health.Warns, health.Fails),
			cache.check("cache", health.Fails, health.Warns),
		}})
		after(10*time.Second + 100*time.Millisecond)
		wantCode(t, h, "/readyz", 503)
		db.set(nil)
		after(time.Second)
		wantCode(t, h, "/readyz", 503)
		keys.set(nil)
		after(time.Second)
		wantCode(t, h, "/readyz", 200)
	})
}

func TestACacheOutageOnlyWarnsReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := &dependency{}
		h := start(t, health.Config{Checks: []health.Check{cache.check("cache", health.Fails, health.Warns)}})
		cache.set(errDown)
		after(10 * time.Second)
		wantCode(t, h, "/health", 503)
		w := get(h, "/health/ready")
		if a := parse(t, w); w.Code != 200 || a.Status != "warn" || a.Checks["cache:responseTime"][0].Status != "warn" {
			t.Errorf("ready = %d %s, want 200 warn", w.Code, w.Body)
		}
	})
}

func TestAFailureThatHysteresisHoldsBackIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &dependency{}
		h := start(t, health.Config{Checks: []health.Check{db.check("database", health.Fails, health.Fails)}})
		settle()
		db.set(errDown)
		after(time.Second)
		if got := h.ReadyReport().Status; got != health.Warn {
			t.Errorf("status after one failure = %v, want warn", got)
		}
	})
}

func TestAWarningFaultIsNeverAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := &dependency{}
		keys.set(&health.Fault{Reason: "old", Warning: true})
		h := start(t, health.Config{Checks: []health.Check{keys.check("keys", health.Fails, health.Fails)}})
		after(10 * time.Second)
		for _, path := range []string{"/health", "/health/ready"} {
			if w := get(h, path); w.Code != 200 || parse(t, w).Status != "warn" {
				t.Errorf("GET %s = %d %s, want 200 warn", path, w.Code, w.Body)
			}
		}
	})
}

func TestNotReadyBeforeOpenAndNeverAfterDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &dependency{}
		h, err := health.New(health.Config{Checks: []health.Check{db.check("database", health.Fails, health.Fails)}})
		if err != nil {
			t.Fatal(err)
		}
		run(t, h)
		settle()
		wantReady(t, h, 503, "starting")
		wantCode(t, h, "/health", 200)
		h.Open()
		wantReady(t, h, 200, "")
		h.Drain() // at once: no virtual time passes
		wantReady(t, h, 503, "draining")
		wantCode(t, h, "/health", 200)
		wantCode(t, h, "/health/live", 200)
		h.Open()
		after(10 * time.Second)
		wantReady(t, h, 503, "draining")
	})
}

func wantReady(t *testing.T, h *health.Health, code int, output string) {
	t.Helper()
	w := get(h, "/health/ready")
	if a := parse(t, w); w.Code != code || a.Output != output {
		t.Errorf("ready = %d %q, want %d %q", w.Code, a.Output, code, output)
	}
}

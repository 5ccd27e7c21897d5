package health_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/health"
)

var errDown = errors.New("dial tcp 10.1.2.3:5432: password authentication failed for user admin (PostgreSQL 16.4)")

func TestHealthIs200OnlyWhileEveryCheckPasses(t *testing.T) {
	for _, name := range []string{"database", "cache", "disk"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				deps := map[string]*dependency{"database": {}, "cache": {}, "disk": {}}
				var checks []health.Check
				for n, d := range deps {
					checks = append(checks, d.check(n, health.Fails, health.Warns))
				}
				h := start(t, health.Config{Checks: checks})
				settle()
				wantCode(t, h, "/health", 200)
				deps[name].set(errDown)
				after(time.Second)
				wantCode(t, h, "/health", 503)
				deps[name].set(nil)
				after(time.Second)
				wantCode(t, h, "/health", 200)
			})
		})
	}
}

func TestBeforeTheFirstResultsNothingIsHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &dependency{takes: 500 * time.Millisecond}
		h := start(t, health.Config{Checks: []health.Check{db.check("database", health.Fails, health.Fails)}})
		synctest.Wait()
		wantCode(t, h, "/health", 503)
		wantCode(t, h, "/health/ready", 503)
		wantCode(t, h, "/health/live", 200)
		after(time.Second)
		wantCode(t, h, "/health", 200)
		wantCode(t, h, "/health/ready", 200)
	})
}

func TestChecksThatDoNotRunTurnUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &dependency{}
		h, err := health.New(health.Config{Checks: []health.Check{db.check("database", health.Fails, health.Fails)}})
		if err != nil {
			t.Fatal(err)
		}
		h.Open()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		settle()
		stop()
		<-done
		after(1900 * time.Millisecond) // exactly 2 s after the only run
		wantCode(t, h, "/health", 200)
		after(time.Nanosecond)
		wantCode(t, h, "/health", 503)
		wantCode(t, h, "/health/ready", 200)
		after(2 * time.Second)
		wantCode(t, h, "/health/ready", 503)
		wantCode(t, h, "/health/live", 200)
	})
}

func TestOneProbeOrAThousandCostOneRunASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &dependency{takes: 30 * time.Millisecond}
		h := start(t, health.Config{Checks: []health.Check{db.check("database", health.Fails, health.Fails)}})
		for range 10_000 {
			get(h, "/health")
			get(h, "/health/ready")
			time.Sleep(time.Millisecond)
		}
		if got := db.asked.Load(); got < 10 || got > 11 {
			t.Errorf("runs in 10 s = %d, want 10 or 11", got)
		}
	})
}

func TestASlowCheckIsNeverStartedTwiceWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starts := make(chan time.Time, 100)
		slow := health.Check{Name: "slow", Health: health.Fails, Run: func(ctx context.Context) (health.Observation, error) {
			starts <- time.Now()
			time.Sleep(850 * time.Millisecond)
			return health.Observation{}, nil
		}}
		h := start(t, health.Config{Checks: []health.Check{slow}})
		after(time.Second)
		for range 100 { // a check just within its limit never flaps
			wantCode(t, h, "/health", 200)
			after(100 * time.Millisecond)
		}
		for last := <-starts; len(starts) > 0; {
			next := <-starts
			if gap := next.Sub(last); gap < time.Second {
				t.Fatalf("gap between starts = %v, want at least 1s", gap)
			}
			last = next
		}
	})
}

func TestAHungCheckFailsWithinTwoSecondsAndHoldsOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hang atomic.Bool
		var runs atomic.Int64
		check := health.Check{Name: "database", Health: health.Fails, Ready: health.Fails, Run: func(context.Context) (health.Observation, error) {
			runs.Add(1)
			if hang.Load() {
				<-release // ignores its context
			}
			return health.Observation{}, nil
		}}
		h := start(t, health.Config{Checks: []health.Check{check}})
		synctest.Wait()
		hang.Store(true) // right after a good run: the worst moment
		after(2*time.Second - time.Nanosecond)
		wantCode(t, h, "/health", 200)
		after(time.Nanosecond)
		wantCode(t, h, "/health", 503)
		wantCode(t, h, "/health/ready", 200)
		before := runtime.NumGoroutine()
		after(time.Minute)
		if got := runtime.NumGoroutine(); got > before || runs.Load() != 2 {
			t.Errorf("after a minute of hanging: %d goroutines and %d runs, want %d and 2", got, runs.Load(), before)
		}
		wantCode(t, h, "/health/ready", 503)
		wantCode(t, h, "/health/live", 200)
		hang.Store(false)
		close(release)
		after(2 * time.Second)
		wantCode(t, h, "/health", 200)
	})
}

func TestEverythingHangingDoesNotDelayAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var checks []health.Check
		for _, name := range []string{"database", "cache", "disk"} {
			checks = append(checks, health.Check{Name: name, Health: health.Fails, Ready: health.Fails, Run: func(context.Context) (health.Observation, error) {
				<-release
				return health.Observation{}, nil
			}})
		}
		h := start(t, health.Config{Checks: checks})
		t.Cleanup(func() { close(release) })
		after(10 * time.Second)
		begun := time.Now()
		wantCode(t, h, "/health/live", 200)
		wantCode(t, h, "/livez", 200)
		wantCode(t, h, "/health", 503)
		wantCode(t, h, "/readyz", 503)
		if took := time.Since(begun); took != 0 {
			t.Errorf("probes waited %v, want none", took)
		}
	})
}

func TestOneHungCheckDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, db := &dependency{takes: time.Hour}, &dependency{}
		h := start(t, health.Config{Checks: []health.Check{
			stuck.check("upstream", health.Warns, health.Warns), db.check("database", health.Fails, health.Fails),
		}})
		settle()
		wantCode(t, h, "/health", 200)
		db.set(errDown)
		after(time.Second)
		wantCode(t, h, "/health", 503)
	})
}

func TestAPanickingCheckIsAFailureAndComesBack(t *testing.T) {
	for name, die := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var well atomic.Bool
				h := start(t, health.Config{Checks: []health.Check{{Name: "x", Health: health.Fails, Run: func(context.Context) (health.Observation, error) {
					if !well.Load() {
						die()
					}
					return health.Observation{}, nil
				}}}})
				settle()
				if got := h.HealthReport().Findings[0].Last; got.Status != health.Fail || got.Reason != "panic" || got.Err == nil {
					t.Errorf("result = %+v, want a failure with reason panic", got)
				}
				well.Store(true)
				after(time.Second)
				wantCode(t, h, "/health", 200)
			})
		})
	}
}

func TestAWallClockJumpChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var jump atomic.Int64
		db := &dependency{}
		h := start(t, health.Config{
			Checks: []health.Check{db.check("database", health.Fails, health.Fails)},
			Now:    func() time.Time { return time.Now().Add(time.Duration(jump.Load())).Round(0) },
		})
		settle()
		for _, by := range []time.Duration{time.Hour, -time.Hour, 24 * 365 * time.Hour} {
			jump.Store(int64(by))
			for range 30 {
				wantCode(t, h, "/health", 200)
				wantCode(t, h, "/health/ready", 200)
				after(100 * time.Millisecond)
			}
		}
	})
}

func TestRunEndsAlthoughACheckHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h, err := health.New(health.Config{Checks: []health.Check{{Name: "x", Run: func(context.Context) (health.Observation, error) {
			<-release
			return health.Observation{}, nil
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		synctest.Wait()
		if err := h.Run(ctx); !errors.Is(err, health.ErrRunning) {
			t.Errorf("second Run = %v, want ErrRunning", err)
		}
		stop()
		begun := time.Now()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("Run took %v to end, want at most its timeout", took)
		}
		close(release)
	})
}

func TestConfigReportsEveryFault(t *testing.T) {
	ok := func(context.Context) (health.Observation, error) { return health.Observation{}, nil }
	_, err := health.New(health.Config{
		Interval: -1, Timeout: -1, StaleAfter: -5, FailAfter: -1, PassAfter: -1,
		Checks: []health.Check{{Run: ok}, {Name: "a"}, {Name: "b", Run: ok}, {Name: "b", Measurement: "responseTime", Run: ok}},
	})
	want := `Interval: must be positive
Timeout: must be positive
FailAfter: must be positive
PassAfter: must be positive
StaleAfter: must be at least Interval and Timeout together
Checks[0].Name: is required
Checks[1].Run: is required
Checks[3]: has the name and measurement of another check`
	if err == nil || err.Error() != want {
		t.Errorf("New = %v\nwant %s", err, want)
	}
	if err := (health.Config{}).Validate(); err != nil {
		t.Errorf("the zero Config is refused: %v", err)
	}
}

package ratelimit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// flaky is a shared store that fails when told to, and counts who asks.
type flaky struct {
	*Memory
	down      atomic.Bool
	asks      atomic.Int64
	beats     atomic.Int64
	instances int
	failEvery int64
}

var errDown = errors.New("down")

func newFlaky(t *testing.T) *flaky {
	t.Helper()
	m, err := NewMemory(MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return &flaky{Memory: m, instances: 4}
}

func (f *flaky) fails() error {
	n := f.asks.Add(1)
	if f.down.Load() || f.failEvery > 0 && n%f.failEvery == 0 {
		return errDown
	}
	return nil
}

func (f *flaky) Take(ctx context.Context, charges []Charge) (Decision, error) {
	if err := f.fails(); err != nil {
		return Decision{}, err
	}
	return f.Memory.Take(ctx, charges)
}

func (f *flaky) Peek(ctx context.Context, charges []Charge) (Decision, error) {
	if err := f.fails(); err != nil {
		return Decision{}, err
	}
	return f.Memory.Peek(ctx, charges)
}

func (f *flaky) Beat(context.Context) (int, error) {
	f.beats.Add(1)
	if f.down.Load() {
		return 0, errDown
	}
	return f.instances, nil
}

func TestFiveFailuresInASecondStopTheAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(t)
		l := limiter(t, Config{Store: f}, nil)
		f.down.Store(true)
		admissions(t, l, Caller{User: "u"}, 50)
		if got := f.asks.Load(); got != 5 {
			t.Errorf("the store was asked %d times, want 5", got)
		}
		for range 3 { // without Run one request a second asks
			time.Sleep(time.Second)
			before := f.asks.Load()
			admissions(t, l, Caller{User: "u"}, 50)
			if got := f.asks.Load() - before; got != 1 {
				t.Errorf("the store was asked %d times in a second, want once", got)
			}
		}
		f.down.Store(false)
		time.Sleep(time.Second)
		if d, err := l.Allow(t.Context(), Caller{User: "v"}); err != nil || d.Mode != Shared || l.Status().Mode != Shared {
			t.Errorf("after the store's return: %v, %v, status %v", d.Mode, err, l.Status())
		}
	})
}

func TestFourFailuresASecondAreBorne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(t)
		l := limiter(t, Config{Store: f}, nil)
		f.down.Store(true)
		for range 40 {
			admissions(t, l, Caller{User: "u"}, 1)
			time.Sleep(251 * time.Millisecond)
		}
		if got := f.asks.Load(); got != 40 {
			t.Errorf("the store was asked %d times, want all 40", got)
		}
	})
}

func TestBeatsThatFailStopTheAskingOfFewRequestsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(t)
		l := limiter(t, Config{Store: f}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		f.down.Store(true)
		for range 10 {
			time.Sleep(700 * time.Millisecond)
			synctest.Wait()
			admissions(t, l, Caller{User: "u"}, 1)
		}
		if got := f.asks.Load(); got > 2 {
			t.Errorf("the store was asked %d times, want 2 at most: two beats had failed", got)
		}
		cancel()
		<-done
	})
}

func TestWithRunNoRequestAsksAFailingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(t)
		l := limiter(t, Config{Store: f, Instances: 2}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		if s := l.Status(); s.Instances != 4 || s.Mode != Shared || s.Err != nil {
			t.Errorf("status = %+v", s)
		}
		f.down.Store(true)
		if got := admissions(t, l, Caller{User: "u"}, 100); got != 25 {
			t.Errorf("%d were admitted, want 100 by 4 counted instances", got)
		}
		asked := f.asks.Load()
		for range 10 {
			time.Sleep(time.Second)
			admissions(t, l, Caller{User: "u"}, 10)
		}
		if got := f.asks.Load() - asked; got != 0 {
			t.Errorf("%d requests asked, want none", got)
		}
		f.down.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if d, err := l.Allow(t.Context(), Caller{User: "v"}); err != nil || d.Mode != Shared {
			t.Errorf("a second after the return: %v, %v", d.Mode, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// TestAnOutageGrantsAtMostTheLimitOnceMore is requirements 2.4: before and after the switch together
// four instances admit 2N at most, and none has a fresh budget.
func TestAnOutageGrantsAtMostTheLimitOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlaky(t)
		instances := make([]*Limiter, 4)
		for i := range instances {
			instances[i] = limiter(t, Config{Store: f, Instances: 4}, nil)
		}
		u := Caller{User: "u"}
		if got := admissions(t, instances[0], u, 60); got != 60 {
			t.Fatalf("%d before the outage", got)
		}
		admissions(t, instances[1], u, 10)
		f.down.Store(true)
		for i, want := range []int{0, 15, 25, 25} {
			if got := admissions(t, instances[i], u, 100); got != want {
				t.Errorf("instance %d admitted %d in the outage, want %d", i, got, want)
			}
		}
	})
}

func TestALookIsNotAnAdmissionInTheLocalLog(t *testing.T) {
	f := newFlaky(t)
	l := limiter(t, Config{Store: f, Instances: 4}, nil)
	for range 200 {
		if d, err := l.Peek(t.Context(), home); err != nil || !d.Allowed {
			t.Fatalf("Peek = %v, %v", d.Allowed, err)
		}
	}
	f.down.Store(true)
	if got := admissions(t, l, Caller{Addr: home}, 100); got != 25 {
		t.Errorf("%d were admitted after looks alone, want 25", got)
	}
}

func TestAnOutageIsLoggedOnceAndReadable(t *testing.T) {
	for failure, mode := range map[Failure]Mode{FallLocal: Local, Refuse: Closed, Allow: Open} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			f := newFlaky(t)
			l := limiter(t, Config{Store: f, OnStoreFailure: failure, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil)
			f.down.Store(true)
			began := time.Now()
			for range 30 {
				_, err := l.Allow(t.Context(), Caller{User: "u"})
				if (err != nil) != (failure == Refuse) {
					t.Errorf("%v: Allow fails with %v", mode, err)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if s := l.Status(); s.Mode != mode || !s.Since.Equal(began) || !errors.Is(s.Err, errDown) {
				t.Errorf("status = %+v", s)
			}
			f.down.Store(false)
			time.Sleep(time.Second)
			admissions(t, l, Caller{User: "u"}, 3)
			if s := l.Status(); s != (Status{Instances: 1}) {
				t.Errorf("status after it = %+v", s)
			}
			if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "mode="+mode.String()) || !strings.Contains(text, "is back") {
				t.Errorf("log:\n%s", text)
			}
		})
	}
}

func TestAStoreThatFailsNowAndThenIsNotDeclaredWellEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := newFlaky(t)
		f.failEvery = 10
		l := limiter(t, Config{Store: f, PerUser: Rate{10_000, time.Minute}, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil)
		for range 400 {
			admissions(t, l, Caller{User: "u"}, 1)
			time.Sleep(30 * time.Millisecond)
		}
		if got := strings.Count(log.String(), "\n"); got != 1 {
			t.Errorf("%d lines:\n%s", got, log.String())
		}
	})
}

func TestARefusalForWantOfTheStoreIsSeen(t *testing.T) {
	f := newFlaky(t)
	f.down.Store(true)
	var seen []Decision
	l := limiter(t, Config{Store: f, OnStoreFailure: Refuse, Seen: func(_ *http.Request, d Decision) { seen = append(seen, d) }}, nil)
	w := httptest.NewRecorder()
	if l.Admit(w, httptest.NewRequest("GET", "/", nil), Caller{User: "u"}) || w.Code != http.StatusServiceUnavailable {
		t.Errorf("admitted, or answered %d; want 503", w.Code)
	}
	if len(seen) != 1 || seen[0].Allowed || seen[0].Mode != Closed {
		t.Errorf("seen = %+v, want one decision of a closed limiter", seen)
	}
}

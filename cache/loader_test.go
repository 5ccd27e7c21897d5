package cache_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/cache"
)

// source is what a Loader loads from. A load takes as long as the test says, or, when there is a gate,
// until the test opens it; the answer is fixed when the load begins.
type source struct {
	mu      sync.Mutex
	value   string
	err     error
	takes   time.Duration
	gate    chan struct{}
	deaf    bool // ignores its context
	loads   atomic.Int64
	contxts []context.Context
}

func (s *source) set(value string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.err = value, err
}

func (s *source) load(ctx context.Context, key string) (string, error) {
	s.loads.Add(1)
	s.mu.Lock()
	value, err, takes, gate := s.value, s.err, s.takes, s.gate
	s.contxts = append(s.contxts, ctx)
	s.mu.Unlock()
	over := ctx.Done()
	if s.deaf {
		over = nil
	}
	if gate == nil && takes > 0 {
		select {
		case <-time.After(takes):
		case <-over:
			return "", ctx.Err()
		}
	}
	if gate != nil {
		select {
		case <-gate:
		case <-over:
			return "", ctx.Err()
		}
	}
	return value, err
}

func newLoader(t *testing.T, s *source, cfg cache.Config) *cache.Loader[string, string] {
	t.Helper()
	l, err := cache.NewLoader(s.load, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantGet(t *testing.T, l *cache.Loader[string, string], want string, wantErr error) {
	t.Helper()
	got, err := l.Get(t.Context(), "k")
	if got != want || !errors.Is(err, wantErr) {
		t.Errorf("Get = %q, %v; want %q, %v", got, err, want, wantErr)
	}
}

func wantLoads(t *testing.T, s *source, want int64) {
	t.Helper()
	if got := s.loads.Load(); got != want {
		t.Errorf("loads = %d, want %d", got, want)
	}
}

var (
	errAbsent = errors.New("no such user")
	errBroken = errors.New("connection reset")
)

func isAbsent(err error) bool { return errors.Is(err, errAbsent) }

func TestAThousandConcurrentMissesAreOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "v", takes: time.Second}
		l := newLoader(t, s, cache.Config{})
		for range 1000 {
			go wantGet(t, l, "v", nil)
		}
		time.Sleep(2 * time.Second)
		wantGet(t, l, "v", nil)
		wantLoads(t, s, 1)
	})
}

func TestAThousandConcurrentMissesAreOneLoadInRealTime(t *testing.T) {
	s := &source{value: "v"} // answers at once, so that landing and joining meet
	l := newLoader(t, s, cache.Config{})
	for round := range int64(200) {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { wantGet(t, l, "v", nil) })
		}
		all.Wait()
		wantLoads(t, s, round+1)
		l.Invalidate(t.Context(), "k")
	}
}

func TestCancellingTheFirstCallerFailsOnlyIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "v", takes: time.Second}
		l := newLoader(t, s, cache.Config{})
		first, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := l.Get(first, "k")
			failed <- err
		}()
		synctest.Wait()
		var others sync.WaitGroup
		for range 10 {
			others.Go(func() { wantGet(t, l, "v", nil) })
		}
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled caller got %v, want context.Canceled", err)
		}
		others.Wait()
		wantLoads(t, s, 1)
	})
}

func TestALoadThatEverybodyLeftIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "v", takes: time.Second}
		l := newLoader(t, s, cache.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := l.Get(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get = %v, want DeadlineExceeded", err)
		}
		time.Sleep(2 * time.Second)
		wantGet(t, l, "v", nil)
		wantLoads(t, s, 1)
	})
}

func TestAnEndedCallerBeginsNoLoad(t *testing.T) {
	s := &source{value: "v"}
	l := newLoader(t, s, cache.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Get(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v, want context.Canceled", err)
	}
	wantLoads(t, s, 0)
}

type traceKey struct{}

func TestALoadKeepsTheValuesOfItsContextAndHasATimeoutOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "v"}
		l := newLoader(t, s, cache.Config{Timeout: 3 * time.Second})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), traceKey{}, "t1"), time.Hour)
		defer cancel()
		if _, err := l.Get(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		got := s.contxts[0]
		if got.Value(traceKey{}) != "t1" {
			t.Error("the load lost the values of the context")
		}
		if at, ok := got.Deadline(); !ok || time.Until(at) != 3*time.Second {
			t.Errorf("deadline of the load in %v, want 3s", time.Until(at))
		}
	})
}

func TestALoadThatIgnoresItsContextIsLeftBehindAndItsAnswerDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &source{value: "old", gate: gate, deaf: true}
		l := newLoader(t, s, cache.Config{Timeout: time.Second, MaxLoads: 2})
		begun := time.Now()
		wantGet(t, l, "", cache.ErrTimeout)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("waited %v, want the timeout of 1s", took)
		}
		wantGet(t, l, "", cache.ErrTimeout) // a second load
		wantGet(t, l, "", cache.ErrBusy)    // no third
		wantLoads(t, s, 2)
		close(gate)
		synctest.Wait()
		s.mu.Lock()
		s.gate, s.value = nil, "new"
		s.mu.Unlock()
		wantGet(t, l, "new", nil)
	})
}

func TestALoadThatObeysItsTimeoutSaysErrTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{takes: time.Hour}
		l := newLoader(t, s, cache.Config{})
		wantGet(t, l, "", cache.ErrTimeout)
	})
}

func TestAfterInvalidateNobodyJoinsTheOldLoadAndItIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := make(chan struct{})
		s := &source{value: "old", gate: old}
		l := newLoader(t, s, cache.Config{})
		var all sync.WaitGroup
		all.Go(func() { wantGet(t, l, "old", nil) })
		synctest.Wait()

		s.mu.Lock()
		s.value, s.gate = "new", nil
		s.mu.Unlock()
		l.Invalidate(t.Context(), "k")
		wantGet(t, l, "new", nil) // does not wait for the old load
		close(old)                // which lands last
		all.Wait()
		wantGet(t, l, "new", nil)
		wantLoads(t, s, 2)
	})
}

func TestAfterInvalidateARefreshUnderWayIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "old"}
		l := newLoader(t, s, cache.Config{TTL: time.Minute, Stale: time.Hour})
		wantGet(t, l, "old", nil)
		time.Sleep(2 * time.Minute)
		old := make(chan struct{})
		s.mu.Lock()
		s.gate = old
		s.mu.Unlock()
		wantGet(t, l, "old", nil) // stale, begins a refresh
		synctest.Wait()
		s.mu.Lock()
		s.value, s.gate = "new", nil
		s.mu.Unlock()
		l.Invalidate(t.Context(), "k")
		close(old)
		synctest.Wait()
		wantGet(t, l, "new", nil)
	})
}

func TestClearForgetsEverythingUnderWayToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := make(chan struct{})
		s := &source{value: "old"}
		l := newLoader(t, s, cache.Config{})
		if _, err := l.Get(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.gate = old
		s.mu.Unlock()
		go wantGet(t, l, "old", nil)
		synctest.Wait()
		l.Clear()
		close(old)
		synctest.Wait()
		s.set("new", nil)
		for _, key := range []string{"k", "other"} {
			if got, err := l.Get(t.Context(), key); got != "new" || err != nil {
				t.Errorf("Get(%s) = %q, %v; want new", key, got, err)
			}
		}
	})
}

func TestErrorsGoToThoseWhoWaitAndAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errBroken, takes: time.Second}
		l := newLoader(t, s, cache.Config{Absent: isAbsent})
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { wantGet(t, l, "", errBroken) })
		}
		all.Wait()
		wantLoads(t, s, 1)
		s.set("v", nil)
		wantGet(t, l, "v", nil)
	})
}

func TestAbsenceIsKeptForAShortTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: errAbsent}
		l := newLoader(t, s, cache.Config{Absent: isAbsent, AbsentTTL: 10 * time.Second, Stale: time.Hour})
		for range 5 {
			wantGet(t, l, "", errAbsent)
		}
		wantLoads(t, s, 1)
		s.set("v", nil)
		time.Sleep(12 * time.Second) // it is never given stale
		wantGet(t, l, "v", nil)
		s.set("", errAbsent)
		l.Invalidate(t.Context(), "k")
		wantGet(t, l, "", errAbsent)
	})
}

func TestStaleValuesAreGivenAtOnceAndRefreshedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "one"}
		l := newLoader(t, s, cache.Config{TTL: time.Minute, Stale: time.Minute})
		wantGet(t, l, "one", nil)
		s.mu.Lock()
		s.value, s.takes = "two", 2*time.Second // longer than the pause between refreshes
		s.mu.Unlock()
		time.Sleep(70 * time.Second)
		begun := time.Now()
		for range 100 {
			wantGet(t, l, "one", nil)
		}
		time.Sleep(1500 * time.Millisecond)
		wantGet(t, l, "one", nil)
		if took := time.Since(begun); took != 1500*time.Millisecond {
			t.Errorf("stale reads waited: %v", took)
		}
		time.Sleep(time.Second)
		wantGet(t, l, "two", nil)
		wantLoads(t, s, 2)
	})
}

func TestAFailingRefreshKeepsTheOldValueUntilItsEndAndIsTriedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "old"}
		l := newLoader(t, s, cache.Config{TTL: time.Minute, Stale: time.Minute})
		wantGet(t, l, "old", nil)
		s.set("", errBroken)
		time.Sleep(66*time.Second + time.Millisecond) // stale, whatever the spread
		for range 100 {                               // 10 seconds of an outage
			wantGet(t, l, "old", nil)
			time.Sleep(100 * time.Millisecond)
		}
		wantLoads(t, s, 1+10)
		time.Sleep(time.Minute)
		wantGet(t, l, "", errBroken)
	})
}

func TestWithoutStaleNothingOldIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		l := newLoader(t, s, cache.Config{TTL: time.Second})
		for i := range 50 {
			s.set(strconv.Itoa(i), nil)
			wantGet(t, l, strconv.Itoa(i), nil)
			time.Sleep(1100 * time.Millisecond)
		}
	})
}

func TestWhatWasLoadedTogetherExpiresSpreadOverAFifthOfTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, ttl = 1000, 100 * time.Second
		s := &source{value: "v"}
		l := newLoader(t, s, cache.Config{TTL: ttl})
		getAll := func() {
			for i := range keys {
				if _, err := l.Get(t.Context(), strconv.Itoa(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		getAll()
		time.Sleep(90*time.Second - 1)
		getAll()
		wantLoads(t, s, keys) // nothing expires before 90 % of the TTL
		for step := range 4 {
			before := s.loads.Load()
			time.Sleep(5 * time.Second)
			getAll()
			if got := s.loads.Load() - before; got < 150 || got > 350 {
				t.Errorf("step %d: %d of %d entries expired, want about a quarter", step, got, keys)
			}
		}
		if got := s.loads.Load(); got != 2*keys {
			t.Errorf("loads = %d, want every entry loaded twice", got)
		}
	})
}

func TestAPanickingLoadIsAnErrorForThoseWhoWait(t *testing.T) {
	for name, die := range map[string]func(){"panic": func() { panic("boom") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			l, err := cache.NewLoader(func(context.Context, string) (string, error) {
				die()
				return "v", nil
			}, cache.Config{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Get(t.Context(), "k"); err == nil {
				t.Error("Get = nil, want an error")
			}
			if err := l.Close(t.Context()); err != nil {
				t.Errorf("Close = %v, want nil", err)
			}
		})
	}
}

func TestEntriesAreBounded(t *testing.T) {
	s := &source{value: "v"}
	l := newLoader(t, s, cache.Config{MaxEntries: 100})
	for i := range 10_000 {
		if _, err := l.Get(t.Context(), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.Stats().Entries; got > 100 {
		t.Errorf("entries = %d, want at most 100", got)
	}
}

func TestCloseEndsLoadsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "kept"}
		l := newLoader(t, s, cache.Config{})
		wantGet(t, l, "kept", nil)
		s.takes = time.Hour
		got := make(chan error, 1)
		go func() {
			_, err := l.Get(t.Context(), "other")
			got <- err
		}()
		synctest.Wait()
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
		if err := <-got; !errors.Is(err, cache.ErrClosed) {
			t.Errorf("Get = %v, want ErrClosed", err)
		}
		if got := l.Stats().Running; got != 0 {
			t.Errorf("running = %d, want 0", got)
		}
		wantGet(t, l, "kept", nil)
		if _, err := l.Get(t.Context(), "new"); !errors.Is(err, cache.ErrClosed) {
			t.Errorf("Get = %v, want ErrClosed", err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("second Close = %v, want nil", err)
		}
	})
}

func TestCloseGivesUpOnADeafLoadWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &source{gate: gate, deaf: true}
		l := newLoader(t, s, cache.Config{})
		go wantGet(t, l, "", cache.ErrClosed)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v, want DeadlineExceeded", err)
		}
		close(gate)
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
	})
}

func TestKeysDoNotMeet(t *testing.T) {
	type key struct{ tenant, id string }
	l, err := cache.NewLoader(func(_ context.Context, k key) (string, error) { return k.tenant + "/" + k.id, nil }, cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, k := range []key{{"a", "1"}, {"b", "1"}, {"a", "2"}, {"a1", ""}, {"", "a1"}} {
			if got, err := l.Get(t.Context(), k); got != k.tenant+"/"+k.id || err != nil {
				t.Errorf("Get(%v) = %q, %v", k, got, err)
			}
		}
	}
}

func TestStatsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{value: "v"}
		l := newLoader(t, s, cache.Config{TTL: time.Minute, Stale: time.Minute})
		wantGet(t, l, "v", nil)
		wantGet(t, l, "v", nil)
		s.set("", errBroken)
		time.Sleep(70 * time.Second)
		wantGet(t, l, "v", nil)
		synctest.Wait()
		want := cache.Stats{Hits: 1, Stale: 1, Misses: 1, Loads: 2, Failures: 1, Entries: 1}
		if got := l.Stats(); got != want {
			t.Errorf("Stats = %+v, want %+v", got, want)
		}
	})
}

func TestLoaderConfigReportsEveryFault(t *testing.T) {
	_, err := cache.NewLoader((&source{}).load, cache.Config{TTL: -1, Stale: -1, AbsentTTL: -1, Timeout: -1, MaxEntries: -1, MaxLoads: -1})
	want := `TTL: must be positive
Stale: must not be negative
AbsentTTL: must be positive
Timeout: must be positive
MaxEntries: must be positive
MaxLoads: must be positive`
	if err == nil || err.Error() != want {
		t.Errorf("NewLoader = %v\nwant %s", err, want)
	}
}

func BenchmarkGetHit(b *testing.B) {
	s := &source{value: "v"}
	l, err := cache.NewLoader(s.load, cache.Config{TTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	if _, err := l.Get(ctx, "k"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = l.Get(ctx, "k")
		}
	})
}

func BenchmarkGetMiss(b *testing.B) {
	s := &source{value: "v"}
	l, err := cache.NewLoader(func(_ context.Context, _ int) (string, error) { return s.value, nil }, cache.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, _ = l.Get(b.Context(), i)
	}
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cache.NewLoader((&source{}).load, cache.Config{}); err != nil {
			b.Fatal(err)
		}
		if _, err := cache.NewMemory(cache.MemoryConfig{}); err != nil {
			b.Fatal(err)
		}
	}
}

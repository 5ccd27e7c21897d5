package identity

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The times of a key source. A set is trusted for softTTL from the fetch that brought it, never
// from its last use, so that a revoked key dies however busy it is.
const (
	softTTL    = time.Hour
	askEvery   = 30 * time.Second // between fetches on behalf of tokens, per issuer
	joinWait   = time.Second      // how long a request waits for such a fetch
	retryFirst = time.Second
	retryLast  = time.Minute
	retryFloor = 100 * time.Millisecond
)

// source holds one issuer's keys and keeps them fresh.
type source struct {
	issuer   Issuer
	now      func() time.Time
	maxStale time.Duration
	log      *slog.Logger
	fetcher  *fetcher // nil when the keys are static

	set   atomic.Pointer[keySet] // nil until the first fetch has succeeded
	fresh atomic.Int64           // the Unix nanosecond until which set needs no second thought

	mu       sync.Mutex
	flight   *flight
	asked    time.Time // when the last fetch on behalf of a token began
	failure  string    // the kind of the last fetch's error; "" after a success
	failures int       // in a row
	again    time.Duration
	absent   absent
	skipped  []skip // as last logged
	closed   bool
}

// flight is one fetch under way; whoever needs its result waits for done.
type flight struct {
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid once done is closed
}

// newSource returns the source of a validated issuer.
func newSource(issuer Issuer, cfg Config, client *http.Client) (*source, error) {
	s := &source{issuer: issuer, now: cfg.Now, maxStale: cfg.MaxStale, log: cfg.Logger}
	if issuer.Static == nil {
		s.fetcher = &fetcher{client: client, issuer: issuer, now: cfg.Now}
		return s, nil
	}
	set, err := parseStatic(issuer.Static, issuer.algorithms())
	if err != nil {
		return nil, err
	}
	s.set.Store(set)
	s.fresh.Store(math.MaxInt64)
	s.report(set.skipped, nil)
	return s, nil
}

// key returns the key named id. A known key of a fresh set costs nothing; otherwise one fetch per
// 30 seconds may be started, and only those who asked in its first second wait for it.
func (s *source) key(ctx context.Context, id string) (*key, error) {
	now := s.now()
	if k := s.set.Load().find(id); k != nil && now.UnixNano() < s.fresh.Load() {
		return k, nil
	}
	f := s.consult(ctx, id, now)
	answered := f != nil && f.await(ctx, joinWait-now.Sub(f.began))
	return s.settle(id, answered && f.err == nil)
}

// consult returns the fetch worth waiting for, and begins it if that is allowed; nil means that the
// answer must come from what is at hand.
func (s *source) consult(ctx context.Context, id string, now time.Time) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.set.Load()
	known := s.usable(set, now) && set.find(id) != nil
	if s.fetcher == nil || s.closed || (!known && s.absent.has(id, now)) {
		return nil
	}
	if s.flight == nil {
		if now.Sub(s.asked).Abs() < askEvery {
			return nil
		}
		s.asked = now // before the call, so that a slow or failing one counts too
		s.begin(ctx, now)
	}
	if known && s.failure != "" {
		return nil // the issuer is out: the old key is the best there is, and nobody waits
	}
	return s.flight
}

// settle answers from the set as it is now. looked says that a fetch has just succeeded for us.
func (s *source) settle(id string, looked bool) (*key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	set := s.set.Load()
	if !s.usable(set, now) {
		return nil, s.unavailable(now)
	}
	if k := set.find(id); k != nil {
		return k, nil
	}
	if s.failure != "" || (s.flight != nil && !looked && !s.absent.has(id, now)) {
		return nil, s.unavailable(now) // the key may well exist: we could not look
	}
	if looked {
		s.absent.add(id, now)
	}
	return nil, &Refusal{UnknownKey}
}

// usable says whether set may answer at all: static keys always, others up to the limit for stale
// ones.
func (s *source) usable(set *keySet, now time.Time) bool {
	return set != nil && (s.fetcher == nil || now.Sub(set.read) <= s.maxStale)
}

// unavailable says when the next request may cause a fetch.
func (s *source) unavailable(now time.Time) error {
	wait := askEvery - now.Sub(s.asked).Abs()
	return &Unavailable{Issuer: s.issuer.URL, RetryAfter: max(wait, time.Second)}
}

// await waits for the flight to end, and says whether it did.
func (f *flight) await(ctx context.Context, limit time.Duration) bool {
	timer := time.NewTimer(max(limit, 0))
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// refresh begins a fetch, or joins the one under way, and waits for its end or ctx's.
func (s *source) refresh(ctx context.Context) error {
	f := s.join(ctx)
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *source) join(ctx context.Context) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil && s.fetcher != nil && !s.closed {
		s.begin(ctx, s.now())
	}
	return s.flight
}

// begin starts the fetch that everybody shares; it outlives the request that caused it. Call with
// mu held.
func (s *source) begin(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(alone{context.WithoutCancel(ctx)}, fetchTimeout)
	f := &flight{began: now, cancel: cancel, done: make(chan struct{})}
	s.flight = f
	if s.failure != "" {
		s.extend(now)
	}
	go func() {
		defer cancel()
		set, skipped, again, err := s.fetcher.keys(ctx)
		s.land(f, set, again, err)
		s.report(skipped, err)
		close(f.done)
	}()
}

// alone is a context without values. A fetch is everybody's, and the request that began it may go on,
// and write into its own context, while the fetch still runs.
type alone struct{ context.Context }

// Value finds nothing.
func (alone) Value(any) any { return nil }

// land puts the outcome of a fetch in place.
func (s *source) land(f *flight, set *keySet, again time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight, f.err = nil, err
	if err != nil {
		s.failure = kindOf(err)
		s.failures++
		s.extend(s.now())
		return
	}
	old := s.set.Load()
	set.read = f.began
	set.inherit(old)
	s.set.Store(set)
	set.retire(old)
	s.fresh.Store(f.began.Add(min(softTTL, s.maxStale)).UnixNano())
	s.failure, s.failures, s.again = "", 0, again
	s.absent.clear()
}

// extend lets the old set be used a while longer without a second thought, up to the limit for
// stale keys: the issuer is out, and asking on each request would help nobody.
func (s *source) extend(now time.Time) {
	if set := s.set.Load(); set != nil {
		until := min(now.Add(askEvery).UnixNano(), set.read.Add(s.maxStale).UnixNano())
		s.fresh.Store(max(s.fresh.Load(), until))
	}
}

// run refreshes until ctx ends, and returns when nothing of it runs any more.
func (s *source) run(ctx context.Context) {
	defer s.close()
	if s.fetcher == nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		_ = s.refresh(ctx) // reported where it lands
		timer.Reset(s.pause())
	}
}

// pause returns the time until the next refresh: with jitter, so that instances which started
// together drift apart, and always within softTTL.
func (s *source) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures > 0 {
		ceiling := min(retryFirst<<min(s.failures-1, 10), retryLast)
		return retryFloor + rand.N(ceiling)
	}
	jittered := s.again - s.again/10 + rand.N(s.again/5+1)
	return min(jittered, softTTL-askEvery)
}

// close ends the fetch under way, if any, and allows no further one.
func (s *source) close() {
	s.mu.Lock()
	s.closed = true
	f := s.flight
	s.mu.Unlock()
	if f != nil {
		f.cancel()
		<-f.done
	}
}

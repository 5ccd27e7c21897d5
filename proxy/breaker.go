package proxy

import (
	"sync"
	"time"
)

// breaker gives a failing upstream time. It judges the last breakerSize events, not the last minute,
// so that quiet and busy upstreams are judged alike.
//
// Closed: at breakerTrip failures that are at least half of the events kept, it opens. Open: nothing
// passes for a pause of 5 s, doubled each time up to 60 s. Half-open: one request at a time tries;
// a success closes the breaker with a clean record, a failure opens it again.
type breaker struct {
	mu       sync.Mutex
	failed   [breakerSize]bool
	next     int
	count    int
	failures int
	until    time.Time // open until then; zero when closed
	pause    time.Duration
	trying   time.Time // when the half-open request was let through; zero for none
}

const (
	breakerSize  = 100
	breakerTrip  = 10
	breakerPause = 5 * time.Second
	breakerMax   = 60 * time.Second
)

func newBreaker() *breaker { return &breaker{pause: breakerPause} }

// allow says whether a request may pass now, or how long to wait.
func (b *breaker) allow(now time.Time) (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return 0, true
	}
	if wait := b.until.Sub(now); wait > 0 {
		return wait, false
	}
	if !b.trying.IsZero() && now.Sub(b.trying) < breakerPause {
		return time.Second, false
	}
	b.trying = now
	return 0, true
}

// record counts an event that is over.
func (b *breaker) record(now time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.until.IsZero() {
		b.settle(now, ok)
		return
	}
	b.push(!ok)
	if b.failures >= breakerTrip && 2*b.failures >= b.count {
		b.until = now.Add(b.pause)
	}
}

// settle ends a trial. Answers to requests from before the breaker opened do not count.
func (b *breaker) settle(now time.Time, ok bool) {
	if b.trying.IsZero() {
		return
	}
	pause := b.pause
	if ok {
		b.failed, b.next, b.count, b.failures = [breakerSize]bool{}, 0, 0, 0
		b.until, b.trying, b.pause = time.Time{}, time.Time{}, breakerPause
		return
	}
	b.pause = min(2*pause, breakerMax)
	b.until, b.trying = now.Add(b.pause), time.Time{}
}

// forget ends an event that says nothing of the upstream, such as a client that left.
func (b *breaker) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = time.Time{}
}

func (b *breaker) push(failed bool) {
	if b.count == breakerSize && b.failed[b.next] {
		b.failures--
	}
	b.failed[b.next] = failed
	b.next = (b.next + 1) % breakerSize
	b.count = min(b.count+1, breakerSize)
	if failed {
		b.failures++
	}
}

func (b *breaker) isOpen(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.until.IsZero() && now.Before(b.until)
}

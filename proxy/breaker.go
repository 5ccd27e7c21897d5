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
	epoch    uint64    // counts openings and closings
	until    time.Time // open until then; zero when closed
	pause    time.Duration
	trying   time.Time // when the half-open request was let through; zero for none
}

// pass is the leave to send one request, and the breaker hears by it how that went. What was let
// through before the breaker last opened or closed says nothing about now, and does not count.
type pass struct {
	epoch uint64
	trial time.Time // zero while the breaker is closed
}

const (
	breakerSize  = 100
	breakerTrip  = 10
	breakerPause = 5 * time.Second
	breakerMax   = 60 * time.Second
)

func newBreaker() *breaker { return &breaker{pause: breakerPause} }

// allow lets a request through, or says how long to wait.
func (b *breaker) allow(now time.Time) (pass, time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return pass{epoch: b.epoch}, 0, true
	}
	if wait := b.until.Sub(now); wait > 0 {
		return pass{}, wait, false
	}
	if !b.trying.IsZero() && now.Sub(b.trying) < breakerPause {
		return pass{}, time.Second, false
	}
	b.trying = now
	return pass{epoch: b.epoch, trial: now}, 0, true
}

// record counts how a request went, as soon as that is known: with the answer's headers, because a
// stream may take an hour. It returns the pass to spoil that answer by.
func (b *breaker) record(p pass, now time.Time, ok bool) pass {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case p.epoch != b.epoch:
		return p
	case !b.until.IsZero():
		b.settle(now, ok)
	default:
		b.push(!ok)
		b.judge(now)
	}
	return pass{epoch: b.epoch}
}

// settle ends a trial.
func (b *breaker) settle(now time.Time, ok bool) {
	b.epoch++
	b.trying = time.Time{}
	if !ok {
		b.pause = min(2*b.pause, breakerMax)
		b.until = now.Add(b.pause)
		return
	}
	b.failed, b.next, b.count, b.failures = [breakerSize]bool{}, 0, 0, 0
	b.until, b.pause = time.Time{}, breakerPause
	b.push(false)
}

// spoil turns an answer that was counted as good into a failure, because its body broke off. Which
// of the good ones it was does not matter.
func (b *breaker) spoil(p pass, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.epoch != b.epoch || !b.until.IsZero() {
		return
	}
	for i := range b.count {
		if at := (b.next + breakerSize - 1 - i) % breakerSize; !b.failed[at] {
			b.failed[at] = true
			b.failures++
			break
		}
	}
	b.judge(now)
}

// forget ends a request that says nothing of the upstream, such as one whose client left.
func (b *breaker) forget(p pass) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.epoch == b.epoch && p.trial.Equal(b.trying) {
		b.trying = time.Time{}
	}
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

func (b *breaker) judge(now time.Time) {
	if b.failures >= breakerTrip && 2*b.failures >= b.count {
		b.epoch++
		b.until = now.Add(b.pause)
	}
}

func (b *breaker) isOpen(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.until.IsZero() && now.Before(b.until)
}

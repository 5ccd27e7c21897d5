package rollout

import (
	"sync"
	"sync/atomic"
)

// Outcome is what came of one request.
type Outcome struct {
	Failed bool // 5xx, no answer, or none in time
	Slow   bool // no first byte of the answer within Plan.SlowAfter
	// Unreachable is that there was not even a connection (dial or TLS); it is Failed then, too.
	Unreachable bool
}

// Meter counts the requests of one epoch on one instance. All methods may be called at any time from
// any goroutine; Count does not allocate. It takes 160 KB, since each caller has a counter.
type Meter struct {
	epoch uint64
	sides [2]meterSide
}

// NewMeter returns a meter at zero. A new epoch takes a new meter; a request is counted in the
// meter that was current when it began.
func NewMeter(epoch uint64) *Meter { return &Meter{epoch: epoch} }

// Epoch is the epoch the meter was made for.
func (m *Meter) Epoch() uint64 { return m.epoch }

// Count adds a request of a caller to a version. caller is the bucket by [Buckets.Of].
func (m *Meter) Count(v Version, caller BasisPoints, o Outcome) {
	s := &m.sides[v&1]
	caller = min(max(caller, 0), All-1)
	s.requests.Add(1)
	if word, bit := &s.callers[caller/32], uint32(1)<<(caller%32); word.Load()&bit == 0 {
		word.Or(bit)
	}
	if o.Slow {
		s.slow[caller].Add(1)
	}
	if o.Failed || o.Unreachable {
		s.failed[caller].Add(1)
		s.run.extend(caller, o.Unreachable)
	} else {
		s.run.end()
	}
}

// Counts is what a version has come to so far.
func (m *Meter) Counts(v Version) Counts {
	s := &m.sides[v&1]
	// The failures before the requests: so that there are never more of them.
	c := Counts{Failed: tally(&s.failed), Slow: tally(&s.slow), Streak: s.run.longestSoFar()}
	c.Requests = s.requests.Load()
	for i := range s.callers {
		word := s.callers[i].Load()
		c.Callers = append(c.Callers, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	c.Callers = c.Callers.trim()
	return c
}

type meterSide struct {
	requests     atomic.Int64
	run          run
	callers      [(All + 31) / 32]atomic.Uint32
	failed, slow [All]atomic.Uint32
}

func tally(counters *[All]atomic.Uint32) Tally {
	var t Tally
	for caller := range counters {
		if n := counters[caller].Load(); n > 0 {
			if t == nil {
				t = make(Tally)
			}
			t[BasisPoints(caller)] = int64(n)
		}
	}
	return t
}

// run is the failures since the last answer that was fine.
type run struct {
	open atomic.Bool // so that a fine answer need not lock

	mu       sync.Mutex
	now      Streak
	longest  Streak
	callers  [8]BasisPoints // the first of the run
	failures [8]int         // of each
	n        int            // how many of the two are in use
}

// runCap is how many failures of one caller count in a run.
const runCap = 2

func (r *run) extend(caller BasisPoints, unreachable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open.Store(true)
	if r.times(caller) <= runCap {
		r.now.Failures++
	}
	r.now.Unreachable++
	if !unreachable {
		r.now.Unreachable = 0
	}
	r.longest = r.longest.worse(r.now)
}

// times is the how manieth failure of the caller this is in the run. Callers beyond the first eight are
// not remembered; there is no doubt about such a run anyway.
func (r *run) times(caller BasisPoints) int {
	for i := range r.n {
		if r.callers[i] == caller {
			r.failures[i]++
			return r.failures[i]
		}
	}
	if r.n < len(r.callers) {
		r.callers[r.n], r.failures[r.n] = caller, 1
		r.n++
	}
	return 1
}

func (r *run) end() {
	if !r.open.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open.Store(false)
	r.now, r.n = Streak{}, 0
}

func (r *run) longestSoFar() Streak {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.longest
}

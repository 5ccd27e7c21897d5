package telemetry

import (
	"sync"
	"sync/atomic"
	"time"
)

// What the history keeps: slots of 5 s for 15 min, and slots of 5 min for a day. One slot more of each
// kind is there for the end of the span that lies inside a slot, and one for the present.
const (
	fineSlot    = 5 * time.Second
	fineSpan    = 15 * time.Minute
	coarseSlot  = 5 * time.Minute
	coarseSpan  = 24 * time.Hour
	fineSlots   = int64(fineSpan/fineSlot) + 2
	coarseSlots = int64(coarseSpan/coarseSlot) + 2
	finePerSlot = int64(coarseSlot / fineSlot)
)

// Sample is what happened between two times.
type Sample struct {
	From, To time.Time
	// Requests were answered. Errors are those answered 5xx, RateLimited 429, Timeouts 504 and Panics the
	// ones whose handler panicked.
	Requests, Errors, RateLimited, Timeouts, Panics uint64
	// TokenRefusals are requests whose token was refused, whatever they were answered.
	TokenRefusals uint64
	// RolledBack and Held count rollouts; Lost counts spans, events and alerts that could not be delivered.
	RolledBack, Held, Lost uint64
	// Latency is from the request's headers to the whole answer; of a stream, to its first byte.
	Latency Buckets
	// Health is the worst that /health said, 200 or 503; 0 when nobody looked.
	Health int
	// PoolUsed is the most database connections that were in use, PoolMax how many there may be; 0 when
	// nobody looked.
	PoolUsed, PoolMax float64
	// InFlight is the most requests that were seen under way.
	InFlight uint64
}

// merge adds what happened in other, which may be at any other time.
func (s *Sample) merge(other *Sample) {
	s.Requests += other.Requests
	s.Errors += other.Errors
	s.RateLimited += other.RateLimited
	s.Timeouts += other.Timeouts
	s.Panics += other.Panics
	s.TokenRefusals += other.TokenRefusals
	s.RolledBack += other.RolledBack
	s.Held += other.Held
	s.Lost += other.Lost
	if other.Requests > 0 {
		s.Latency.Add(&other.Latency)
	}
	s.Health = max(s.Health, other.Health) // 503 is above 200
	s.PoolUsed = max(s.PoolUsed, other.PoolUsed)
	s.PoolMax = max(s.PoolMax, other.PoolMax)
	s.InFlight = max(s.InFlight, other.InFlight)
}

// History remembers a day, the last 15 minutes of it in slots of 5 s and the rest in slots of 5 min. It
// takes half a MiB (see TestHistoryTakesHalfAMiB), all of it from the start.
//
// Recording is a few atomic additions and reads no clock; callers say what time it is. Times are compared by
// the monotonic clock where they have one, so a jump of the wall clock moves nothing.
type History struct {
	origin time.Time // when the first slot of both kinds begins, in which the history does

	fine [fineSlots]slot

	mu     sync.Mutex // for reading, and for giving a slot to another time
	coarse [coarseSlots]coarse
}

// slot is what is being recorded. It holds the same as a Sample.
type slot struct {
	number  atomic.Int64 // which one since the origin, from 1; 0 is none
	counts  [events]atomic.Uint32
	latency [classes]atomic.Uint32
	highest [gauges]atomic.Int64
}

// coarse is what slots held before they were given to another time.
type coarse struct {
	number int64 // as in slot
	Sample
}

type event int

// The events of a slot. All but requests are recorded one by one.
const (
	requests event = iota
	serverErrors
	rateLimited
	timeouts
	panics
	tokensRefused
	rolledBack
	held
	lost
	events
)

// The gauges of a slot, of each the highest.
const (
	healthStatus = iota
	poolUsed
	poolMax
	inFlight
	gauges
)

// NewHistory begins at start.
func NewHistory(start time.Time) *History {
	into := time.Duration(start.UnixNano() % int64(coarseSlot))
	return &History{origin: start.Add(-into)}
}

func (h *History) answered(a *Answer) {
	s := h.at(a.At)
	s.latency[classOf(a.Duration)].Add(1)
	s.counts[requests].Add(1)
	switch {
	case a.Status == 429:
		s.counts[rateLimited].Add(1)
	case a.Status >= 500:
		s.counts[serverErrors].Add(1)
		if a.Status == 504 {
			s.counts[timeouts].Add(1)
		}
		if a.Panicked {
			s.counts[panics].Add(1)
		}
	}
}

// count records events that are no answers.
func (h *History) count(e event, at time.Time, n uint32) { h.at(at).counts[e].Add(n) }

// gauge records what was seen at a time.
func (h *History) gauge(at time.Time, seen *[gauges]int64) {
	s := h.at(at)
	for i, value := range seen {
		raise(&s.highest[i], value)
	}
}

func raise(v *atomic.Int64, to int64) {
	for old := v.Load(); old < to; old = v.Load() {
		if v.CompareAndSwap(old, to) {
			return
		}
	}
}

// number is that of the fine slot which at lies in.
func (h *History) number(at time.Time) int64 { return max(0, int64(at.Sub(h.origin)/fineSlot)) + 1 }

// at returns the slot of a time.
func (h *History) at(at time.Time) *slot {
	n := h.number(at)
	s := &h.fine[n%fineSlots]
	if s.number.Load() < n {
		h.turn(s, n)
	}
	return s
}

// turn gives a slot to the time with the number n, and moves what it held to the coarse ones. Whoever still
// records in it meanwhile is counted, if in a later slot.
func (h *History) turn(s *slot, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := s.number.Load()
	if old >= n {
		return
	}
	if past := s.take(); old > 0 {
		h.coarseOf(old).merge(&past)
	}
	s.number.Store(n)
}

// coarseOf returns the sample of 5 min that a fine slot belongs to. The caller holds mu.
func (h *History) coarseOf(fine int64) *Sample {
	n := (fine-1)/finePerSlot + 1
	c := &h.coarse[n%coarseSlots]
	if c.number != n {
		*c = coarse{number: n}
	}
	return &c.Sample
}

// take empties the slot.
func (s *slot) take() Sample {
	return s.read(func(v *atomic.Uint32) uint32 { return v.Swap(0) }, func(v *atomic.Int64) int64 { return v.Swap(0) })
}

// load reads the slot.
func (s *slot) load() Sample {
	return s.read((*atomic.Uint32).Load, (*atomic.Int64).Load)
}

func (s *slot) read(count func(*atomic.Uint32) uint32, gauge func(*atomic.Int64) int64) Sample {
	n := func(e event) uint64 { return uint64(count(&s.counts[e])) }
	sample := Sample{
		Requests: n(requests), Errors: n(serverErrors), RateLimited: n(rateLimited), Timeouts: n(timeouts), Panics: n(panics),
		TokenRefusals: n(tokensRefused), RolledBack: n(rolledBack), Held: n(held), Lost: n(lost),
		Health: int(gauge(&s.highest[healthStatus])), InFlight: uint64(gauge(&s.highest[inFlight])),
		PoolUsed: float64(gauge(&s.highest[poolUsed])), PoolMax: float64(gauge(&s.highest[poolMax])),
	}
	if sample.Requests > 0 {
		for i := range s.latency {
			sample.Latency.counts[i] = uint64(count(&s.latency[i]))
		}
	}
	return sample
}

// Over returns all that happened in the window that ends at now. Up to 15 min the window begins with the slot
// of 5 s in which its beginning lies; beyond that at the nearest full 5 min. A day is the most.
func (h *History) Over(window time.Duration, now time.Time) Sample {
	first, last := h.number(now.Add(-min(window, coarseSpan))), h.number(now)
	if step := stepOf(window); step > 1 {
		first = (first-1+step/2)/step*step + 1
	}
	total := Sample{From: h.start(first), To: now}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.each(first, last, func(_ int64, s *Sample) { total.merge(s) })
	return total
}

// Series returns the window that ends at now slot by slot, the oldest first: slots of 5 s up to 15 min, of
// 5 min beyond that. The last one is not over yet. A day is the most.
func (h *History) Series(window time.Duration, now time.Time) []Sample {
	step := stepOf(window)
	last := h.number(now)
	lastStep := (last - 1) / step
	n := max(1, int64(min(window, coarseSpan)/fineSlot)/step)
	series := make([]Sample, n)
	begin := (lastStep-n+1)*step + 1
	for i := range series {
		first := begin + int64(i)*step
		series[i].From, series[i].To = h.start(first), h.start(first+step)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.each(begin, last, func(number int64, s *Sample) { series[(number-begin)/step].merge(s) })
	return series
}

// each visits what the slots from first to last hold; coarse ones by the number of their first fine slot.
// The caller holds mu.
func (h *History) each(first, last int64, visit func(number int64, s *Sample)) {
	for i := range h.coarse {
		c := &h.coarse[i]
		if number := (c.number-1)*finePerSlot + 1; c.number > 0 && number >= first && number <= last {
			visit(number, &c.Sample)
		}
	}
	for i := range h.fine {
		if number := h.fine[i].number.Load(); number > 0 && number >= first && number <= last {
			s := h.fine[i].load()
			visit(number, &s)
		}
	}
}

// start is when a fine slot begins.
func (h *History) start(number int64) time.Time {
	return h.origin.Add(time.Duration(number-1) * fineSlot)
}

// stepOf is how many fine slots make one of the slots by which a window is told.
func stepOf(window time.Duration) int64 {
	if window <= fineSpan {
		return 1
	}
	return finePerSlot
}

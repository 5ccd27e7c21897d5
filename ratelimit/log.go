package ratelimit

import (
	"sort"
	"time"
	"unsafe"
)

// The rule of this file: a log is the exact record of admissions. For a rate of N in W only the
// N newest stamps matter: a request is admitted when the N-th newest has left the window. So a log
// keeps the newest stamps, as many and as long as the largest rate it was charged under needs.

// entry is the log of one key. Most keys of a flood are seen once, so one stamp lives here and a
// ring is made for the second.
type entry struct {
	hash   uint64
	newest int64  // nanoseconds on the store's clock
	ring   *ring  // all stamps, the newest too; nil while there is one
	next   uint32 // the following entry of the hash chain, see shard
	window uint32 // seconds a stamp is kept
}

// ring is a queue of stamps in order of time.
type ring struct {
	stamps  []int64
	head, n int32
	keep    int32 // how many stamps are ever needed: the largest limit seen
}

const (
	firstRing = 4 // stamps
	stampSize = 8
	ringSize  = int64(unsafe.Sizeof(ring{}))
)

// verdict is a log judged under one rate at one time.
type verdict struct {
	live   int   // stamps in the window
	oldest int64 // the oldest of them
	until  int64 // the one that must leave before another is admitted, when live >= limit
}

// judge counts e under r at now. It forgets stamps that no rate needs; it records nothing.
// A nil entry is an empty log.
func (e *entry) judge(r Rate, now int64) verdict {
	if e == nil {
		return verdict{}
	}
	cut := now - int64(r.Window)
	if e.newest <= cut {
		return verdict{}
	}
	if e.ring == nil {
		return verdict{live: 1, oldest: e.newest, until: e.newest}
	}
	q := e.ring
	q.trim(now - int64(max(r.Window, e.kept())))
	dead := q.countUpTo(cut)
	v := verdict{live: int(q.n - dead), oldest: q.at(dead)}
	if v.live >= r.Limit {
		v.until = q.at(q.n - int32(r.Limit))
	}
	return v
}

// kept is how long stamps are kept.
func (e *entry) kept() time.Duration { return time.Duration(e.window) * time.Second }

// idle says that nothing in the log is needed any more.
func (e *entry) idle(now int64) bool { return e.newest <= now-int64(e.kept()) }

// bytes is the memory of the log beyond the entry itself.
func (e *entry) bytes() int64 {
	if e.ring == nil {
		return 0
	}
	return ringSize + stampSize*int64(cap(e.ring.stamps))
}

// growth is an upper bound of what record would add to bytes.
func (e *entry) growth(r Rate) int64 {
	switch {
	case e.ring == nil:
		return ringSize + firstRing*stampSize
	case int(e.ring.n) < len(e.ring.stamps):
		return 0
	default:
		return stampSize * int64(e.ring.nextSize(max(e.ring.keep, int32(r.Limit)))-len(e.ring.stamps))
	}
}

// record adds an admission under r at now, whatever the rate says, and returns by how much bytes
// has changed. now is not before newest.
func (e *entry) record(r Rate, now int64) int64 {
	before := e.bytes()
	e.window = max(e.window, uint32(r.Window/time.Second))
	switch {
	case e.idle(now):
		e.ring = nil
		e.window = uint32(r.Window / time.Second)
	case e.ring == nil:
		e.ring = &ring{stamps: make([]int64, firstRing), n: 1, keep: int32(max(2, r.Limit))}
		e.ring.stamps[0] = e.newest
		e.ring.push(now)
	default:
		e.ring.keep = max(e.ring.keep, int32(r.Limit))
		e.ring.push(now)
	}
	e.newest = now
	return e.bytes() - before
}

// push appends a stamp, and forgets the oldest where more are kept than any rate needs.
func (q *ring) push(stamp int64) {
	if q.n >= q.keep {
		q.drop(q.n - q.keep + 1)
	}
	if int(q.n) == len(q.stamps) {
		q.grow()
	}
	i := q.head + q.n
	if int(i) >= len(q.stamps) {
		i -= int32(len(q.stamps))
	}
	q.stamps[i] = stamp
	q.n++
}

func (q *ring) grow() {
	bigger := make([]int64, q.nextSize(q.keep))
	n := copy(bigger, q.stamps[q.head:])
	copy(bigger[n:], q.stamps[:q.head])
	q.stamps, q.head = bigger, 0
}

// nextSize doubles, but never beyond what is needed.
func (q *ring) nextSize(keep int32) int {
	return max(len(q.stamps), min(2*len(q.stamps), int(keep)))
}

// at returns the i-th oldest stamp.
func (q *ring) at(i int32) int64 {
	i += q.head
	if int(i) >= len(q.stamps) {
		i -= int32(len(q.stamps))
	}
	return q.stamps[i]
}

func (q *ring) drop(k int32) {
	q.head += k
	if int(q.head) >= len(q.stamps) {
		q.head -= int32(len(q.stamps))
	}
	q.n -= k
}

// trim forgets the stamps at or before cut.
func (q *ring) trim(cut int64) { q.drop(q.countUpTo(cut)) }

// countUpTo counts the stamps at or before cut. Mostly there are none or few, so it looks at ever
// longer spans from the oldest: a log of ten thousand is never walked.
func (q *ring) countUpTo(cut int64) int32 {
	if q.n == 0 || q.at(0) > cut {
		return 0
	}
	low, high := int32(0), int32(1) // at(low) <= cut
	for high < q.n && q.at(high) <= cut {
		low, high = high, min(2*high, q.n)
	}
	return low + 1 + int32(sort.Search(int(high-low-1), func(i int) bool { return q.at(low+1+int32(i)) > cut }))
}

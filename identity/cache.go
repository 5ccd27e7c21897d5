package identity

import (
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// cacheShards divides the lock; a power of two.
const cacheShards = 32

// cache remembers verified tokens. An entry is found by a seeded hash and then compared as a whole
// token, so that a collision cannot hand one caller's principal to another. It answers only as long
// as verifying again would answer the same: the times hold, the key is still in its issuer's set,
// and that set is fresh.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[uint64]*entry
	oldest  *entry // the queue, from the oldest entry to the newest
	newest  *entry
	hand    *entry // where the next eviction starts looking
	bytes   int

	maxEntries, maxBytes int
}

// entry is one verified token.
type entry struct {
	hash      uint64
	token     string
	principal *Principal
	key       *key
	source    *source
	from      int64 // Unix nanoseconds: valid from here
	until     int64 // and before here
	size      int
	used      atomic.Bool // since the hand last passed
	older     *entry
	newer     *entry
}

// newCache returns a cache of about so many entries and bytes; nil, which is a cache that holds
// nothing, when there is no room for one entry a shard.
func newCache(entries, size int) *cache {
	if entries < cacheShards || size < cacheShards*maxToken {
		return nil
	}
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i] = shard{
			entries:    make(map[uint64]*entry),
			maxEntries: entries / cacheShards,
			maxBytes:   size / cacheShards,
		}
	}
	return c
}

// hashed is how many bytes at the end of a token choose its place: 192 bits of the signature, which
// nobody but the issuer can choose, at a tenth of the price of hashing it all.
const hashed = 32

func (c *cache) hash(token string) uint64 {
	return maphash.String(c.seed, token[max(0, len(token)-hashed):])
}

// get returns the principal of token if it would still verify at now.
func (c *cache) get(token string, now time.Time) (*Principal, bool) {
	if c == nil || len(token) > maxToken {
		return nil, false
	}
	hash := c.hash(token)
	s := &c.shards[hash%cacheShards]
	s.mu.RLock()
	e := s.entries[hash]
	s.mu.RUnlock()
	if e == nil || e.token != token || !e.alive(now.UnixNano()) {
		return nil, false
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.principal, true
}

// alive says whether verifying the token at now would still succeed without a fetch.
func (e *entry) alive(now int64) bool {
	return e.from <= now && now < e.until && now < e.source.fresh.Load() && !e.key.retired.Load()
}

// put remembers a verified token. The token is copied: as it came it would keep the whole header
// block of its request alive.
func (c *cache) put(token string, p *Principal, k *key, src *source, from, until time.Time) {
	if c == nil {
		return
	}
	e := &entry{
		hash: c.hash(token), token: strings.Clone(token), principal: p,
		key: k, source: src, from: nanos(from), until: nanos(until),
	}
	e.size = len(token) + p.size()
	c.shards[e.hash%cacheShards].put(e)
}

// sweep drops what can never answer again.
func (c *cache) sweep(now time.Time) {
	if c == nil {
		return
	}
	for i := range c.shards {
		c.shards[i].sweep(now.UnixNano())
	}
}

func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		c.shards[i].mu.RLock()
		n += len(c.shards[i].entries)
		c.shards[i].mu.RUnlock()
	}
	return n
}

func (s *shard) put(e *entry) {
	if e.size > s.maxBytes {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[e.hash]; old != nil {
		s.drop(old)
	}
	for len(s.entries) >= s.maxEntries || s.bytes+e.size > s.maxBytes {
		s.evict()
	}
	s.entries[e.hash] = e
	s.bytes += e.size
	e.older = s.newest
	if s.newest != nil {
		s.newest.newer = e
	} else {
		s.oldest = e
	}
	s.newest = e
}

// evict drops one entry by the SIEVE rule: the hand walks from old to new, spares once whatever was
// used since it last came by, and drops the first that was not. Unlike plain age this keeps busy
// callers through a flood of tokens that are seen once.
func (s *shard) evict() {
	e := s.hand
	if e == nil {
		e = s.oldest
	}
	// Bounded, because callers may mark entries as used while the hand goes round.
	for left := 2 * len(s.entries); left > 0 && e.used.Swap(false); left-- {
		if e = e.newer; e == nil {
			e = s.oldest
		}
	}
	s.hand = e.newer
	s.drop(e)
}

func (s *shard) drop(e *entry) {
	if s.hand == e {
		s.hand = e.newer
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	e.older, e.newer = nil, nil
	delete(s.entries, e.hash)
	s.bytes -= e.size
}

func (s *shard) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.oldest; e != nil; {
		next := e.newer
		if now >= e.until || e.key.retired.Load() {
			s.drop(e)
		}
		e = next
	}
}

// nanos is t in Unix nanoseconds, or the nearest that fits.
func nanos(t time.Time) int64 {
	const last = math.MaxInt64 / int64(time.Second)
	switch seconds := t.Unix(); {
	case seconds >= last:
		return math.MaxInt64
	case seconds <= -last:
		return math.MinInt64
	default:
		return t.UnixNano()
	}
}

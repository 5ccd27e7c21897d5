package identity

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCachedAnswersOnlyWhatVerifyWould(t *testing.T) {
	now := noon
	v := staticVerifier(t, Config{Now: func() time.Time { return now }})
	token := mint(t, noon, map[string]any{"nbf": noon.Unix() - 10})
	if _, ok := v.Cached(token); ok {
		t.Error("a token is known before it was verified")
	}
	want, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := v.Cached(token); !ok || got != want {
		t.Errorf("Cached = %p, %v, want %p", got, ok, want)
	}
	for _, near := range []string{token[:len(token)-1], token + "A", strings.ToLower(token), ""} {
		if _, ok := v.Cached(near); ok {
			t.Errorf("Cached(%.10s…, %d bytes) is known", near, len(near))
		}
	}
	for _, at := range []time.Duration{-10 * time.Second, -6 * time.Second, -5 * time.Second, 0, 64 * time.Second, 65*time.Second - 1, 65 * time.Second, time.Hour} {
		now = noon.Add(at)
		_, cached := v.Cached(token)
		_, err := v.Verify(t.Context(), token)
		if cached != (err == nil) {
			t.Errorf("at %v: cached %v, but Verify says %v", at, cached, err)
		}
	}
}

func TestRefusedTokensAreNotRemembered(t *testing.T) {
	v := staticVerifier(t, Config{Now: atNoon})
	for n := range 100 {
		token := mint(t, noon, map[string]any{"sub": "", "n": n})
		if _, err := v.Verify(t.Context(), token); err == nil {
			t.Fatal("a token without a subject verifies")
		}
	}
	if got := v.cache.len(); got != 0 {
		t.Errorf("%d entries, want none", got)
	}
}

// fill puts n entries into c that live until a minute after noon.
func fill(c *cache, n int, live bool) *key {
	k, src := &key{id: "k"}, &source{}
	src.fresh.Store(nanos(noon.Add(time.Hour)))
	until := noon.Add(time.Minute)
	if !live {
		until = noon
	}
	for i := range n {
		c.put(fmt.Sprintf("token-%d", i), &Principal{}, k, src, time.Time{}, until)
	}
	return k
}

func TestCacheIsBoundedByEntriesAndBytes(t *testing.T) {
	c := newCache(320, 64<<20)
	fill(c, 10_000, true)
	if got := c.len(); got != 320 {
		t.Errorf("%d entries, want 320", got)
	}
	c = newCache(1<<20, minBytes)
	fill(c, 10_000, true)
	total := 0
	for i := range c.shards {
		total += c.shards[i].bytes
	}
	if total > minBytes || c.len() == 0 {
		t.Errorf("%d bytes in %d entries, want at most %d", total, c.len(), minBytes)
	}
}

// A flood of tokens that are seen once must not push out those in use.
func TestBusyTokensSurviveAFlood(t *testing.T) {
	c := newCache(3200, 64<<20)
	k, src := &key{id: "k"}, &source{}
	src.fresh.Store(nanos(noon.Add(time.Hour)))
	for i := range 200 {
		c.put(fmt.Sprintf("busy-%d", i), &Principal{}, k, src, time.Time{}, noon.Add(time.Minute))
	}
	for i := range 20_000 {
		c.put(fmt.Sprintf("once-%d", i), &Principal{}, k, src, time.Time{}, noon.Add(time.Minute))
		c.get(fmt.Sprintf("busy-%d", i%200), noon)
	}
	for i := range 200 {
		if _, ok := c.get(fmt.Sprintf("busy-%d", i), noon); !ok {
			t.Fatalf("busy-%d is gone", i)
		}
	}
}

func TestEntriesDieWithTheirKeyAndTheirTime(t *testing.T) {
	c := newCache(1024, 1<<20)
	k := fill(c, 10, true)
	if _, ok := c.get("token-3", noon); !ok {
		t.Fatal("a live entry is not found")
	}
	if _, ok := c.get("token-3", noon.Add(time.Minute)); ok {
		t.Error("an entry is found at its end")
	}
	k.retired.Store(true)
	if _, ok := c.get("token-3", noon); ok {
		t.Error("an entry outlives its key")
	}
	c.sweep(noon)
	if got := c.len(); got != 0 {
		t.Errorf("%d entries after the sweep, want none", got)
	}
	fill(c, 10, false)
	c.sweep(noon)
	if got := c.len(); got != 0 {
		t.Errorf("%d expired entries after the sweep, want none", got)
	}
}

func TestEntriesRestWhileTheirSetIsInDoubt(t *testing.T) {
	c := newCache(1024, 1<<20)
	src := &source{}
	c.put("token", &Principal{}, &key{}, src, time.Time{}, noon.Add(time.Hour))
	for _, step := range []struct {
		fresh time.Duration
		want  bool
	}{{time.Minute, true}, {-time.Minute, false}, {0, false}, {time.Minute, true}} {
		src.fresh.Store(nanos(noon.Add(step.fresh)))
		if _, ok := c.get("token", noon); ok != step.want {
			t.Errorf("set fresh for %v: found %v, want %v", step.fresh, ok, step.want)
		}
	}
}

// The lists and the map of a shard stay one, whatever happens to it.
func TestCacheKeepsItsBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shard{entries: map[uint64]*entry{}, maxEntries: 5, maxBytes: 40}
		src := &source{}
		src.fresh.Store(nanos(noon))
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				s.put(&entry{
					hash: rapid.Uint64Range(0, 9).Draw(t, "hash"), size: rapid.IntRange(1, 45).Draw(t, "size"),
					until: rapid.Int64Range(0, 3).Draw(t, "until"), key: &key{}, source: src,
				})
			},
			"use": func(t *rapid.T) {
				if e := s.entries[rapid.Uint64Range(0, 9).Draw(t, "hash")]; e != nil {
					e.used.Store(true)
				}
			},
			"sweep": func(t *rapid.T) { s.sweep(rapid.Int64Range(0, 3).Draw(t, "now")) },
			"":      func(t *rapid.T) { checkShard(t, &s) },
		})
	})
}

func checkShard(t *rapid.T, s *shard) {
	count, bytes, handSeen := 0, 0, s.hand == nil
	var last *entry
	for e := s.oldest; e != nil; e = e.newer {
		if s.entries[e.hash] != e || e.older != last {
			t.Fatalf("entry %d is not where it should be", e.hash)
		}
		handSeen = handSeen || e == s.hand
		count, bytes, last = count+1, bytes+e.size, e
	}
	if count != len(s.entries) || bytes != s.bytes || s.newest != last || !handSeen {
		t.Fatalf("%d listed of %d, %d bytes of %d, hand in list: %v", count, len(s.entries), bytes, s.bytes, handSeen)
	}
	if count > s.maxEntries || bytes > s.maxBytes {
		t.Fatalf("%d entries, %d bytes: over the bound", count, bytes)
	}
}

func TestCacheIsSafeForManyGoroutines(t *testing.T) {
	c := newCache(64, 1<<20)
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for range 50 {
				fill(c, 100, true)
				c.get("token-7", noon)
				c.sweep(noon)
			}
		})
	}
	running.Wait()
}

func TestCachedAllocatesNothing(t *testing.T) {
	v := staticVerifier(t, Config{})
	token := mint(t, time.Now(), nil)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, func() { v.Cached(token) }); got != 0 {
		t.Errorf("a hit allocates %v times, want 0", got)
	}
}

func TestCacheCanBeSwitchedOff(t *testing.T) {
	v := staticVerifier(t, Config{CacheEntries: -1})
	token := mint(t, time.Now(), nil)
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if _, ok := v.Cached(token); ok {
		t.Error("a token is remembered without a cache")
	}
}

package users

import (
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"
)

// shardCount keeps readers of different keys out of each other's way.
const shardCount = 256

// shards is a map that every request reads, and that is written now and then.
type shards[K comparable, V any] struct {
	seed maphash.Seed
	name func(K) string // the part of a key that tells keys apart best
	size atomic.Int64
	room *atomic.Int64 // how many more entries there may be, shared between maps
	all  [shardCount]shard[K, V]
}

type shard[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
	_  [32]byte // a cache line each
}

func newShards[K comparable, V any](room *atomic.Int64, name func(K) string) *shards[K, V] {
	s := &shards[K, V]{seed: maphash.MakeSeed(), name: name, room: room}
	for i := range s.all {
		s.all[i].m = make(map[K]V)
	}
	return s
}

func (s *shards[K, V]) of(key K) *shard[K, V] {
	return &s.all[maphash.String(s.seed, s.name(key))%shardCount]
}

func (s *shards[K, V]) get(key K) (value V, ok bool) {
	if s.size.Load() == 0 {
		return value, false // as on most days
	}
	sh := s.of(key)
	sh.mu.RLock()
	value, ok = sh.m[key]
	sh.mu.RUnlock()
	return value, ok
}

// update replaces a key's value by what f makes of it. A new key for which there is no room is not
// stored, and update returns false.
func (s *shards[K, V]) update(key K, f func(old V, known bool) V) bool {
	sh := s.of(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old, known := sh.m[key]
	if !known && s.room.Add(-1) < 0 {
		s.room.Add(1)
		return false
	}
	if !known {
		s.size.Add(1)
	}
	sh.m[key] = f(old, known)
	return true
}

// prune drops every entry that f accepts.
func (s *shards[K, V]) prune(f func(V) bool) {
	for i := range s.all {
		sh := &s.all[i]
		sh.mu.Lock()
		before := len(sh.m)
		maps.DeleteFunc(sh.m, func(_ K, v V) bool { return f(v) })
		gone := int64(before - len(sh.m))
		s.room.Add(gone)
		s.size.Add(-gone)
		sh.mu.Unlock()
	}
}

func (s *shards[K, V]) len() int { return int(s.size.Load()) }

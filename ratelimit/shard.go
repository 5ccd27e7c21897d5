package ratelimit

import (
	"sync"
	"unsafe"
)

// The rule of this file: nothing here takes longer when there are more keys. Entries lie densely
// in chunks that are never copied; a removed entry is replaced by the last; expired ones are found
// by a hand that goes round a few steps at a time.

const (
	chunkBits = 5
	chunkSize = 1 << chunkBits
	firstHead = 16

	// keySize is what a key costs, its share of the index included.
	keySize = int64(unsafe.Sizeof(entry{})) + 8
)

type chunk [chunkSize]entry

// shard is one part of the keys, under one lock: a chained hash table with indexes for pointers.
type shard struct {
	mu     sync.Mutex
	heads  []uint32 // first entry of each chain, counted from 1; 0 is none. A power of two
	chunks []*chunk
	n      int // entries in use
	hand   int // where sweep goes on

	_ [48]byte // a cache line pair of its own: neighbours are other cores' work
}

func (s *shard) entry(i int) *entry { return &s.chunks[i>>chunkBits][i&(chunkSize-1)] }

func (s *shard) head(hash uint64) *uint32 { return &s.heads[hash&uint64(len(s.heads)-1)] }

// find returns the entry of hash, or nil.
func (s *shard) find(hash uint64) *entry {
	if s.n == 0 {
		return nil
	}
	for i := *s.head(hash); i != 0; {
		e := s.entry(int(i - 1))
		if e.hash == hash {
			return e
		}
		i = e.next
	}
	return nil
}

// insert adds an entry with no stamp; the caller records one.
func (s *shard) insert(hash uint64) *entry {
	if s.n >= len(s.heads) {
		s.rehash(max(firstHead, 2*len(s.heads)))
	}
	if s.n == len(s.chunks)*chunkSize {
		s.chunks = append(s.chunks, new(chunk))
	}
	e := s.entry(s.n)
	s.n++
	head := s.head(hash)
	*e = entry{hash: hash, next: *head}
	*head = uint32(s.n)
	return e
}

// remove takes out entry i and moves the last one into its place.
func (s *shard) remove(i int) {
	*s.link(i) = s.entry(i).next
	s.n--
	if i != s.n {
		link := s.link(s.n)
		*s.entry(i) = *s.entry(s.n)
		*link = uint32(i + 1)
	}
	*s.entry(s.n) = entry{}
	s.shrink()
}

// link returns what points at entry i in its chain.
func (s *shard) link(i int) *uint32 {
	at := s.head(s.entry(i).hash)
	for *at != uint32(i+1) {
		at = &s.entry(int(*at - 1)).next
	}
	return at
}

// shrink gives memory back, leaving some room so that a key that comes and goes costs nothing.
func (s *shard) shrink() {
	if spare := len(s.chunks) - (s.n/chunkSize + 2); spare > 0 {
		last := len(s.chunks) - 1
		s.chunks[last] = nil
		s.chunks = s.chunks[:last]
	}
	if len(s.heads) > firstHead && s.n < len(s.heads)/4 {
		s.rehash(len(s.heads) / 2)
	}
}

func (s *shard) rehash(size int) {
	s.heads = make([]uint32, size)
	for i := range s.n {
		e := s.entry(i)
		head := s.head(e.hash)
		e.next = *head
		*head = uint32(i + 1)
	}
}

// sweep looks at up to steps entries and removes those that are idle. It returns how many keys and
// bytes that freed.
func (s *shard) sweep(steps int, now int64) (keys, bytes int64) {
	for range min(steps, s.n) {
		if s.hand >= s.n {
			s.hand = 0
		}
		e := s.entry(s.hand)
		if !e.idle(now) {
			s.hand++
			continue
		}
		keys++
		bytes += keySize + e.bytes()
		s.remove(s.hand)
	}
	return keys, bytes
}

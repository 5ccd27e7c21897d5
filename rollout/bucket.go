package rollout

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
	"math/bits"
	"sync"
)

// Buckets puts callers into buckets by HMAC-SHA256 (RFC 2104) under the salt of a launch: evenly,
// always the same for one salt, and independent of any other salt, so that each launch tries its
// luck with other users. It may be used from any goroutine.
type Buckets struct {
	inner, outer []byte // the state of SHA-256 after each padded key
	hashers      sync.Pool
}

// hasher is what one computation needs; it is kept, so that there is no allocation.
type hasher struct {
	hash  hash.Hash
	state encoding.BinaryUnmarshaler
	buf   [sha256.BlockSize]byte
}

// NewBuckets returns the buckets of a salt of any length.
func NewBuckets(salt []byte) *Buckets {
	if len(salt) > sha256.BlockSize {
		sum := sha256.Sum256(salt)
		salt = sum[:]
	}
	return &Buckets{
		inner: padded(salt, 0x36), outer: padded(salt, 0x5c),
		hashers: sync.Pool{New: func() any {
			h := sha256.New()
			return &hasher{hash: h, state: h.(encoding.BinaryUnmarshaler)}
		}},
	}
}

func padded(key []byte, pad byte) []byte {
	var block [sha256.BlockSize]byte
	copy(block[:], key)
	for i := range block {
		block[i] ^= pad
	}
	h := sha256.New()
	h.Write(block[:])
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // the standard library has always been able to
	}
	return state
}

// Of is the bucket of a caller, 0 to 9999. key is what names the caller: its subject, else its
// cookie, else its address; callers of the same key share a fate.
func (b *Buckets) Of(key string) BasisPoints {
	// crypto/hmac would hash the keys anew or allocate; to put back the state takes neither.
	h := b.hashers.Get().(*hasher)
	sum := h.sum(b.inner, key)
	sum = h.sum(b.outer, string(sum))
	// The high word of a product spreads 2^64 values over the buckets as evenly as can be.
	bucket, _ := bits.Mul64(binary.BigEndian.Uint64(sum), uint64(All))
	b.hashers.Put(h)
	return BasisPoints(bucket)
}

// sum is the hash of a message after a state, in h.buf.
func (h *hasher) sum(state []byte, message string) []byte {
	if err := h.state.UnmarshalBinary(state); err != nil {
		panic(err) // it is one of our own
	}
	for len(message) > 0 {
		n := copy(h.buf[:], message)
		h.hash.Write(h.buf[:n])
		message = message[n:]
	}
	return h.hash.Sum(h.buf[:0])
}

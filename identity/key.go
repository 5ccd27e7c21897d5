package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"runtime"
	"sync/atomic"
	"time"
)

// key is one verification key and the only algorithm it may be used with.
type key struct {
	id     string
	alg    string
	public crypto.PublicKey
	// retired is set once the key has left its issuer's set; what it verified is no longer good.
	retired atomic.Bool
}

// equal says whether both are the same key under the same name.
func (k *key) equal(other *key) bool {
	public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.id == other.id && k.alg == other.alg && public.Equal(other.public)
}

// verify checks a signature over signed (RFC 7515 section 5.2). The processor is handed on first:
// a run of signature checks otherwise starves goroutines that have only a cached answer to give,
// and the slowest requests take ten times as long.
func (k *key) verify(signed string, signature []byte) bool {
	runtime.Gosched()
	if public, ok := k.public.(ed25519.PublicKey); ok {
		return ed25519.Verify(public, []byte(signed), signature) // RFC 8037 section 3.1
	}
	digest := sha256.Sum256([]byte(signed))
	switch public := k.public.(type) {
	case *rsa.PublicKey: // RFC 7518 section 3.3
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		return verifyES256(public, digest[:], signature)
	default:
		return false
	}
}

// verifyES256 takes r and s as two 32-byte numbers, never as ASN.1 (RFC 7518 section 3.4).
func verifyES256(public *ecdsa.PublicKey, digest, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	return ecdsa.Verify(public, digest, r, s)
}

// keySet is what an issuer's document held, and when it was read. It is replaced as a whole and
// never changed, so that a key which is gone is gone.
type keySet struct {
	keys map[string]*key
	any  *key // a key without an id, which answers for all of them (a PEM file)
	read time.Time
	// skipped are the static keys that are not used, to be logged once.
	skipped []skip
}

// find returns the key named id.
func (s *keySet) find(id string) *key {
	if s == nil {
		return nil
	}
	if s.any != nil {
		return s.any
	}
	return s.keys[id]
}

func (s *keySet) len() int {
	switch {
	case s == nil:
		return 0
	case s.any != nil:
		return 1
	default:
		return len(s.keys)
	}
}

// inherit takes over the keys of old that are unchanged, so that what they verified stays verified.
// Call retire on old once the new set is in place.
func (s *keySet) inherit(old *keySet) {
	if old == nil {
		return
	}
	for id, k := range s.keys {
		if before := old.keys[id]; before != nil && before.equal(k) {
			s.keys[id] = before
		}
	}
}

// retire marks the keys of old that are not in s.
func (s *keySet) retire(old *keySet) {
	if old == nil {
		return
	}
	for id, k := range old.keys {
		if s.keys[id] != k {
			k.retired.Store(true)
		}
	}
}

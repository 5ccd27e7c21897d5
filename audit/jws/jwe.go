package jws

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
)

// Encrypt wraps plaintext for a public key in compact form (RFC 7516 section 7.1), under A256GCM and RSA-OAEP-256 or
// RSA-OAEP for RSA, ECDH-ES for elliptic keys. The header's alg says which; its enc is set.
func Encrypt(public crypto.PublicKey, header map[string]any, plaintext []byte) (string, error) {
	header["enc"] = "A256GCM"
	var key, wrapped []byte
	var err error
	switch k := public.(type) {
	case *rsa.PublicKey:
		key, wrapped, err = wrapRSA(k, header["alg"])
	case *ecdsa.PublicKey:
		key, err = agree(k, header)
	default:
		err = fmt.Errorf("cannot encrypt to a key of type %T", public)
	}
	if err != nil {
		return "", err
	}
	protected, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	return seal(key, protected, wrapped, plaintext)
}

func seal(key, protected, wrapped, plaintext []byte) (string, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, gcm.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return "", err
	}
	sealed := gcm.Seal(nil, nonce, plaintext, []byte(Encode(protected)))
	body, tag := sealed[:len(plaintext)], sealed[len(plaintext):]
	return Encode(protected) + "." + Encode(wrapped) + "." + Encode(nonce) + "." + Encode(body) + "." + Encode(tag), nil
}

// wrapRSA makes a content key and encrypts it (RFC 7518 section 4.3).
func wrapRSA(public *rsa.PublicKey, alg any) (key, wrapped []byte, err error) {
	hashes := map[any]func() hash.Hash{"RSA-OAEP-256": sha256.New, "RSA-OAEP": sha1.New}
	if hashes[alg] == nil {
		return nil, nil, fmt.Errorf("unknown key encryption %v", alg)
	}
	key = make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, nil, err
	}
	wrapped, err = rsa.EncryptOAEP(hashes[alg](), rand.Reader, public, key, nil)
	return key, wrapped, err
}

// agree on a content key by ECDH-ES in direct mode (RFC 7518 section 4.6); the ephemeral key goes into the header.
func agree(public *ecdsa.PublicKey, header map[string]any) ([]byte, error) {
	theirs, err := public.ECDH()
	if err != nil {
		return nil, err
	}
	ours, err := theirs.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	header["epk"] = map[string]any{"kty": "EC", "crv": public.Curve.Params().Name}
	if err := setPoint(header["epk"].(map[string]any), ours.PublicKey()); err != nil {
		return nil, err
	}
	secret, err := ours.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	return concatKDF(secret, "A256GCM"), nil
}

func setPoint(jwk map[string]any, public *ecdh.PublicKey) error {
	point := public.Bytes()
	if len(point)%2 == 0 {
		return errors.New("the point is not in uncompressed form")
	}
	half := (len(point) - 1) / 2
	jwk["x"], jwk["y"] = Encode(point[1:1+half]), Encode(point[1+half:])
	return nil
}

// concatKDF is one round of NIST SP 800-56A with empty party info: 256 bits (RFC 7518 section 4.6.2).
func concatKDF(secret []byte, enc string) []byte {
	h := sha256.New()
	word := func(n int) { h.Write(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	word(1)
	h.Write(secret)
	word(len(enc))
	h.Write([]byte(enc))
	word(0) // PartyUInfo
	word(0) // PartyVInfo
	word(256)
	return h.Sum(nil)
}

// Package jws takes JSON web tokens apart and builds broken ones on purpose, byte for byte.
//
// Begin with [Parse] and [Sign]. The surprise: header and payload are raw bytes, because the tokens that
// matter to an audit (duplicate members, odd spacing, an algorithm that is an array) cannot be written by a
// JSON encoder. Nothing here may ever be used to let somebody in.
package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384 and SHA-512 of the algorithms below
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// Token is a token in compact form, taken apart (RFC 7515 section 7.1). Its parts are decoded bytes.
type Token struct {
	Header, Payload, Signature []byte
	Raw                        string // as parsed
}

// ErrOpaque says that a credential is not a JWS in compact form.
var ErrOpaque = errors.New("the token is not a JSON web token")

// Parse takes a compact token apart. It checks nothing beyond three parts of base64url whose first two are JSON.
func Parse(compact string) (Token, error) {
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return Token{}, ErrOpaque
	}
	var t Token
	for i, field := range []*[]byte{&t.Header, &t.Payload, &t.Signature} {
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[i], "="))
		if err != nil {
			return Token{}, ErrOpaque
		}
		*field = b
	}
	if !json.Valid(t.Header) || !json.Valid(t.Payload) {
		return Token{}, ErrOpaque
	}
	t.Raw = compact
	return t, nil
}

// Member is a member of the header, or of the claims, as a string; empty when absent or of another type.
func Member(object []byte, name string) string {
	var m map[string]any
	if json.Unmarshal(object, &m) != nil {
		return ""
	}
	s, _ := m[name].(string)
	return s
}

// Alg and Kid of the header.
func (t Token) Alg() string { return Member(t.Header, "alg") }

// Kid of the header; empty when there is none.
func (t Token) Kid() string { return Member(t.Header, "kid") }

// Claims decodes the payload; numbers stay json.Number.
func (t Token) Claims() (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(string(t.Payload)))
	d.UseNumber()
	var claims map[string]any
	if err := d.Decode(&claims); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return claims, nil
}

// With returns the object with members set; a nil value removes the member. The order of members is lost.
func With(object []byte, members map[string]any) []byte {
	d := json.NewDecoder(strings.NewReader(string(object)))
	d.UseNumber()
	m := map[string]any{}
	if d.Decode(&m) != nil {
		m = map[string]any{}
	}
	for k, v := range members {
		if v == nil {
			delete(m, k)
			continue
		}
		m[k] = v
	}
	out, err := json.Marshal(m)
	if err != nil {
		return object
	}
	return out
}

// Compact joins three parts.
func Compact(header, payload, signature []byte) string {
	return Encode(header) + "." + Encode(payload) + "." + Encode(signature)
}

// Encode is base64url without padding.
func Encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Sign makes a compact token of raw header and payload with the algorithm alg, which need not be the one that
// the header names. The key is []byte for HS*, *rsa.PrivateKey for RS* and PS*, *ecdsa.PrivateKey for ES*,
// ed25519.PrivateKey for EdDSA, and ignored for none.
func Sign(header, payload []byte, alg string, key any) (string, error) {
	input := Encode(header) + "." + Encode(payload)
	signature, err := Signature([]byte(input), alg, key)
	if err != nil {
		return "", err
	}
	return input + "." + Encode(signature), nil
}

// Signature over input (RFC 7518 section 3).
func Signature(input []byte, alg string, key any) ([]byte, error) {
	if alg == "none" {
		return nil, nil
	}
	if alg == "EdDSA" {
		private, ok := key.(ed25519.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("EdDSA needs an Ed25519 key, not %T", key)
		}
		return ed25519.Sign(private, input), nil
	}
	h, err := hashOf(alg)
	if err != nil {
		return nil, err
	}
	switch private := key.(type) {
	case []byte:
		return MAC(h.New, private, input), nil
	case *rsa.PrivateKey:
		return signRSA(private, alg, h, input)
	case *ecdsa.PrivateKey:
		return signECDSA(private, h, input)
	}
	return nil, fmt.Errorf("%s cannot be made with a key of type %T", alg, key)
}

// MAC is the HMAC of input.
func MAC(h func() hash.Hash, key, input []byte) []byte {
	m := hmac.New(h, key)
	m.Write(input)
	return m.Sum(nil)
}

// HS256 is the HMAC-SHA-256 of input, for the offline search of a weak key.
func HS256(key, input []byte) []byte { return MAC(sha256.New, key, input) }

func hashOf(alg string) (crypto.Hash, error) {
	if len(alg) == 5 {
		switch alg[2:] {
		case "256":
			return crypto.SHA256, nil
		case "384":
			return crypto.SHA384, nil
		case "512":
			return crypto.SHA512, nil
		}
	}
	return 0, fmt.Errorf("unknown algorithm %q", alg)
}

func digest(h crypto.Hash, input []byte) []byte {
	d := h.New()
	d.Write(input)
	return d.Sum(nil)
}

func signRSA(key *rsa.PrivateKey, alg string, h crypto.Hash, input []byte) ([]byte, error) {
	if strings.HasPrefix(alg, "PS") {
		return rsa.SignPSS(rand.Reader, key, h, digest(h, input), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return rsa.SignPKCS1v15(nil, key, h, digest(h, input))
}

func signECDSA(key *ecdsa.PrivateKey, h crypto.Hash, input []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, digest(h, input))
	if err != nil {
		return nil, err
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}

// Has says whether the object has a member of that name.
func Has(object []byte, name string) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(object, &m) == nil && m[name] != nil
}

package identity

import (
	"encoding/base64"
	"strings"
)

const (
	maxToken = 8192 // bytes of a compact token; RFC 8725 section 3.11 leaves the number to us
	maxDepth = 16   // levels of JSON in header and claims
	maxKeyID = 256  // bytes of a key id
)

// envelope is a token taken apart and checked for form. Nothing in it is to be believed yet.
type envelope struct {
	header    object
	alg       string
	kid       string
	typ       string // "" when absent
	signed    string // what the signature covers: header and payload as sent
	payload   []byte
	signature []byte
}

// wellFormed is the gate before any other work on a token: length, exactly two dots, and only the
// base64url alphabet. It allocates nothing, so a megabyte of dots costs no more than a look at its
// length (CVE-2025-30204, CVE-2025-27144).
func wellFormed(token string) bool {
	if len(token) == 0 || len(token) > maxToken {
		return false
	}
	dots := 0
	for i := range len(token) {
		switch c := token[i]; {
		case c == '.':
			dots++
		case isDigit(c), 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2
}

// openEnvelope takes a compact JWS apart (RFC 7515 section 3.1) and reads its header.
func openEnvelope(token string) (*envelope, Reason) {
	if !wellFormed(token) {
		return nil, Malformed
	}
	head, rest, _ := strings.Cut(token, ".")
	body, sign, _ := strings.Cut(rest, ".")
	header, err := decode(head)
	if err != nil {
		return nil, Malformed
	}
	e := &envelope{signed: token[:len(head)+1+len(body)]}
	if e.payload, err = decode(body); err != nil {
		return nil, Malformed
	}
	if e.signature, err = decode(sign); err != nil {
		return nil, Malformed
	}
	if e.header, err = parseObject(header, maxDepth); err != nil {
		return nil, Malformed
	}
	return e, e.readHeader()
}

// decode is base64url as RFC 7515 section 2 has it: no padding, no line breaks (which the standard
// library skips), and no bits set beyond the last byte, so that a token has one spelling only.
func decode(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

// readHeader takes from the header what may be taken. The parameters jwk, jku, x5u and x5c are
// ignored like any unknown one: keys come from the configured issuer only (RFC 8725 section 3.10).
func (e *envelope) readHeader() Reason {
	// RFC 7515 section 4.1.11: whoever does not understand all of crit must refuse, and we
	// understand none. b64 (RFC 7797), zip and enc would change what the payload is.
	if e.header.has("crit", "b64", "zip", "enc") {
		return BadHeader
	}
	var ok bool
	alg, _ := e.header.get("alg")
	if e.alg, ok = alg.str(); !ok {
		return BadHeader
	}
	kid, _ := e.header.get("kid")
	if e.kid, ok = kid.str(); !ok || !printable(e.kid, maxKeyID) {
		return BadHeader
	}
	if typ, present := e.header.get("typ"); present {
		if e.typ, ok = typ.str(); !ok || e.typ == "" {
			return BadHeader
		}
	}
	return Accepted
}

// printable says whether s is 1 to limit bytes of visible ASCII: what may safely stand in a header,
// a log line or a key.
func printable(s string, limit int) bool {
	if len(s) == 0 || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

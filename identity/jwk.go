package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"
)

const (
	maxKeys     = 100 // keys in one document
	maxKeyDepth = 8   // levels of JSON in a key document
	minRSA      = 2048
	maxRSA      = 8192 // bits; a larger modulus makes every check a denial of service
)

// skip is a key that is not used, and why. Neither field is secret.
type skip struct {
	id     string
	reason string
	alarm  bool // the issuer has published what it must keep to itself
}

var (
	errKeyDocument = errors.New("not a strict JSON key set")
	errTooManyKeys = errors.New("too many keys")
	errNoKeys      = errors.New("no usable key")
)

// parseKeySet reads a JWK set (RFC 7517 section 5). Keys that are not understood, or not allowed by
// algorithms, are skipped and told; only a document without any usable key is an error.
func parseKeySet(text []byte, algorithms []string) (*keySet, []skip, error) {
	document, err := parseObject(text, maxKeyDepth)
	if err != nil {
		return nil, nil, errKeyDocument
	}
	list, _ := document.get("keys")
	entries, ok := list.array()
	if !ok {
		return nil, nil, errKeyDocument
	}
	if len(entries) > maxKeys {
		return nil, nil, errTooManyKeys
	}
	set, skipped := collect(entries, algorithms)
	if len(set.keys) == 0 {
		return nil, skipped, errNoKeys
	}
	return set, skipped, nil
}

// collect gathers the usable keys. Of two with one id neither is used: which one a token means
// would be a guess.
func collect(entries []value, algorithms []string) (*keySet, []skip) {
	set := &keySet{keys: make(map[string]*key, len(entries))}
	var skipped []skip
	twice := make(map[string]bool)
	for _, entry := range entries {
		k, why := parseKey(entry, algorithms)
		switch {
		case why != nil:
			skipped = append(skipped, *why)
		case twice[k.id]:
		case set.keys[k.id] != nil:
			twice[k.id] = true
			delete(set.keys, k.id)
			skipped = append(skipped, skip{id: k.id, reason: "two keys share this kid"})
		default:
			set.keys[k.id] = k
		}
	}
	return set, skipped
}

// privateMembers are the secret parts of any key type (RFC 7518 section 6, RFC 9964 section 3).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// parseKey reads one JWK that may verify tokens, or says why it may not.
func parseKey(entry value, algorithms []string) (*key, *skip) {
	jwk, ok := entry.object()
	if !ok {
		return nil, &skip{reason: "not an object"}
	}
	id := jwk.text("kid")
	switch {
	case !printable(id, maxKeyID):
		return nil, &skip{reason: "kid is missing or not printable"}
	case jwk.has(privateMembers...) || jwk.text("kty") == "oct":
		return nil, &skip{id: id, reason: "private or symmetric key", alarm: true}
	case !jwk.mayVerify():
		return nil, &skip{id: id, reason: "use or key_ops does not allow verifying"}
	}
	alg, public, why := jwk.public()
	switch {
	case why != "":
		return nil, &skip{id: id, reason: why}
	case jwk.has("alg") && jwk.text("alg") != alg:
		return nil, &skip{id: id, reason: "alg does not fit the key type"}
	case !slices.Contains(algorithms, alg):
		return nil, &skip{id: id, reason: "algorithm is not enabled"}
	}
	return &key{id: id, alg: alg, public: public}, nil
}

// text returns a string member, or "" when it is missing or something else.
func (o object) text(name string) string {
	v, _ := o.get(name)
	text, _ := v.str()
	return text
}

// mayVerify holds use and key_ops against verifying (RFC 7517 sections 4.2 and 4.3).
func (o object) mayVerify() bool {
	if o.has("use") && o.text("use") != "sig" {
		return false
	}
	v, present := o.get("key_ops")
	if !present {
		return true
	}
	operations, ok := v.strs()
	return ok && slices.Contains(operations, "verify")
}

// public reads the key itself and names the algorithm its type stands for.
func (o object) public() (alg string, public crypto.PublicKey, why string) {
	switch kty, crv := o.text("kty"), o.text("crv"); {
	case kty == "RSA":
		public, why = o.rsa()
		return RS256, public, why
	case kty == "EC" && crv == "P-256":
		public, why = o.p256()
		return ES256, public, why
	case kty == "OKP" && crv == "Ed25519":
		public, why = o.ed25519()
		return EdDSA, public, why
	default:
		return "", nil, "key type is not supported"
	}
}

// bytes returns a base64url member (RFC 7518 section 2), or nil.
func (o object) bytes(name string) []byte {
	b, err := decode(o.text(name))
	if err != nil {
		return nil
	}
	return b
}

func (o object) rsa() (crypto.PublicKey, string) {
	n, e := new(big.Int).SetBytes(o.bytes("n")), new(big.Int).SetBytes(o.bytes("e"))
	if e.BitLen() > 31 {
		return nil, "RSA exponent is out of range"
	}
	public := &rsa.PublicKey{N: n, E: int(e.Int64())}
	return public, weakness(public)
}

// weakness says why an RSA key must not be used, or "".
func weakness(public *rsa.PublicKey) string {
	switch bits := public.N.BitLen(); {
	case bits < minRSA || bits > maxRSA: // RFC 7518 section 3.3
		return "RSA modulus is not of 2048 to 8192 bits"
	case public.N.Bit(0) == 0:
		return "RSA modulus is even"
	case public.E < 65537 || int64(public.E) >= 1<<31 || public.E%2 == 0:
		return "RSA exponent is out of range"
	case isROCA(public.N):
		return "RSA modulus is of the ROCA kind (CVE-2017-15361)"
	default:
		return ""
	}
}

// p256 reads a point and makes sure that it lies on the curve (RFC 7518 section 6.2.1).
func (o object) p256() (crypto.PublicKey, string) {
	x, y := o.bytes("x"), o.bytes("y")
	if len(x) != 32 || len(y) != 32 {
		return nil, "EC coordinate is not of 32 bytes"
	}
	point := slices.Concat([]byte{4}, x, y)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, "EC point is not on the curve"
	}
	return public, ""
}

func (o object) ed25519() (crypto.PublicKey, string) {
	x := o.bytes("x")
	if len(x) != ed25519.PublicKeySize {
		return nil, "Ed25519 key is not of 32 bytes"
	}
	return ed25519.PublicKey(x), ""
}

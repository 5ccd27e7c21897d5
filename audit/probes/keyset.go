package probes

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"os"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// keyset is the public keys with which the target's tokens are verified, as they are published.
type keyset struct {
	URL       string // or file
	Document  []byte // as fetched: a JSON Web Key Set (RFC 7517 section 5), or PEM
	Keys      []publicKey
	Discovery *audit.Exchange // the OpenID Connect document that named URL, when one did
	Fetched   *audit.Exchange // nil when it was a file
}

// publicKey is one key of a set. Err says why it could not be read; Public is nil then.
type publicKey struct {
	Kid, Alg, Use string
	Public        crypto.PublicKey
	Raw           map[string]any // the JSON as published; nil when it came as PEM
	Err           error
}

// errNoKeys says that no public key was found.
var errNoKeys = errors.New("no public keys were found")

const (
	maxKeys     = 100
	maxKeyBytes = 256 << 10
)

// keySet finds the target's public keys, once a run: where --jwks says, else by discovery on the target's own origin.
// The issuer that a token names is asked only when it is that origin: a token must not send the audit to strangers.
func keySet(ctx context.Context, s *audit.Session) (*keyset, error) {
	const fact = "keyset"
	switch known := s.Fact(fact).(type) {
	case *keyset:
		return known, nil
	case error:
		return nil, known
	}
	set, err := findKeySet(ctx, s)
	switch {
	case err == nil:
		s.Remember(fact, set)
	case errors.Is(err, errNoKeys): // anything else may be better next time
		s.Remember(fact, err)
	}
	return set, err
}

func findKeySet(ctx context.Context, s *audit.Session) (*keyset, error) {
	if named := s.Target().JWKS; named != "" {
		return namedKeySet(ctx, s, named)
	}
	for _, base := range issuers(s) {
		set, err := fetchKeySet(ctx, s, base+"/.well-known/jwks.json")
		if set != nil || err != nil {
			return set, err
		}
		set, err = discoveredKeySet(ctx, s, base+"/.well-known/openid-configuration")
		if set != nil || err != nil {
			return set, err
		}
	}
	return nil, fmt.Errorf("%w at %s; name them with --jwks", errNoKeys, strings.Join(issuers(s), ", "))
}

// issuers are the places where discovery is tried, without a slash at the end.
func issuers(s *audit.Session) []string {
	t := s.Target()
	list := []string{t.Origin()}
	if t.URL.Path != "" {
		list = append(list, t.Origin()+t.URL.EscapedPath())
	}
	token, err := s.Token()
	if err != nil {
		return list
	}
	issuer := strings.TrimRight(jws.Member(token.Payload, "iss"), "/")
	if h := s.Harness(); h != nil && issuer == h.URL {
		return []string{h.URL}
	}
	if strings.HasPrefix(issuer, t.Origin()+"/") && issuer != list[len(list)-1] {
		list = append(list, issuer)
	}
	return list
}

// namedKeySet reads what --jwks names: a file, a key set, or a discovery document.
func namedKeySet(ctx context.Context, s *audit.Session, named string) (*keyset, error) {
	if !strings.HasPrefix(named, "http://") && !strings.HasPrefix(named, "https://") {
		return keySetFile(named)
	}
	set, err := fetchKeySet(ctx, s, named)
	if set != nil || err != nil {
		return set, err
	}
	set, err = discoveredKeySet(ctx, s, named)
	if set != nil || err != nil {
		return set, err
	}
	return nil, fmt.Errorf("%w: --jwks %s is neither a key set nor a discovery document that names one on its own origin", errNoKeys, named)
}

func keySetFile(name string) (*keyset, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: --jwks: %w", errNoKeys, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyBytes))
	if err != nil {
		return nil, fmt.Errorf("%w: --jwks: %w", errNoKeys, err)
	}
	keys := parseKeys(text)
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: --jwks %s holds neither a key set nor PEM", errNoKeys, name)
	}
	return &keyset{URL: name, Document: text, Keys: keys}, nil
}

// fetchKeySet gives nil when there is no key set at address.
func fetchKeySet(ctx context.Context, s *audit.Session, address string) (*keyset, error) {
	x, err := s.Fetch(ctx, address, "public keys")
	if err != nil {
		return nil, err
	}
	if x.Status == 0 {
		return nil, fmt.Errorf("%s: %w", address, x.Err)
	}
	if !x.OK() || x.Cut {
		return nil, nil
	}
	keys := parseKeys(x.Body)
	if len(keys) == 0 {
		return nil, nil
	}
	return &keyset{URL: address, Document: x.Body, Keys: keys, Fetched: x}, nil
}

// discoveredKeySet follows the jwks_uri of a discovery document, as far as the scope allows.
func discoveredKeySet(ctx context.Context, s *audit.Session, address string) (*keyset, error) {
	x, err := s.Fetch(ctx, address, "discovery document")
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(jws.Member(x.Body, "jwks_uri"))
	if !x.OK() || err != nil || at.Host == "" {
		return nil, nil
	}
	set, err := fetchKeySet(ctx, s, at.String())
	if errors.Is(err, audit.ErrScope) {
		return nil, fmt.Errorf("%w: the discovery document names %s, outside the scope; give it with --jwks", errNoKeys, at.Redacted())
	}
	if set != nil {
		set.Discovery = x
	}
	return set, err
}

// parseKeys reads a key set, a single key, or PEM; nothing when it is none of them.
func parseKeys(document []byte) []publicKey {
	if bytes.Contains(document, []byte("-----BEGIN ")) {
		return parsePEM(document)
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if json.Unmarshal(document, &set) != nil {
		return nil
	}
	if len(set.Keys) == 0 {
		var single map[string]any
		if json.Unmarshal(document, &single) == nil && text(single, "kty") != "" {
			set.Keys = append(set.Keys, single)
		}
	}
	var keys []publicKey
	for _, raw := range set.Keys[:min(len(set.Keys), maxKeys)] {
		k := publicKey{Kid: text(raw, "kid"), Alg: text(raw, "alg"), Use: text(raw, "use"), Raw: raw}
		k.Public, k.Err = parseJWK(raw)
		keys = append(keys, k)
	}
	return keys
}

func parsePEM(document []byte) []publicKey {
	var keys []publicKey
	for len(keys) < maxKeys {
		block, rest := pem.Decode(document)
		if block == nil {
			return keys
		}
		document = rest
		var k publicKey
		k.Public, k.Err = parseBlock(block)
		keys = append(keys, k)
	}
	return keys
}

func parseBlock(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		k, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		return k, nil
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	}
	return nil, fmt.Errorf("a PEM block of type %q is no public key", block.Type)
}

// parseJWK reads the public part of a key (RFC 7518 section 6, RFC 8037).
func parseJWK(raw map[string]any) (crypto.PublicKey, error) {
	switch kty := text(raw, "kty"); kty {
	case "RSA":
		return rsaJWK(raw)
	case "EC":
		return ellipticJWK(raw)
	case "OKP":
		x, err := octets(raw, "x")
		if err != nil {
			return nil, err
		}
		if text(raw, "crv") != "Ed25519" || len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("curve %q is not supported", text(raw, "crv"))
		}
		return ed25519.PublicKey(x), nil
	case "oct":
		return nil, errors.New("a symmetric key stands in a public key set")
	default:
		return nil, fmt.Errorf("key type %q is not supported", kty)
	}
}

func rsaJWK(raw map[string]any) (crypto.PublicKey, error) {
	n, err := octets(raw, "n")
	if err != nil {
		return nil, err
	}
	e, err := octets(raw, "e")
	if err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if len(n) == 0 || len(n) > 2048 || exponent.BitLen() < 2 || exponent.BitLen() > 31 {
		return nil, errors.New("the RSA key's modulus or exponent is out of range")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

func ellipticJWK(raw map[string]any) (crypto.PublicKey, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[text(raw, "crv")]
	if curve == nil {
		return nil, fmt.Errorf("curve %q is not supported", text(raw, "crv"))
	}
	x, err := octets(raw, "x")
	if err != nil {
		return nil, err
	}
	y, err := octets(raw, "y")
	if err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		return nil, errors.New("the point's coordinates are too long for the curve")
	}
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed, SEC 1 section 2.3.3
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, err // not public: a nil *ecdsa.PublicKey in an interface is not nil
	}
	return public, nil
}

// text is a member that is a string; empty otherwise.
func text(raw map[string]any, name string) string {
	s, _ := raw[name].(string)
	return s
}

// octets decodes a base64url member; padding is forgiven, because the key is the matter here.
func octets(raw map[string]any, name string) ([]byte, error) {
	value := text(raw, name)
	if value == "" {
		return nil, fmt.Errorf("the member %q is missing", name)
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil {
		return nil, fmt.Errorf("the member %q is not base64url", name)
	}
	return b, nil
}

package probes

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// signatureRoot is what thirteen probes measure from different sides.
const signatureRoot = "jwt-signature"

// signatureProbe fills in what those probes share.
func signatureProbe(p audit.Probe) audit.Probe {
	p.Severity = cmp.Or(p.Severity, audit.Critical)
	p.Mode, p.Category, p.Root = audit.Safe, audit.Identity, signatureRoot
	p.NeedsCredential, p.Confirms = true, true
	p.Inconclusive = cmp.Or(p.Inconclusive, "the token is opaque, or valid and garbage credentials are answered alike")
	p.Guard = cmp.Or(p.Guard, "every other claim is the valid token's. What is accepted is sent again, with the valid token in between")
	p.Knobs = append([]string{"--token", "--protected-path"}, p.Knobs...)
	return p
}

func signature() []audit.Probe {
	return []audit.Probe{
		signatureProbe(audit.Probe{
			ID: "JWT-01", Title: "Payload changed, original signature kept",
			Sends:  "the valid token with one character of an unused claim changed, with another `sub`, and with `role: admin` added; header and signature unchanged",
			Passes: "all refused as garbage is",
			Fails:  "any accepted as the valid token is",
			Guard:  "a server that only decodes refuses garbage and accepts this: refusing garbage proves nothing. Repeated, with the valid token in between",
			Refs:   []string{"RFC 8725 section 3.1", "CWE-347", "ASVS 9.1.1"},
			Why:    "Anybody can write a token that says they are somebody else, an administrator for instance.",
			Fix:    "Call verify, never decode; pass the key and an explicit list of algorithms.",
			Run:    tamperedPayload,
		}),
		signatureProbe(audit.Probe{
			ID: "JWT-02", Title: "Signature stripped, emptied, zeroed, random, truncated",
			Sends:  "the valid token's header and payload with an empty signature, without the last dot, with `AAAA`, with 32 zero bytes, with random bytes of the right length, with the signature short of four characters, and with the signature of another valid token when one is given",
			Passes: "all refused",
			Fails:  "any accepted as the valid token is",
			Refs:   []string{"RFC 7515 section 5.2", "CWE-347", "CVE-2020-28042"},
			Why:    "Whoever has seen one token can write any other: cutting the end off is enough.",
			Fix:    "Refuse an empty signature before any other step, and update the token library.",
			Run:    strippedSignature,
		}),
		signatureProbe(audit.Probe{
			ID: "JWT-07", Title: "Right key id, wrong key",
			Sends:        "the valid token's header and payload signed with a fresh key of the same kind (a random secret for HS algorithms)",
			Passes:       "refused",
			Fails:        "accepted as the valid token is",
			Inconclusive: "the token's algorithm is not one of JWS, or the token is opaque",
			Refs:         []string{"CWE-347", "ASVS 9.1.3"},
			Why:          "The key id is checked and the signature is not: everybody can sign.",
			Fix:          "Select the key by its id from a fixed set, then verify with it and heed the result.",
			Run:          wrongKey,
		}),
	}
}

func tamperedPayload(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	harmless, changes := unusedClaim(t)
	return forgeries(ctx, s, []forgery{
		{harmless + ", signature kept", jws.Compact(t.Header, jws.With(t.Payload, changes), t.Signature)},
		{"another sub, signature kept", jws.Compact(t.Header, jws.With(t.Payload, map[string]any{"sub": "user_gantry_other"}), t.Signature)},
		{"role admin added, signature kept", jws.Compact(t.Header, jws.With(t.Payload, map[string]any{"role": "admin"}), t.Signature)},
	})
}

// usedClaims are those that a verifier or a handler may well look at.
var usedClaims = []string{"iss", "sub", "aud", "azp", "sid", "jti", "client_id", "scope", "scp", "token_use", "typ", "role", "email", "tid", "org_id"}

// unusedClaim finds the change of the payload that a server that does not verify notices least: its answer must stay
// like the valid one's.
func unusedClaim(t jws.Token) (label string, changes map[string]any) {
	claims, _ := t.Claims()
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		if v, ok := claims[name].(string); ok && v != "" && !slices.Contains(usedClaims, name) {
			return "one character of " + name + " changed", map[string]any{name: flipped(v)}
		}
	}
	if n, ok := claims["iat"].(json.Number); ok {
		if at, err := n.Int64(); err == nil {
			return "issued a second earlier", map[string]any{"iat": at - 1}
		}
	}
	return "a claim added", map[string]any{"gantry": 1}
}

func flipped(s string) string {
	last := byte('x')
	if s[len(s)-1] == last {
		last = 'y'
	}
	return strings.ToValidUTF8(s[:len(s)-1], "") + string(last)
}

func strippedSignature(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	input := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
	random := make([]byte, len(t.Signature))
	fill(s, random)
	list := []forgery{
		{"empty signature", input + "."},
		{"no signature and no last dot", input},
		{"signature AAAA", input + ".AAAA"},
		{"signature of 32 zero bytes", input + "." + jws.Encode(make([]byte, 32))},
		{"random signature of the right length", input + "." + jws.Encode(random)},
	}
	if len(t.Signature) > 3 {
		list = append(list, forgery{"signature short of four characters", t.Raw[:len(t.Raw)-4]})
	}
	if other, ok := anotherToken(s, t); ok {
		list = append(list, forgery{"signature of another valid token", input + "." + jws.Encode(other.Signature)})
	}
	return forgeries(ctx, s, list)
}

// fill with bytes that the same seed gives again.
func fill(s *audit.Session, b []byte) {
	r := s.Rand()
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// anotherToken of the same issuer that the operator gave.
func anotherToken(s *audit.Session, t jws.Token) (jws.Token, bool) {
	target := s.Target()
	for _, raw := range []string{target.TokenB, target.AdminToken, target.TokenOtherAudience, target.TokenExpired, target.IDToken} {
		other, err := jws.Parse(raw)
		if err == nil && other.Alg() == t.Alg() && string(other.Signature) != string(t.Signature) {
			return other, true
		}
	}
	return jws.Token{}, false
}

func wrongKey(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	key, err := freshKey(t.Alg())
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	forged, err := jws.Sign(t.Header, t.Payload, t.Alg(), key)
	if err != nil {
		return audit.Verdict{}, err
	}
	return forgeries(ctx, s, []forgery{{"signed with a fresh " + t.Alg() + " key", forged}})
}

// freshRSA is made once: making one takes long, and to a target it is as unknown the second time.
var freshRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// freshKey for alg, which no target knows.
func freshKey(alg string) (any, error) {
	curves := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}
	switch {
	case len(alg) == 5 && alg[:2] == "HS":
		secret := make([]byte, 64)
		_, err := rand.Read(secret)
		return secret, err
	case len(alg) == 5 && (alg[:2] == "RS" || alg[:2] == "PS"):
		return freshRSA()
	case curves[alg] != nil:
		return ecdsa.GenerateKey(curves[alg], rand.Reader)
	case alg == "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("the token's algorithm %q is not one that can be forged", alg)
}

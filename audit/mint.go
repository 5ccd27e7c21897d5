package audit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryhq/gantry/audit/jws"
)

// Signer makes tokens that the target must take for genuine: from --jwt-key, from the issuer harness, or with
// a secret that JWT-06 found.
type Signer struct {
	Alg, Kid string
	Key      any    // []byte, *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
	Source   string // --jwt-key, --issuer-harness or JWT-06
	base     jws.Token
}

// ErrNoSigner says that no token can be minted.
var ErrNoSigner = errors.New("no token can be minted: give --jwt-key (the staging key) or --issuer-harness")

// Signer of the run, or ErrNoSigner.
func (s *Session) Signer() (*Signer, error) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if s.shared.signer == nil {
		return nil, ErrNoSigner
	}
	return s.shared.signer, nil
}

// UseSecret makes a found HMAC secret the run's signer, unless there is one already. Whether it must be hidden is the
// caller's to say: to strike a common word out of a whole report would point at it.
func (s *Session) UseSecret(secret []byte, alg string) error {
	base, err := s.Token()
	if err != nil {
		return err
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if s.shared.signer == nil {
		s.shared.signer = &Signer{Alg: alg, Kid: base.Kid(), Key: secret, Source: "JWT-06", base: base}
	}
	return nil
}

// Mint a token like the valid one, with members of header and claims replaced (nil removes one) and fresh iat, nbf and
// exp unless these are given. An untouched mint must be accepted; probes check that first.
func (g *Signer) Mint(now time.Time, header, claims map[string]any) (string, error) {
	fresh := map[string]any{"iat": now.Unix() - 1, "exp": now.Unix() + 300}
	if jws.Has(g.base.Payload, "nbf") {
		fresh["nbf"] = now.Unix() - 1
	}
	for k, v := range claims {
		fresh[k] = v
	}
	return jws.Sign(jws.With(g.base.Header, header), jws.With(g.base.Payload, fresh), g.Alg, g.Key)
}

// Base is the token that mints are modelled on.
func (g *Signer) Base() jws.Token { return g.base }

// newSigner reads --jwt-key: PEM of a private key, or an HMAC secret.
func newSigner(key string, base jws.Token) (*Signer, error) {
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		alg := base.Alg()
		if len(alg) != 5 || alg[:2] != "HS" {
			return nil, fmt.Errorf("--jwt-key: the token says %s, so give its private key in PEM", clean(alg))
		}
		return &Signer{Alg: alg, Kid: base.Kid(), Key: []byte(key), Source: "--jwt-key", base: base}, nil
	}
	private, err := parsePrivate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("--jwt-key: %w", err)
	}
	return &Signer{Alg: base.Alg(), Kid: base.Kid(), Key: private, Source: "--jwt-key", base: base}, nil
}

func parsePrivate(der []byte) (crypto.PrivateKey, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	return nil, errors.New("the PEM block holds no private key in PKCS#8, PKCS#1 or SEC 1 form")
}

// Harness is a token issuer of the audit's own: OpenID Connect discovery and a key set on a loopback address, which
// a staging target is told to trust.
type Harness struct {
	URL     string
	fetches atomic.Int64

	mu     sync.Mutex
	keys   []harnessKey // the last one signs
	claims map[string]any
	server *http.Server
}

type harnessKey struct {
	kid string
	key *rsa.PrivateKey
}

func newHarness(ctx context.Context, addr string, claims map[string]any) (*Harness, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--issuer-harness %s: %w", addr, err)
	}
	h := &Harness{URL: "http://" + ln.Addr().String(), claims: claims}
	if _, err := h.Rotate(); err != nil {
		ln.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", h.discovery)
	mux.HandleFunc("GET /.well-known/jwks.json", h.jwks)
	h.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	go h.server.Serve(newFew(ln))
	return h, nil
}

func (h *Harness) close() { h.server.Close() }

// Fetches of the key set so far.
func (h *Harness) Fetches() int { return int(h.fetches.Load()) }

// Rotate replaces the signing key: the old one leaves the set. It returns the new signer.
func (h *Harness) Rotate() (*Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	kid := fmt.Sprintf("gantry-harness-%x", key.N.Bytes()[:4])
	h.keys = []harnessKey{{kid, key}}
	return h.signer(), nil
}

func (h *Harness) signer() *Signer {
	last := h.keys[len(h.keys)-1]
	claims := map[string]any{"iss": h.URL, "sub": "user_gantry_a"}
	for k, v := range h.claims {
		claims[k] = v
	}
	header, _ := json.Marshal(map[string]any{"alg": "RS256", "typ": "JWT", "kid": last.kid})
	payload, _ := json.Marshal(claims)
	return &Signer{
		Alg: "RS256", Kid: last.kid, Key: last.key, Source: "--issuer-harness",
		base: jws.Token{Header: header, Payload: payload},
	}
}

func (h *Harness) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{
		"issuer": h.URL, "jwks_uri": h.URL + "/.well-known/jwks.json", "authorization_endpoint": h.URL + "/authorize",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	})
}

func (h *Harness) jwks(w http.ResponseWriter, _ *http.Request) {
	h.fetches.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	keys := []map[string]any{}
	for _, k := range h.keys {
		jwk, _ := JWK(&k.key.PublicKey)
		jwk["kid"], jwk["use"], jwk["alg"] = k.kid, "sig", "RS256"
		keys = append(keys, jwk)
	}
	writeJSON(w, map[string]any{"keys": keys})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// JWK of a public key (RFC 7518 section 6, RFC 8037).
func JWK(public crypto.PublicKey) (map[string]any, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	switch k := public.(type) {
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}, nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return nil, err
		}
		half := (len(point) - 1) / 2
		return map[string]any{"kty": "EC", "crv": k.Curve.Params().Name, "x": b64(point[1 : 1+half]), "y": b64(point[1+half:])}, nil
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(k)}, nil
	}
	return nil, fmt.Errorf("no JWK for a key of type %T", public)
}

// Harness of the run, nil when there is none.
func (s *Session) Harness() *Harness { return s.shared.harness }

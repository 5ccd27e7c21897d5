// Package devissuer signs tokens on a developer's machine, with a key that never leaves it.
//
// Begin with [Load], give [Issuer.Issuer] to identity.New, and make tokens with [Issuer.Mint]:
//
//	dev, err := devissuer.Load("var/dev-issuer.pem")
//	token, err := dev.Mint(devissuer.Claims{Subject: "user_1"})
//
// The surprise: whoever can read the key file is any user at all, so this has no place in staging
// or production, and a key file that others can read is refused.
package devissuer

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/gantryhq/gantry/identity"
)

// URL is the "iss" of development tokens. Nothing listens there: the key travels in
// identity.Issuer.Static.
const URL = "http://dev-issuer.localhost"

// DefaultTTL is how long a token lives when Claims does not say.
const DefaultTTL = time.Hour

// Issuer signs development tokens.
type Issuer struct {
	private *rsa.PrivateKey
	kid     string
}

// Claims is what a development token says. Only Subject is required.
type Claims struct {
	Subject         string
	SessionID       string
	AuthorizedParty string
	Audience        []string
	Org             *identity.Org
	Plan            string
	Email           string
	Name            string
	// TTL is the token's life; 0 means DefaultTTL. A negative one makes a token that has expired.
	TTL time.Duration
	// Extra holds further claims. It may not name one that is set above, or iss, iat, nbf, exp.
	Extra map[string]any
}

// Load reads the key file at path, or creates it, readable by its owner only, when there is none.
// Processes that do so at the same moment end up with the same key.
func Load(path string) (*Issuer, error) {
	private, err := loadKey(path)
	if err != nil {
		return nil, fmt.Errorf("development key: %w", err)
	}
	return &Issuer{private: private, kid: thumbprint(&private.PublicKey)}, nil
}

// Issuer returns the rules for this issuer's tokens; they verify without any network.
func (i *Issuer) Issuer() identity.Issuer {
	return identity.Issuer{URL: URL, Static: i.JWKS(), Profile: identity.Clerk}
}

// JWKS returns the public key as a JWK set.
func (i *Issuer) JWKS() []byte {
	n, e := numbers(&i.private.PublicKey)
	return fmt.Appendf(nil, `{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":%q,"n":%q,"e":%q}]}`, i.kid, n, e)
}

// Mint returns a signed token that is valid from now on.
func (i *Issuer) Mint(c Claims) (string, error) {
	if c.Subject == "" {
		return "", errors.New("mint token: Subject must be set")
	}
	claims, err := c.all(time.Now())
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	return i.sign(payload)
}

// all gathers the claims in their first version's form, which names everything in full.
func (c Claims) all(now time.Time) (map[string]any, error) {
	ttl := c.TTL
	if ttl == 0 {
		ttl = DefaultTTL
	}
	claims := map[string]any{
		"iss": URL, "sub": c.Subject,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(ttl).Unix(),
	}
	for name, text := range map[string]string{
		"sid": c.SessionID, "azp": c.AuthorizedParty, "pla": c.Plan, "email": c.Email, "name": c.Name,
	} {
		if text != "" {
			claims[name] = text
		}
	}
	if len(c.Audience) > 0 {
		claims["aud"] = c.Audience
	}
	c.addOrg(claims)
	for name, extra := range c.Extra {
		if _, taken := claims[name]; taken {
			return nil, fmt.Errorf("Extra must not set %q", name)
		}
		claims[name] = extra
	}
	return claims, nil
}

func (c Claims) addOrg(claims map[string]any) {
	if c.Org == nil {
		return
	}
	claims["org_id"], claims["org_slug"], claims["org_role"] = c.Org.ID, c.Org.Slug, "org:"+c.Org.Role
	permissions := make([]string, len(c.Org.Permissions))
	for n, permission := range c.Org.Permissions {
		permissions[n] = "org:" + permission
	}
	claims["org_permissions"] = permissions
}

// sign makes a compact JWS (RFC 7515 section 3.1) with RS256.
func (i *Issuer) sign(payload []byte) (string, error) {
	header := fmt.Appendf(nil, `{"alg":"RS256","kid":%q,"typ":"JWT"}`, i.kid)
	signed := encode(header) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.private, crypto.SHA256, digest[:])
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed + "." + encode(signature), nil
}

// thumbprint names a key by its content (RFC 7638 section 3).
func thumbprint(public *rsa.PublicKey) string {
	n, e := numbers(public)
	digest := sha256.Sum256(fmt.Appendf(nil, `{"e":%q,"kty":"RSA","n":%q}`, e, n))
	return encode(digest[:])
}

func numbers(public *rsa.PublicKey) (n, e string) {
	return encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes())
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

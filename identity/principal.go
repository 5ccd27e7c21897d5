package identity

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode"
)

// Principal is who calls, as the issuer says. It is shared between requests: do not change it.
type Principal struct {
	Issuer          string
	Subject         string // 1 to 255 bytes of visible ASCII
	SessionID       string
	AuthorizedParty string
	TokenID         string
	Audience        []string
	IssuedAt        time.Time // zero when the token does not say
	ExpiresAt       time.Time
	// Org is the active organisation; nil when there is none.
	Org *Org
	// Plan is the billing plan with its scope, as issued: "u:free", "o:pro".
	Plan string
	// Features are the entitlements with their scope, as issued: "o:dashboard".
	Features []string
	// FirstFactorAge is how long before IssuedAt the first factor was verified; nil means never or
	// not told, so that a missing claim cannot pass for a fresh proof.
	FirstFactorAge  *time.Duration
	SecondFactorAge *time.Duration // the same for the second factor
	// Actor is who really acts when a support person impersonates the subject; else nil.
	Actor *Actor
	// Email and Name are set when the token carries them. An address that the issuer calls
	// unverified is left out.
	Email string
	Name  string
	// Claims is the whole verified payload.
	Claims json.RawMessage
}

// Org is the organisation a caller acts for. Both versions of Clerk's claims come out alike: roles
// and permissions without the "org:" in front ("admin", "dashboard:read").
type Org struct {
	ID          string
	Slug        string
	Role        string
	Permissions []string
}

// Actor is the party behind an impersonated session (RFC 8693 section 4.1).
type Actor struct {
	Issuer    string
	Subject   string
	SessionID string
}

type contextKey struct{}

// NewContext returns a context that carries p. A context that takes values in place, by a method
// SetValue(key, value any) bool, is returned itself: that saves a request two allocations.
func NewContext(ctx context.Context, p *Principal) context.Context {
	if setInPlace(ctx, p) {
		return ctx
	}
	return context.WithValue(ctx, contextKey{}, p)
}

func setInPlace(ctx context.Context, p *Principal) bool {
	place, ok := ctx.(interface{ SetValue(key, value any) bool })
	return ok && place.SetValue(contextKey{}, p)
}

// FromContext returns the principal that [NewContext] put there.
func FromContext(ctx context.Context) (*Principal, bool) {
	p, ok := ctx.Value(contextKey{}).(*Principal)
	return p, ok
}

// principal builds the Principal of a verified token; false when a claim that we would pass on does
// not have its documented form.
func (i Issuer) principal(c *claims, payload []byte) (*Principal, bool) {
	p := &Principal{
		Issuer: c.issuer, Subject: c.subject, SessionID: c.session, AuthorizedParty: c.party,
		TokenID: c.id, Audience: c.audience, IssuedAt: c.issuedAt, ExpiresAt: c.expires,
		Claims: payload,
	}
	p.Name = c.text("name")
	if verified, said := c.all.get("email_verified"); !said || strings.Trim(string(verified), `"`) == "true" {
		p.Email = c.text("email")
	}
	if i.Profile == Clerk {
		return p, p.readClerk(c.all)
	}
	if i.Profile == AccessToken && p.AuthorizedParty == "" {
		client, _ := c.all.get("client_id")
		p.AuthorizedParty, _ = client.str()
	}
	return p, true
}

// text returns a descriptive claim, or "" when it is missing or not a line of text.
func (c *claims) text(name string) string {
	v, _ := c.all.get(name)
	text, _ := v.str()
	if strings.ContainsFunc(text, unicode.IsControl) {
		return ""
	}
	return text
}

// size estimates the bytes that p keeps alive, for the bound of the cache.
func (p *Principal) size() int {
	n := 512 + len(p.Claims) + len(p.Issuer) + len(p.Subject)
	for _, list := range [][]string{p.Audience, p.Features} {
		n += sizeOf(list)
	}
	if p.Org != nil {
		n += 128 + sizeOf(p.Org.Permissions)
	}
	return n
}

func sizeOf(list []string) int {
	n := 0
	for _, s := range list {
		n += 16 + len(s)
	}
	return n
}

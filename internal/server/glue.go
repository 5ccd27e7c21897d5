package server

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/users"
)

// clientOf is what the guard found out about the peer, for the proxy.
func clientOf(r *http.Request) (addr netip.Addr, trusted, secure bool) {
	if x, ok := guard.FromContext(r.Context()); ok {
		return x.Client, x.Trusted, x.Secure
	}
	return netip.Addr{}, false, false
}

func clientAddr(r *http.Request) netip.Addr {
	addr, _, _ := clientOf(r)
	return addr
}

func isSecure(r *http.Request) bool {
	_, _, secure := clientOf(r)
	return secure
}

// upstreamMargin, in milliseconds, is what the upstream's deadline is shorter by than ours, so that
// its own answer about it still gets through.
const upstreamMargin = 50

// setIdentityHeaders tells the upstream who calls and how long it has.
func setIdentityHeaders(r *http.Request, out http.Header) {
	if x, ok := guard.FromContext(r.Context()); ok {
		out.Set("X-Request-Id", x.ID)
	}
	if left, ok := guard.Remaining(r.Context()); ok {
		out.Set(guard.TimeoutHeader, strconv.FormatInt(max(1, left.Milliseconds()-upstreamMargin), 10))
	}
	p, ok := identity.FromContext(r.Context())
	if !ok {
		return
	}
	out.Set("X-User-Id", p.Subject)
	setUnlessEmpty(out, "X-Session-Id", p.SessionID)
	if p.Org != nil {
		setUnlessEmpty(out, "X-Org-Id", p.Org.ID)
	}
	out.Set("X-Auth-Claims", base64.RawURLEncoding.EncodeToString(p.Claims))
}

func setUnlessEmpty(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// claimsOf hands the verified claims to the users service.
func claimsOf(ctx context.Context) (users.Claims, bool) {
	p, ok := identity.FromContext(ctx)
	if !ok {
		return users.Claims{}, false
	}
	c := users.Claims{Issuer: p.Issuer, Subject: p.Subject, Email: p.Email, Name: p.Name, SessionID: p.SessionID}
	if p.Actor != nil {
		c.Actor = p.Actor.Subject
	}
	return c, true
}

// seenIdentity, seenLimit and seenUpstream put what the stages decided into the log line.
func (s *Server) seenIdentity(r *http.Request, o identity.Outcome) {
	x, ok := guard.FromContext(r.Context())
	switch {
	case !ok:
	case o.Principal != nil:
		x.Identified(s.names.of(o.Principal.Subject))
	case o.Reason != identity.Accepted:
		x.Decide("token:" + o.Reason.String())
	case o.Result != identity.Anonymous && o.Result != identity.Limited:
		x.Decide("token:" + o.Result.String())
	}
}

func seenLimit(r *http.Request, d ratelimit.Decision) {
	if x, ok := guard.FromContext(r.Context()); ok && !d.Allowed {
		x.Decide("quota:" + strings.Join(d.Violated(), "+"))
	}
}

func seenUpstream(r *http.Request, o proxy.Outcome) {
	x, ok := guard.FromContext(r.Context())
	if !ok {
		return
	}
	if o.Reason != "" {
		x.Decide("upstream:" + string(o.Reason))
	}
	x.Note(slog.Int("upstream_status", o.Status), slog.Float64("upstream_ms", float64(o.FirstByte.Microseconds())/1000))
}

// pseudonyms name users in logs: the same user has the same name everywhere, and nobody without
// SECRET_KEY can tell who it is. The last names are remembered, a slot each.
type pseudonyms struct {
	key   []byte
	seed  maphash.Seed
	slots [1024]atomic.Pointer[pseudonym]
}

type pseudonym struct{ subject, name string }

func newPseudonyms(secret string) *pseudonyms {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "gantry pseudonyms", 32)
	if err != nil {
		panic(err) // only for a length that HKDF cannot give
	}
	return &pseudonyms{key: key, seed: maphash.MakeSeed()}
}

func (p *pseudonyms) of(subject string) string {
	slot := &p.slots[maphash.String(p.seed, subject)%uint64(len(p.slots))]
	if known := slot.Load(); known != nil && known.subject == subject {
		return known.name
	}
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte(subject))
	made := &pseudonym{subject: subject, name: "u_" + hex.EncodeToString(mac.Sum(nil)[:6])}
	slot.Store(made)
	return made.name
}

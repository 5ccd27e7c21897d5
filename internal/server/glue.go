package server

import (
	"cmp"
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
	"time"

	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
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

func arrived(r *http.Request) time.Time {
	if x, ok := guard.FromContext(r.Context()); ok {
		return x.Start
	}
	return time.Now()
}

// upstreamMargin, in milliseconds, is what the upstream's deadline is shorter by than ours, so that
// its own answer about it still gets through.
const upstreamMargin = 50

// setIdentityHeaders tells the upstream who calls and how long it has.
func setIdentityHeaders(r *http.Request, out http.Header) {
	if x, ok := guard.FromContext(r.Context()); ok {
		x.Enter(guard.Forwarding)
		out.Set("X-Request-Id", x.ID)
		setTrace(x, out)
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

// seenIdentity, seenLimit and seenUpstream put what the stages decided into the exchange, for the log line,
// the trace and `gantry explain`.
func (p *policy) seenIdentity(r *http.Request, o identity.Outcome) {
	x, ok := guard.FromContext(r.Context())
	if !ok {
		return
	}
	name := ""
	if o.Principal != nil {
		name = p.names.of(o.Principal.Subject)
	}
	x.Write(func(j *guard.Journal) {
		j.Identified(name)
		writeIdentity(j, o)
	})
	if o.Result == identity.Passed && p.signedIn != nil {
		p.signedIn()
	}
}

func writeIdentity(j *guard.Journal, o identity.Outcome) {
	switch {
	case o.Result == identity.Passed && o.Cached:
		j.Step(guard.StepIdentity, "passed, token known")
	case o.Result == identity.Passed, o.Result == identity.Anonymous:
		j.Step(guard.StepIdentity, o.Result.String())
	case o.Result == identity.Limited && o.Reason == identity.Accepted: // the limiter has said why
	default:
		j.Outcome(guard.StepIdentity, reasonOf(o))
		j.Decide("token:" + reasonOf(o))
	}
}

func reasonOf(o identity.Outcome) string {
	if o.Reason != identity.Accepted {
		return o.Reason.String()
	}
	return o.Result.String()
}

// beforeRefuse ends the identity step before the limiter is asked, so that its time is not taken for the
// token's; why the token was refused is added when it is known.
func (p *policy) beforeRefuse(w http.ResponseWriter, r *http.Request, c ratelimit.Caller) bool {
	if x, ok := guard.FromContext(r.Context()); ok {
		x.Write(func(j *guard.Journal) { j.Refuse(guard.StepIdentity, identity.Refused.String()) })
	}
	return p.limiter.Admit(w, r, c)
}

func (s *Server) seenLimit(r *http.Request, d ratelimit.Decision) {
	s.meters.limited(&d)
	if x, ok := guard.FromContext(r.Context()); ok {
		x.Write(func(j *guard.Journal) { writeLimit(j, &d) })
	}
}

func writeLimit(j *guard.Journal, d *ratelimit.Decision) {
	for _, q := range d.Quotas() {
		j.Count(guard.Limit{
			Policy: q.Policy, Limit: q.Rate.Limit, Used: q.Rate.Limit - q.Remaining,
			Window: q.Rate.Window, Reset: q.Reset, Violated: q.Violated,
		})
	}
	if d.Allowed {
		j.Step(guard.StepQuota, allowed(d.Mode))
		j.Admit()
		return
	}
	reason := cmp.Or(strings.Join(d.Violated(), "+"), outcomeOf(d))
	j.Step(guard.StepQuota, "refused: "+reason)
	j.Decide("quota:" + reason)
}

// allowed says who counted.
func allowed(m ratelimit.Mode) string {
	switch m {
	case ratelimit.Local:
		return "allowed, store failed: counted here alone"
	case ratelimit.Open:
		return "allowed, store failed: not counted"
	default:
		return "allowed"
	}
}

func (s *Server) seenUpstream(r *http.Request, o proxy.Outcome) {
	s.meters.forwarded(o)
	s.traffic.count(o)
	if x, ok := guard.FromContext(r.Context()); ok {
		x.Write(func(j *guard.Journal) { writeUpstream(j, o) })
	}
}

func writeUpstream(j *guard.Journal, o proxy.Outcome) {
	outcome := strconv.Itoa(o.Status)
	switch {
	case o.Reason != "":
		outcome = string(o.Reason)
		j.Decide("upstream:" + outcome)
	case o.Shielded:
		j.Decide("shielded")
	}
	switch {
	case o.Reason == proxy.ReasonTruncated:
		j.Outcome(guard.StepUpstream, outcome)
		return // the rest was noted when the answer began
	case o.Hidden:
		j.Call(guard.StepUpstream, "hidden: "+outcome, o.Started)
		j.Note(slog.Int("hidden_status", o.Status), slog.String("hidden_reason", string(o.Reason)))
		return
	case o.Retried:
		j.Note(slog.Bool("upstream_retried", true))
	}
	j.Forward(guard.Forward{Upstream: o.Upstream, Status: o.Status, Retried: o.Retried}, outcome, o.Started)
	j.Note(slog.Int("upstream_status", o.Status), slog.Float64("upstream_ms", float64(o.FirstByte.Microseconds())/1000))
}

// pseudonyms name users in logs: the same user has the same name everywhere, and nobody without
// SECRET_KEY can tell who it is. The last names are remembered, a slot each, and as many
// slots as verified tokens, so that few users share one.
type pseudonyms struct {
	key   []byte
	seed  maphash.Seed
	slots [16 << 10]atomic.Pointer[pseudonym]
}

type pseudonym struct{ subject, name string }

func newPseudonyms(secret config.Secret) *pseudonyms {
	return &pseudonyms{key: derive([]config.Secret{secret}, "gantry pseudonyms")[0], seed: maphash.MakeSeed()}
}

// derive makes a key for one purpose from each root (HKDF, RFC 5869), so that what is made for one
// purpose is worth nothing for another.
func derive(roots []config.Secret, purpose string) [][]byte {
	keys := make([][]byte, len(roots))
	for i, root := range roots {
		key, err := hkdf.Key(sha256.New, []byte(root.Reveal()), nil, purpose, 32)
		if err != nil {
			panic(err) // only for a length that HKDF cannot give
		}
		keys[i] = key
	}
	return keys
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

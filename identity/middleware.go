package identity

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// Result is how a request left the door.
type Result int

// The results. The zero value is none of them.
const (
	Unknown     Result = iota
	Passed             // with a principal
	Anonymous          // without a token, where that is allowed
	Missing            // 401: no token
	Refused            // 400 or 401: the token is not acceptable; see Reason
	KeysMissing        // 503: nobody can say
	Limited            // one of the Door's funcs has answered
	Barred             // the token is good, but Door.Bar has a reason against its bearer
)

// String returns the result as one word for a log field or a metric label.
func (r Result) String() string {
	names := [...]string{"unknown", "passed", "anonymous", "missing", "refused", "keys_missing", "limited", "barred"}
	if r < 0 || int(r) >= len(names) {
		return names[Unknown]
	}
	return names[r]
}

// Outcome is what happened to one request, for its log line.
type Outcome struct {
	Result Result
	// Reason is why the token was refused; it is kept when a Door func answered instead.
	Reason Reason
	// Cached says that the token was known and no signature was checked.
	Cached bool
	// Cookie says that the token came as a session cookie.
	Cookie bool
	// Principal is the caller when Result is Passed or Barred.
	Principal *Principal
}

// Door fits a [Verifier] into a server. Every field may be nil.
type Door struct {
	// Mode says what the route of a request asks for; nil means Required everywhere.
	Mode func(*http.Request) Mode
	// Secure says whether the client's own connection is encrypted, which a proxy in front may know
	// better; nil means r.TLS. It decides which Origin is our own.
	Secure func(*http.Request) bool
	// Arrived is when a request came, the time at which a remembered token is judged; nil asks
	// Config.Now. Whoever has read the clock for the request saves reading it again.
	Arrived func(*http.Request) time.Time
	// Bar is asked about every verified caller, and gives the answer for one who must not come in: whose
	// session was ended (problem.InvalidToken), say, or whose account is suspended. It is asked
	// for each request, also of a cached token, so it should look nothing up elsewhere.
	Bar func(*Principal) (answer problem.Details, barred bool)
	// BeforeVerify is asked before the signature of an unknown token is checked; false means that
	// it has answered the request itself.
	BeforeVerify func(http.ResponseWriter, *http.Request) bool
	// BeforeRefuse is asked before a refusal is written; false means that it has answered itself. Of a
	// barred caller the request's context has the principal.
	BeforeRefuse func(http.ResponseWriter, *http.Request) bool
	// Seen is told the outcome of each request whose token was looked at, before the handler runs
	// or after the refusal was written.
	Seen func(*http.Request, Outcome)
}

// Middleware returns a handler wrapper that lets in whom door's mode allows, with the principal in
// the request's context (see [FromContext]), and refuses all others in one and the same way.
func (v *Verifier) Middleware(door Door) func(http.Handler) http.Handler {
	door = door.withDefaults(v.cfg.Now)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mode := door.Mode(r)
			if mode == None {
				next.ServeHTTP(w, r)
				return
			}
			outcome, err := v.admit(w, r, door, mode)
			switch outcome.Result {
			case Passed:
				door.Seen(r, outcome)
				next.ServeHTTP(w, withPrincipal(r, outcome.Principal))
			case Anonymous:
				door.Seen(r, outcome)
				next.ServeHTTP(w, r)
			default:
				outcome = door.refuse(w, r, outcome, err)
				door.Seen(r, outcome)
			}
		})
	}
}

// withPrincipal copies the request only if its context cannot take p in place.
func withPrincipal(r *http.Request, p *Principal) *http.Request {
	if setInPlace(r.Context(), p) {
		return r
	}
	return r.WithContext(NewContext(r.Context(), p))
}

func (d Door) withDefaults(now func() time.Time) Door {
	ask := func(http.ResponseWriter, *http.Request) bool { return true }
	if d.Mode == nil {
		d.Mode = func(*http.Request) Mode { return Required }
	}
	if d.Secure == nil {
		d.Secure = func(r *http.Request) bool { return r.TLS != nil }
	}
	if d.Arrived == nil {
		d.Arrived = func(*http.Request) time.Time { return now() }
	}
	if d.Bar == nil {
		d.Bar = func(*Principal) (none problem.Details, barred bool) { return none, false }
	}
	if d.BeforeVerify == nil {
		d.BeforeVerify = ask
	}
	if d.BeforeRefuse == nil {
		d.BeforeRefuse = ask
	}
	if d.Seen == nil {
		d.Seen = func(*http.Request, Outcome) {}
	}
	return d
}

// admit decides about one request. It writes nothing itself; Limited means that the door has.
func (v *Verifier) admit(w http.ResponseWriter, r *http.Request, door Door, mode Mode) (Outcome, error) {
	given := extract(r, door.Secure(r))
	outcome := Outcome{Reason: given.fault, Cookie: given.cookie}
	switch {
	case given.fault != Accepted:
		outcome.Result = Refused
		return outcome, nil
	case given.token == "" && mode == Optional:
		outcome.Result = Anonymous
		return outcome, nil
	case given.token == "":
		outcome.Result = Missing
		return outcome, nil
	}
	p, known := v.cache.get(given.token, door.Arrived(r))
	if !known {
		if !door.BeforeVerify(w, r) {
			outcome.Result = Limited
			return outcome, nil
		}
		var err error
		if p, err = v.Verify(r.Context(), given.token); err != nil {
			return outcome.failed(err), err
		}
	}
	if given.cookie && !v.cookieAllowed(p) {
		outcome.Result, outcome.Reason = Refused, BadParty
		return outcome, nil
	}
	outcome.Cached, outcome.Principal = known, p
	if answer, barred := door.Bar(p); barred {
		outcome.Result = Barred
		return outcome, answer
	}
	outcome.Result = Passed
	return outcome, nil
}

func (o Outcome) failed(err error) Outcome {
	o.Result = KeysMissing
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		o.Result, o.Reason = Refused, refusal.Reason
	}
	return o
}

// cookieAllowed wants a cookie's token to name a party on the issuer's list: without one, any page
// that shares our parent domain could have had it issued.
func (v *Verifier) cookieAllowed(p *Principal) bool {
	s := v.byName[p.Issuer]
	return s.issuer.Profile == Clerk && slices.Contains(s.issuer.AuthorizedParties, p.AuthorizedParty)
}

// refuse answers, unless the door's owner would rather do so. The answer depends on nothing but
// the kind of failure (RFC 6750 section 3).
func (d Door) refuse(w http.ResponseWriter, r *http.Request, o Outcome, err error) Outcome {
	if o.Result == Limited {
		return o
	}
	if o.Result == Barred {
		r = withPrincipal(r, o.Principal)
	}
	if !d.BeforeRefuse(w, r) {
		o.Result = Limited
		return o
	}
	switch {
	case o.Result == Missing:
		challenge(w, "Bearer")
		problem.Write(w, r, problem.Unauthenticated)
	case o.Result == KeysMissing:
		problem.Write(w, r, unavailable(err))
	case o.Result == Barred:
		bar(w, r, err)
	case o.Reason == SeveralTokens || o.Reason == TokenInQuery:
		challenge(w, `Bearer error="invalid_request"`)
		problem.Write(w, r, problem.BadRequest)
	default:
		challenge(w, `Bearer error="invalid_token"`)
		problem.Write(w, r, problem.InvalidToken)
	}
	return o
}

// bar writes Door.Bar's answer; one that speaks of the token looks like any other refusal of a token.
func bar(w http.ResponseWriter, r *http.Request, err error) {
	answer, _ := errors.AsType[problem.Details](err)
	if answer.Status == http.StatusUnauthorized {
		challenge(w, `Bearer error="invalid_token"`)
	}
	problem.Write(w, r, answer)
}

func challenge(w http.ResponseWriter, text string) {
	w.Header().Set("WWW-Authenticate", text)
}

func unavailable(err error) problem.Details {
	if u, ok := errors.AsType[*Unavailable](err); ok {
		return problem.KeysMissing.After(u.RetryAfter)
	}
	return problem.KeysMissing.After(askEvery)
}

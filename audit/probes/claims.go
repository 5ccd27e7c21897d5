package probes

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

const (
	timeRoot    = "jwt-time"
	bindingRoot = "jwt-binding"
)

// maxLifetime of an access token before it counts as one that never ends.
const maxLifetime = 24 * time.Hour

func claims() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-14", Title: "Expired token", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Identity,
			Root: timeRoot, NeedsCredential: true, Confirms: true,
			Sends:        "the token given as expired, and one minted with `exp` an hour ago; when it is refused, two that expired within the clock skew and five times the skew ago",
			Passes:       "refused",
			Fails:        "accepted; a token that expired five times the allowed skew ago is a medium failure",
			Inconclusive: "there is no way to obtain an expired token",
			Guard:        "a skew of 60 s is allowed; the target's own clock counts, by its Date header; an untouched mint must be accepted first",
			Knobs:        []string{"--jwt-key", "--issuer-harness", "--token-expired"},
			Refs:         []string{"RFC 7519 section 4.1.4", "CWE-613", "ASVS 9.2.1"},
			Why:          "A token that leaked once, in a log or from a lost laptop, opens the account for ever.",
			Fix:          "Enforce exp with at most 60 s of clock skew.",
			Run:          expiredToken,
		},
		{
			ID: "JWT-15", Title: "Token that is not valid yet", Severity: audit.High, Mode: audit.Safe, Category: audit.Identity,
			Root: timeRoot, NeedsCredential: true, Confirms: true,
			Sends:        "minted tokens with `nbf` in an hour, and with `iat` in a day",
			Passes:       "the one with `nbf` is refused; what happens to `iat` is only remarked",
			Fails:        "the one with `nbf` is accepted",
			Inconclusive: "no token can be minted",
			Guard:        "an untouched mint must be accepted first",
			Knobs:        []string{"--jwt-key", "--issuer-harness"},
			Refs:         []string{"RFC 7519 section 4.1.5", "ASVS 9.2.1"},
			Why:          "Access that was granted from a date on works at once, and an issuer's wrong clock goes unnoticed.",
			Fix:          "Verify nbf when it is there.",
			Run:          futureToken,
		},
		{
			ID: "JWT-16", Title: "Token without an end, or with a far one", Severity: audit.High, Mode: audit.Passive, Category: audit.Identity,
			Root: timeRoot, NeedsCredential: true, Confirms: true,
			Sends:        "nothing for the given token's own `exp` and `iat`; a minted token without `exp`",
			Passes:       "the given token lives at most 24 hours, and the one without `exp` is refused",
			Fails:        "the given token has no `exp` or lives longer, or the one without `exp` is accepted",
			Inconclusive: "the token is opaque, or none can be minted",
			Guard:        "several libraries accept a missing exp unless told otherwise (PyJWT 2.6.0, golang-jwt 4.5.1), so a good token alone proves nothing",
			Knobs:        []string{"--token", "--jwt-key", "--issuer-harness"},
			Refs:         []string{"RFC 8725 section 3.8", "CWE-613"},
			Why:          "A stolen token stays useful for as long as it lives; nobody notices the one that lives for ever.",
			Fix:          "Require exp, iat and sub, and issue access tokens for 5 to 60 minutes.",
			Run:          endlessToken,
		},
		{
			ID: "JWT-17", Title: "Token for another audience or client", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Identity,
			Root: bindingRoot, NeedsCredential: true, Confirms: true,
			Sends:        "the token given as another client's; minted tokens with another `aud`, none, a list without this API, and another `azp` or `client_id`",
			Passes:       "refused",
			Fails:        "accepted",
			Inconclusive: "no token can be minted and no token of another audience was given; the API is declared to take any audience; or its tokens name neither audience nor issuer and are signed with a secret, which it may hold alone",
			Guard:        "an untouched mint must be accepted first; azp and client_id are judged only when the tokens carry no aud, because an API that checks aud need not check them",
			Knobs:        []string{"--jwt-key", "--issuer-harness", "--token-other-aud"},
			Refs:         []string{"RFC 8725 section 3.9", "RFC 9068 section 4", "ASVS 9.2.3", "ASVS 10.3.1"},
			Why:          "Any other application of the same issuer, and whoever runs it, can use its users' tokens here.",
			Fix:          "Set the expected audience, and refuse a token that has none.",
			Run:          wrongAudience,
		},
		{
			ID: "JWT-18", Title: "Token of another issuer", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Identity,
			Root: bindingRoot, NeedsCredential: true, Confirms: true,
			Sends:        "minted tokens with another `iss`, none, the right one with a host name appended, and the right one with the final slash added or removed",
			Passes:       "refused",
			Fails:        "accepted; the final slash alone is a low failure",
			Inconclusive: "no token can be minted, or the tokens name neither audience nor issuer and are signed with a secret",
			Guard:        "an untouched mint must be accepted first",
			Knobs:        []string{"--jwt-key", "--issuer-harness"},
			Refs:         []string{"RFC 8725 section 3.8", "ASVS 9.1.3"},
			Why:          "The day a second issuer shares a key or a key server, its users become yours.",
			Fix:          "Compare iss exactly, and choose the keys by it.",
			Run:          wrongIssuer,
		},
		{
			ID: "JWT-19", Title: "Token of another kind", Severity: audit.High, Mode: audit.Safe, Category: audit.Identity,
			NeedsCredential: true, Confirms: true,
			Sends:        "the given ID and refresh tokens as access tokens; minted tokens whose `typ` is `logout+jwt`, or `JWT` where the API's own say `at+jwt`, or whose `token_use`, `token_type` or `typ` claim names another kind",
			Passes:       "refused",
			Fails:        "accepted",
			Inconclusive: "there is no token of another kind, and none can be minted",
			Guard:        "an untouched mint must be accepted first; an expired ID token proves nothing and is not sent; `logout+jwt` is medium where the issuer does not call its access tokens `at+jwt`",
			Knobs:        []string{"--id-token", "--refresh-token", "--jwt-key", "--issuer-harness"},
			Refs:         []string{"RFC 8725 section 3.11", "RFC 9068 section 4", "ASVS 9.2.2"},
			Why:          "A token that was made for a browser to read, or to live for months, calls the API.",
			Fix:          "Check typ and token_use.",
			Run:          otherKind,
		},
	}
}

func expiredToken(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	now := targetNow(s)
	if exp, ok := end(s); ok && exp.Add(5*s.Policy().JWTSkew).Before(now) {
		return audit.Failed("the given token expired at %s and is accepted", exp.UTC().Format(time.RFC3339)).With(s.Calibration().Valid), nil
	}
	var given audit.Verdict
	if t := s.Target().TokenExpired; t != "" && !livesOn(t, now) {
		v, err := judgeMinted(ctx, s, []minted{{label: "the token given as expired", token: t}})
		if err != nil || v.Outcome != audit.Pass {
			return v, err
		}
		given = v
	}
	m, err := minting(ctx, s)
	if err != nil {
		if given.Outcome == audit.Pass {
			return given, nil
		}
		return cannotExpire(s, now), err
	}
	v, err := judgeExpired(ctx, s, m, time.Hour, 0)
	if err != nil || v.Outcome != audit.Pass {
		return v, err
	}
	return judgeSkew(ctx, s, m, v)
}

// end is the exp of the given token.
func end(s *audit.Session) (time.Time, bool) {
	t, err := s.Token()
	if err != nil {
		return time.Time{}, false
	}
	return instant(t.Payload, "exp")
}

// instant is a NumericDate (RFC 7519 section 2).
func instant(payload []byte, name string) (time.Time, bool) {
	var m map[string]json.RawMessage
	var seconds float64
	if json.Unmarshal(payload, &m) != nil || m[name] == nil || json.Unmarshal(m[name], &seconds) != nil {
		return time.Time{}, false
	}
	if seconds < 0 || seconds > 1e11 {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// livesOn says whether a token names an end that has not come yet.
func livesOn(token string, now time.Time) bool {
	t, err := jws.Parse(token)
	if err != nil {
		return false
	}
	exp, ok := instant(t.Payload, "exp")
	return ok && exp.After(now)
}

// cannotExpire says how to get an expired token. The audit does not wait for the given one to end: every later probe needs it.
func cannotExpire(s *audit.Session, now time.Time) audit.Verdict {
	hint := canMint + " or --token-expired"
	if exp, ok := end(s); ok && exp.After(now) && exp.Sub(now) < 10*time.Minute {
		hint += fmt.Sprintf(" (the given token will do in %s)", exp.Sub(now).Round(time.Second))
	}
	return audit.Unproven("").Unlock("%s", hint)
}

func judgeExpired(ctx context.Context, s *audit.Session, m *mint, ago time.Duration, severity audit.Severity) (audit.Verdict, error) {
	exp := m.now.Add(-ago)
	change := map[string]any{"exp": exp.Unix(), "iat": exp.Add(-time.Hour).Unix()}
	if jws.Has(m.Base().Payload, "nbf") {
		change["nbf"] = change["iat"]
	}
	t, err := m.like(fmt.Sprintf("a token that expired %s ago", ago), nil, change)
	if err != nil {
		return audit.Verdict{}, err
	}
	t.severity = severity
	return judgeMinted(ctx, s, []minted{t})
}

// judgeSkew finds out how late is late: within the allowed skew a token may still be taken, at five times it may not.
func judgeSkew(ctx context.Context, s *audit.Session, m *mint, passed audit.Verdict) (audit.Verdict, error) {
	skew := s.Policy().JWTSkew
	v, err := judgeExpired(ctx, s, m, skew+5*time.Second, 0)
	if err != nil || v.Outcome != audit.Fail {
		return passed, err
	}
	v, err = judgeExpired(ctx, s, m, 5*skew, audit.Medium)
	if err != nil || v.Outcome == audit.Fail {
		return v, err
	}
	passed.Message += fmt.Sprintf("; the clock skew allowed is more than %s and less than %s", skew, 5*skew)
	return passed, nil
}

func futureToken(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	m, err := minting(ctx, s)
	if err != nil {
		return cannotMint(), err
	}
	hour, day := m.now.Add(time.Hour).Unix(), m.now.Add(24*time.Hour).Unix()
	notYet, err := m.like("nbf in an hour", nil, map[string]any{"nbf": hour, "exp": hour + 3600})
	if err != nil {
		return audit.Verdict{}, err
	}
	early, err := m.like("iat in a day", nil, map[string]any{"iat": day, "exp": day + 3600})
	if err != nil {
		return audit.Verdict{}, err
	}
	early.remark = true
	return judgeMinted(ctx, s, []minted{notYet, early})
}

func endlessToken(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t, err := s.Token()
	if err != nil {
		return audit.Unproven("%v", err), nil
	}
	lives, v := lifetime(t, targetNow(s))
	if h := s.Harness(); h != nil && jws.Member(t.Payload, "iss") == h.URL {
		lives, v = "the given token is the audit's own", audit.Passed("")
	}
	if v.Outcome == audit.Fail {
		return v.With(s.Calibration().Valid), nil
	}
	m, err := minting(ctx, s)
	if err != nil {
		return cannotMint(), fmt.Errorf("%s; whether one without exp is refused was not tried: %w", lives, err)
	}
	without, err := m.like("a token without exp", nil, map[string]any{"exp": nil})
	if err != nil {
		return audit.Verdict{}, err
	}
	judged, err := judgeMinted(ctx, s, []minted{without})
	if err != nil || judged.Outcome != audit.Pass {
		return judged, err
	}
	if v.Outcome != audit.Pass {
		return v.With(judged.Evidence...), nil
	}
	judged.Message = lives + "; " + judged.Message
	return judged, nil
}

// lifetime judges the given token's own times. Without iat the time that is left is all that can be seen.
func lifetime(t jws.Token, now time.Time) (lives string, v audit.Verdict) {
	exp, ok := instant(t.Payload, "exp")
	if !ok {
		return "", audit.Failed("the given token has no exp: it never ends")
	}
	from, known := instant(t.Payload, "iat")
	if !known {
		from, known = instant(t.Payload, "nbf")
	}
	if !known {
		from = now
	}
	lives = fmt.Sprintf("the given token lives %s", exp.Sub(from).Round(time.Second))
	switch {
	case exp.Sub(from) > maxLifetime:
		return lives, audit.Failed("%s, more than %s", lives, maxLifetime)
	case !known:
		return lives, audit.Unproven("the given token has no iat, so how long it lives in all cannot be seen")
	}
	return lives, audit.Passed("%s", lives)
}

// Names that no issuer gives.
const (
	otherAudience = "https://gantry-other-api.example"
	otherIssuer   = "https://gantry-other-issuer.example"
)

func wrongAudience(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if why := s.Declared(); why != "" {
		return audit.Unproven("declared to take any audience: %s", why), nil
	}
	var given audit.Verdict
	if t := s.Target().TokenOtherAudience; t != "" && forAnother(s, t) {
		v, err := judgeMinted(ctx, s, []minted{{label: "the given token of another audience", token: t}})
		if err != nil || v.Outcome != audit.Pass {
			return v, err
		}
		given = v
	}
	m, err := minting(ctx, s)
	if err != nil {
		if given.Outcome == audit.Pass {
			return given, nil
		}
		return audit.Unproven("").Unlock("%s or --token-other-aud", canMint), err
	}
	if m.selfIssued() {
		return audit.Unproven(bindsNothing).Unlock("--token-other-aud"), nil
	}
	list, err := m.audiences()
	if err != nil {
		return audit.Verdict{}, err
	}
	return judgeMinted(ctx, s, list)
}

// bindsNothing is why tokens without a name on them are not judged by the names that mints carry.
const bindsNothing = "the tokens name no audience, client or issuer and are signed with a secret: that is no fault of an API which alone holds it, and a hole where another application signs with it too"

// selfIssued: tokens as an API makes them that issues its own. RFC 8725 section 3.9 asks for aud where one issuer serves
// more than one API.
func (m *mint) selfIssued() bool {
	base := m.Base()
	for _, name := range []string{"aud", "azp", "client_id", "iss"} {
		if jws.Has(base.Payload, name) {
			return false
		}
	}
	return strings.HasPrefix(jws.Member(base.Header, "alg"), "HS")
}

// forAnother says whether a token given as another client's is usable: alive, and different in what binds it.
func forAnother(s *audit.Session, token string) bool {
	other, err := jws.Parse(token)
	if err != nil {
		return token != s.Target().Token // opaque: its owner must know
	}
	own, err := s.Token()
	if err != nil || !livesOn(token, targetNow(s)) {
		return err != nil
	}
	a, _ := own.Claims()
	b, _ := other.Claims()
	for _, name := range []string{"aud", "azp", "client_id"} {
		if !reflect.DeepEqual(a[name], b[name]) {
			return true
		}
	}
	return false
}

// audiences are the ways of naming somebody else. Where tokens carry no aud but a client, the client is what binds.
func (m *mint) audiences() ([]minted, error) {
	base := m.Base().Payload
	client := ""
	for _, name := range []string{"azp", "client_id"} {
		if jws.Has(base, name) {
			client = name
			break
		}
	}
	hasAudience := jws.Has(base, "aud")
	byClient := !hasAudience && client != ""
	kinds := []change{
		{"aud names another API", map[string]any{"aud": otherAudience}, byClient},
		{"aud is a list without this API", map[string]any{"aud": []string{otherAudience, otherAudience + "/2"}}, byClient},
	}
	if hasAudience {
		kinds = append(kinds, change{"no aud", map[string]any{"aud": nil}, false})
	}
	if client != "" {
		kinds = append(kinds, change{client + " names another client", map[string]any{client: "gantry-other-client"}, !byClient})
	}
	return m.changes(kinds)
}

// change of claims; remark as in minted.
type change struct {
	label  string
	claims map[string]any
	remark bool
}

func (m *mint) changes(kinds []change) ([]minted, error) {
	var list []minted
	for _, k := range kinds {
		t, err := m.like(k.label, nil, k.claims)
		if err != nil {
			return nil, err
		}
		t.remark = k.remark
		list = append(list, t)
	}
	return list, nil
}

func wrongIssuer(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	m, err := minting(ctx, s)
	if err != nil {
		return cannotMint(), err
	}
	if m.selfIssued() {
		return audit.Unproven(bindsNothing), nil
	}
	kinds := []change{{"another iss", map[string]any{"iss": otherIssuer}, false}}
	issuer := jws.Member(m.Base().Payload, "iss")
	if issuer != "" {
		bare := strings.TrimRight(issuer, "/")
		slash := bare
		if bare == issuer {
			slash += "/"
		}
		kinds = append(
			kinds,
			change{"no iss", map[string]any{"iss": nil}, false},
			change{"iss with a host name appended", map[string]any{"iss": bare + ".gantry.example"}, false},
			change{"iss that differs by the final slash", map[string]any{"iss": slash}, false},
		)
	}
	list, err := m.changes(kinds)
	if err != nil {
		return audit.Verdict{}, err
	}
	if issuer != "" {
		list[len(list)-1].severity = audit.Low
	}
	return judgeMinted(ctx, s, list)
}

func otherKind(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	now := targetNow(s)
	var list []minted
	for _, given := range []minted{
		{label: "the ID token", token: s.Target().IDToken},
		{label: "the refresh token", token: s.Target().RefreshToken},
	} {
		if t, err := jws.Parse(given.token); err == nil && jws.Has(t.Payload, "exp") && !livesOn(given.token, now) {
			continue
		}
		if given.token != "" && given.token != s.Target().Token {
			list = append(list, given)
		}
	}
	m, err := minting(ctx, s)
	if err != nil && len(list) == 0 {
		return audit.Unproven("").Unlock("--id-token, --refresh-token, %s", canMint), err
	}
	if err == nil {
		kinds, err := m.kinds()
		if err != nil {
			return audit.Verdict{}, err
		}
		list = append(list, kinds...)
	}
	return judgeMinted(ctx, s, list)
}

// kinds are mints that say they are something else. Which claim says it depends on the issuer: Cognito has token_use, Simple
// JWT token_type, Keycloak typ. Most issuers call all their tokens JWT, and no library looks at that by itself: there a
// foreign typ is the last of the list and of medium severity, since nobody promised that it means anything.
func (m *mint) kinds() ([]minted, error) {
	typed := strings.EqualFold(strings.TrimPrefix(jws.Member(m.Base().Header, "typ"), "application/"), "at+jwt")
	var kinds []change
	for _, other := range [][2]string{{"token_use", "id"}, {"token_type", "refresh"}, {"typ", "Refresh"}} {
		if jws.Has(m.Base().Payload, other[0]) {
			kinds = append(kinds, change{"the claim " + other[0] + " says " + other[1], map[string]any{other[0]: other[1]}, false})
		}
	}
	list, err := m.changes(kinds)
	if err != nil {
		return nil, err
	}
	logout, err := m.like("typ logout+jwt", map[string]any{"typ": "logout+jwt"}, nil)
	if err != nil || !typed {
		logout.severity = audit.Medium
		return append(list, logout), err
	}
	plain, err := m.like("typ JWT", map[string]any{"typ": "JWT"}, nil)
	return append(list, logout, plain), err
}

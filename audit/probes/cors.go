package probes

import (
	"context"
	"net/http"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func crossOrigin() []audit.Probe {
	return []audit.Probe{{
		ID: "TRN-03", Title: "Cross-origin reads", Severity: audit.High, Mode: audit.Safe, Category: audit.Transport,
		Sends:  "the protected path, and its preflight, with the Origin of a stranger, `null`, a name that begins like the target's, and http for https",
		Passes: "no Access-Control-Allow-Origin, a fixed one, or `*` without credentials",
		Fails:  "the strange origin comes back with Access-Control-Allow-Credentials: true; critical where a cookie signs in; `*` with credentials is low, because browsers refuse it",
		Guard:  "whether a cookie signs in is tried out, not guessed from its name",
		Refs:   []string{"CWE-942", "ASVS 3.4.2"},
		Why:    "Any page that a signed-in user visits can read the API with that user's cookies.",
		Fix:    "Compare the origin with a list, whole and exact; never reflect it; add Vary: Origin.",
		Run:    reflectedOrigin,
	}}
}

func reflectedOrigin(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	path := s.Calibration().Path
	open, wildcard := (*audit.Exchange)(nil), (*audit.Exchange)(nil)
	var last *audit.Exchange
	for _, origin := range strangeOrigins(s.Target()) {
		for _, method := range []string{http.MethodGet, http.MethodOptions} {
			x, err := s.Do(ctx, crossRequest(s.Target(), path, method, origin))
			if err != nil {
				return audit.Verdict{}, err
			}
			if x.Status == 0 {
				return audit.Unproven("no answer to a request with an Origin: %v", x.Err).With(x), nil
			}
			allowed, credentials := x.Header.Get("Access-Control-Allow-Origin"), x.Header.Get("Access-Control-Allow-Credentials") == "true"
			switch {
			case credentials && allowed == origin:
				return strangerReads(ctx, s, x, origin)
			case credentials && allowed == "*" && wildcard == nil:
				wildcard = x
			case (allowed == origin || allowed == "*") && open == nil:
				open = x
			}
			last = x
		}
	}
	switch {
	case wildcard != nil:
		return audit.Failed("Access-Control-Allow-Origin is * with credentials: browsers refuse it, and somebody meant something else").As(audit.Low).With(wildcard), nil
	case open != nil:
		return audit.Passed("strangers may read what needs no cookie (%s), and nothing with one", open.Header.Get("Access-Control-Allow-Origin")).With(open), nil
	}
	return audit.Passed("no strange origin is let in").With(last), nil
}

func crossRequest(t *audit.Target, path, method, origin string) audit.Request {
	r := audit.Request{Method: method, Path: path, Token: t.Token, Header: audit.Header("Origin", origin), Label: "Origin: " + origin}
	if method == http.MethodOptions {
		r.Token = "" // a preflight carries no credential
		r.Header.Set("Access-Control-Request-Method", http.MethodGet)
		r.Header.Set("Access-Control-Request-Headers", "authorization")
	}
	return r
}

func strangeOrigins(t *audit.Target) []string {
	list := []string{"https://gantry-probe.invalid", "null", "https://" + strings.Trim(t.URL.Hostname(), "[]") + ".evil.invalid"}
	if t.URL.Scheme == "https" {
		list = append(list, "http://"+t.URL.Host)
	}
	return list
}

func strangerReads(ctx context.Context, s *audit.Session, x *audit.Exchange, origin string) (audit.Verdict, error) {
	cookie, err := sessionCookie(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if cookie != nil {
		return audit.Failed("the origin %s may read with credentials, and the cookie %s signs in", origin, cookie.cookie.Name).As(audit.Critical).With(x), nil
	}
	return audit.Failed("the origin %s may read with credentials", origin).With(x), nil
}

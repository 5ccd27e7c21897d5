package identity

import (
	"net/http"
	"net/url"
	"strings"
)

// Where a token may stand in a request. RFC 6750 section 2.1 is the way; the query (2.3) leaks into
// logs and referrers and is refused; the body (2.2) is never read. Clerk's session cookie counts
// only for requests that the browser says come from our own pages, because a cookie travels with
// everybody's requests.

// sessionCookie is the cookie Clerk's front end keeps the session token in.
const sessionCookie = "__session"

// credentials is the token of a request; token is "" when there is none.
type credentials struct {
	token  string
	cookie bool   // it came as a cookie: its azp must be on the list
	fault  Reason // the request holds tokens in a way that is not allowed
}

// extract finds the token of r. secure says that the client's own connection is encrypted.
func extract(r *http.Request, secure bool) credentials {
	if tokenInQuery(r.URL.RawQuery) {
		return credentials{fault: TokenInQuery}
	}
	switch header := r.Header["Authorization"]; len(header) {
	case 0:
		return fromCookie(r, secure)
	case 1:
		if token, ok := bearer(header[0]); ok {
			return credentials{token: token}
		}
		return credentials{} // another scheme: no concern of ours
	default:
		return credentials{fault: SeveralTokens}
	}
}

// bearer returns what follows the scheme, which is compared without regard to case (RFC 9110
// section 11.1). A bare "Bearer" is a bad token, not a missing one.
func bearer(header string) (string, bool) {
	const scheme = "bearer"
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	rest := header[len(scheme):]
	if rest == "" {
		return noToken, true
	}
	if rest[0] != ' ' {
		return "", false
	}
	if rest = strings.TrimLeft(rest, " "); rest == "" {
		return noToken, true
	}
	return rest, true
}

// noToken stands for an empty one; no gate lets it pass.
const noToken = " "

// tokenInQuery finds access_token among the names of a query, in any spelling that some server
// behind us might take for it.
func tokenInQuery(query string) bool {
	for query != "" {
		var pair string
		if i := strings.IndexAny(query, "&;"); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			pair, query = query, ""
		}
		name, _, _ := strings.Cut(pair, "=")
		if strings.Contains(name, "%") {
			if plain, err := url.QueryUnescape(name); err == nil {
				name = plain
			}
		}
		if name == "access_token" {
			return true
		}
	}
	return false
}

// fromCookie returns the session cookie of a same-origin request. Two of them mean that somebody
// else could set one, so neither is believed.
func fromCookie(r *http.Request, secure bool) credentials {
	if len(r.Header["Cookie"]) == 0 || !sameOrigin(r, secure) {
		return credentials{}
	}
	cookies := r.CookiesNamed(sessionCookie)
	switch {
	case len(cookies) > 1:
		return credentials{fault: SeveralTokens}
	case len(cookies) == 0 || cookies[0].Value == "":
		return credentials{}
	default:
		return credentials{token: cookies[0].Value, cookie: true}
	}
}

// sameOrigin says whether the browser vouches that r comes from a page of this very origin: by
// Sec-Fetch-Site (Fetch Metadata, section 2.3), or by an Origin that is ours. A header that speaks
// against it wins over one that speaks for it.
func sameOrigin(r *http.Request, secure bool) bool {
	site, origin := r.Header["Sec-Fetch-Site"], r.Header["Origin"]
	if len(site) > 1 || len(origin) > 1 {
		return false
	}
	if len(site) == 1 && site[0] != "same-origin" {
		return false
	}
	if len(origin) == 1 {
		return isOwnOrigin(origin[0], r.Host, secure)
	}
	return len(site) == 1
}

// isOwnOrigin compares an Origin header with the scheme and host that the client asked for.
func isOwnOrigin(origin, host string, secure bool) bool {
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	rest, ok := strings.CutPrefix(origin, scheme)
	return ok && host != "" && strings.EqualFold(rest, host)
}

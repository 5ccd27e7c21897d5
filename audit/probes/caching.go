package probes

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func caching() []audit.Probe {
	return []audit.Probe{
		{
			ID: "TRN-04", Title: "Private answers in caches, and their media type", Severity: audit.High, Mode: audit.Passive, Category: audit.Transport,
			Sends:        "nothing: reads the answers that the valid token got on the protected path, on object A and on secured operations",
			Passes:       "Cache-Control: no-store or private; nosniff; the media type that the body has",
			Fails:        "public, or a max-age without private; a CDN's hit; JSON under text/html. Low: no Cache-Control, no nosniff, JSON as plain text; medium: private HTML that may be framed",
			Inconclusive: "no token was given, or its answers were not seen",
			Guard:        "Content-Security-Policy and X-Frame-Options are asked of text/html only: an API is not a web page",
			Knobs:        []string{"--token"},
			Refs:         []string{"RFC 9111 section 3.5", "ASVS 3.4.4", "ASVS 4.1.1", "CWE-525"},
			Why:          "A CDN or a shared browser then hands one customer's data to the next.",
			Fix:          "Send Cache-Control: no-store and X-Content-Type-Options: nosniff with every authenticated answer.",
			Run:          privateAnswers,
		},
		{
			ID: "TRN-05", Title: "Cookies and HSTS", Severity: audit.High, Mode: audit.Passive, Category: audit.Transport,
			Sends:        "the protected path with each cookie that the API set and no token, to see which of them signs in; five requests at most",
			Passes:       "Secure, HttpOnly and SameSite on the cookie that signs in; Strict-Transport-Security of a year over https",
			Fails:        "an attribute missing on that cookie; HSTS missing or shorter is medium",
			Inconclusive: "cookies were set and cannot be tried; not applicable without cookies and TLS",
			Guard:        "a session cookie is known by what it does, not by its name; Secure cannot be judged over plain HTTP",
			Refs:         []string{"RFC 6797", "CWE-614", "CWE-1004", "ASVS 3.4.1"},
			Why:          "A session cookie that scripts or plain HTTP can see is a session that others can have.",
			Fix:          "Set Secure, HttpOnly and SameSite=Lax on the session cookie, and HSTS for a year at the edge.",
			Run:          cookiesAndHSTS,
		},
	}
}

// complaint about an answer.
type complaint struct {
	severity audit.Severity
	text     string
}

func privateAnswers(_ context.Context, s *audit.Session) (audit.Verdict, error) {
	t := s.Target()
	if t.Token == "" {
		return audit.Unproven("no token was given").Unlock("--token"), nil
	}
	seen := map[string]bool{}
	worst := complaint{}
	var texts []string
	var evidence []*audit.Exchange
	for _, x := range s.History() {
		if !x.OK() || x.Request.Method != http.MethodGet || x.Request.Token != t.Token || len(x.Body) == 0 || !isPrivate(s, x) {
			continue
		}
		if seen[pathOnly(x)] {
			continue
		}
		seen[pathOnly(x)] = true
		for _, c := range complaints(x) {
			if !strings.Contains(strings.Join(texts, "\n"), c.text) {
				texts = append(texts, c.text)
			}
			if c.severity > worst.severity {
				worst = c
				evidence = append([]*audit.Exchange{x.Noted("%s", c.text)}, evidence...)
			}
		}
		if len(evidence) == 0 {
			evidence = append(evidence, x)
		}
	}
	switch {
	case len(seen) == 0:
		return audit.Unproven("no private answer was seen: %s", privateWhy(s)).Unlock("--token and --protected-path"), nil
	case worst.severity > 0:
		return audit.Failed("%s", strings.Join(texts, "; ")).As(worst.severity).With(evidence[:min(len(evidence), 3)]...), nil
	}
	return audit.Passed("%d private paths stay out of caches and say what they are", len(seen)).With(evidence[0]), nil
}

func privateWhy(s *audit.Session) string {
	if why := s.Calibration().Why; why != "" {
		return why
	}
	return "none of the answers to the token succeeded"
}

// isPrivate says that an answer is one user's: of the calibrated path, of object A, or of a secured operation.
func isPrivate(s *audit.Session, x *audit.Exchange) bool {
	c, path := s.Calibration(), pathOnly(x)
	calibrated, _, _ := strings.Cut(c.Path, "?")
	if c.Tells && path == calibrated {
		return true
	}
	object, _, _ := strings.Cut(s.Target().ObjectA, "?")
	if object != "" && path == object {
		return true
	}
	for _, op := range s.Target().Operations {
		if op.Secured && op.Method == http.MethodGet && matchTemplate(op.Path, path) != nil {
			return true
		}
	}
	return false
}

// complaints about the headers of a private answer.
func complaints(x *audit.Exchange) []complaint {
	var list []complaint
	add := func(s audit.Severity, format string, args ...any) {
		list = append(list, complaint{s, pathOnly(x) + ": " + fmt.Sprintf(format, args...)})
	}
	control := x.Header.Get("Cache-Control")
	switch d := directives(control); {
	case d.has("no-store"), d.has("private"):
	case d.has("public"), d.seconds("max-age") > 0, d.seconds("s-maxage") > 0:
		add(audit.High, "a private answer may be kept by caches (Cache-Control: %s)", control)
	case cacheHit(x.Header):
		add(audit.High, "a shared cache answered a private request")
	case control == "":
		add(audit.Low, "there is no Cache-Control")
	}
	media, _, _ := mime.ParseMediaType(x.Header.Get("Content-Type"))
	isJSON := json.Valid(x.Body) && (x.Body[0] == '{' || x.Body[0] == '[')
	switch {
	case isJSON && media == "text/html":
		add(audit.High, "JSON is sent as text/html, which browsers run")
	case isJSON && !strings.HasSuffix(media, "json"):
		add(audit.Low, "JSON is sent as %s", mediaName(media))
	case media == "text/html" && !framed(x.Header):
		add(audit.Medium, "private HTML has neither X-Frame-Options nor a Content-Security-Policy with frame-ancestors")
	}
	if !strings.EqualFold(strings.TrimSpace(x.Header.Get("X-Content-Type-Options")), "nosniff") {
		add(audit.Low, "there is no X-Content-Type-Options: nosniff")
	}
	return list
}

func framed(h http.Header) bool {
	return h.Get("X-Frame-Options") != "" || strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors")
}

// cacheHit says that a shared cache says that it answered.
func cacheHit(h http.Header) bool {
	age, err := strconv.Atoi(h.Get("Age"))
	return err == nil && age > 0 || strings.HasPrefix(strings.ToUpper(h.Get("X-Cache")), "HIT") || strings.EqualFold(h.Get("CF-Cache-Status"), "HIT")
}

// directives of Cache-Control (RFC 9111 section 5.2), lower case.
type directives string

func (d directives) has(name string) bool {
	for part := range strings.SplitSeq(strings.ToLower(string(d)), ",") {
		key, _, _ := strings.Cut(strings.TrimSpace(part), "=")
		if key == name {
			return true
		}
	}
	return false
}

func (d directives) seconds(name string) int {
	for part := range strings.SplitSeq(strings.ToLower(string(d)), ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if n, err := strconv.Atoi(strings.Trim(value, `"`)); key == name && err == nil {
			return n
		}
	}
	return 0
}

// setCookie is a cookie with the answer that set it.
type setCookie struct {
	cookie *http.Cookie
	by     *audit.Exchange
}

const (
	triedCookies = 5
	yearSeconds  = 365 * 24 * 3600
)

// cookies that the target set so far, the last of each name.
func cookies(s *audit.Session) []setCookie {
	var list []setCookie
	place := map[string]int{}
	for _, x := range s.History() {
		for _, c := range (&http.Response{Header: x.Header}).Cookies() {
			if c.Value == "" || c.MaxAge < 0 {
				continue // being deleted
			}
			if i, known := place[c.Name]; known {
				list[i] = setCookie{c, x}
				continue
			}
			place[c.Name] = len(list)
			list = append(list, setCookie{c, x})
		}
	}
	return list
}

// sessionCookie is the cookie that signs in by itself on the calibrated path; nil when none does or none can be tried.
func sessionCookie(ctx context.Context, s *audit.Session) (*setCookie, error) {
	if !s.Calibration().Tells {
		return nil, nil
	}
	list := cookies(s)
	for i, c := range list[:min(len(list), triedCookies)] {
		s.Hide(c.cookie.Value)
		r := audit.Request{Path: s.Calibration().Path, Header: audit.Header("Cookie", c.cookie.Name+"="+c.cookie.Value), Label: "no token, cookie " + c.cookie.Name}
		x, err := s.Do(ctx, r)
		if err != nil {
			return nil, err
		}
		if s.Accepted(x) {
			return &list[i], nil
		}
	}
	return nil, nil
}

func cookiesAndHSTS(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	secure := s.Target().URL.Scheme == "https"
	all := cookies(s)
	session, err := sessionCookie(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if session != nil {
		if missing := missingAttributes(session.cookie, secure); len(missing) > 0 {
			return audit.Failed("the cookie %s signs in and is without %s", session.cookie.Name, strings.Join(missing, ", ")).With(session.by), nil
		}
	}
	if secure {
		if v := hsts(s); v.Outcome == audit.Fail {
			return v, nil
		}
	}
	switch {
	case len(all) > 0 && !s.Calibration().Tells:
		return audit.Unproven("cookies are set, and whether one signs in cannot be tried: %s", s.Calibration().Why).With(all[0].by).Unlock("--token and --protected-path"), nil
	case session != nil && !secure && !session.cookie.Secure:
		return audit.Unproven("the cookie %s has no Secure, which cannot be judged over plain HTTP", session.cookie.Name).With(session.by).Unlock("the https address"), nil
	case session != nil:
		return audit.Passed("the cookie %s, which signs in, has its attributes", session.cookie.Name).With(session.by), nil
	case secure:
		return audit.Passed("HSTS is set, and no cookie signs in"), nil
	case len(all) > 0:
		return audit.DoesNotApply("none of the cookies set signs in, and there is no TLS"), nil
	}
	return audit.DoesNotApply("no cookie was set, and there is no TLS"), nil
}

func missingAttributes(c *http.Cookie, secure bool) []string {
	var missing []string
	if secure && !c.Secure {
		missing = append(missing, "Secure")
	}
	if !c.HttpOnly {
		missing = append(missing, "HttpOnly")
	}
	if c.SameSite == 0 || c.SameSite == http.SameSiteDefaultMode {
		missing = append(missing, "SameSite")
	}
	return missing
}

// hsts judges the calibrated answers (RFC 6797 section 6.1).
func hsts(s *audit.Session) audit.Verdict {
	c := s.Calibration()
	for _, x := range []*audit.Exchange{c.Valid, c.Missing} {
		if x == nil || x.Status == 0 {
			continue
		}
		value := x.Header.Get("Strict-Transport-Security")
		seconds := directives(strings.ReplaceAll(value, ";", ",")).seconds("max-age")
		switch {
		case value == "":
			return audit.Failed("Strict-Transport-Security is missing").As(audit.Medium).With(x)
		case seconds < yearSeconds:
			return audit.Failed("Strict-Transport-Security lasts %d days, less than a year", seconds/86_400).As(audit.Medium).With(x)
		}
		return audit.Verdict{}
	}
	return audit.Verdict{}
}

package identity_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/problem"
	"github.com/google/go-cmp/cmp"
)

const (
	app  = "https://app.test"
	host = "api.test"
)

// door is a verifier behind a middleware, and what it has told.
type door struct {
	issuer   *testenv.Issuer
	outcomes []identity.Outcome
	handler  http.Handler
}

func newDoor(t *testing.T, d identity.Door) *door {
	t.Helper()
	built := &door{issuer: testenv.NewIssuer(t)}
	v := newVerifier(t, built.issuer, identity.Issuer{AuthorizedParties: []string{app}})
	d.Seen = func(_ *http.Request, o identity.Outcome) { built.outcomes = append(built.outcomes, o) }
	built.handler = v.Middleware(d)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := identity.FromContext(r.Context()); ok {
			_, _ = io.WriteString(w, p.Subject)
		} else {
			_, _ = io.WriteString(w, "nobody")
		}
	}))
	return built
}

// ask sends a request with the header lines given as name, value, name, value.
func (d *door) ask(target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Host = host
	for n := 0; n < len(header); n += 2 {
		r.Header.Add(header[n], header[n+1])
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	return w
}

// last is the outcome of the last request, without the principal.
func (d *door) last() identity.Outcome {
	o := d.outcomes[len(d.outcomes)-1]
	o.Principal = nil
	return o
}

func mode(m identity.Mode) func(*http.Request) identity.Mode {
	return func(*http.Request) identity.Mode { return m }
}

func TestABearerTokenLetsIn(t *testing.T) {
	d := newDoor(t, identity.Door{})
	token := d.issuer.Mint(nil)
	for n, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		w := d.ask("/", "Authorization", scheme+token)
		if w.Code != 200 || w.Body.String() != "user_1" {
			t.Errorf("%q: %d %s, want 200 user_1", scheme, w.Code, w.Body)
		}
		want := identity.Outcome{Result: identity.Passed, Cached: n > 0}
		if diff := cmp.Diff(d.last(), want); diff != "" {
			t.Errorf("%q (-got +want):\n%s", scheme, diff)
		}
		if p := d.outcomes[n].Principal; p == nil || p.Subject != "user_1" {
			t.Errorf("%q: principal = %+v", scheme, p)
		}
	}
}

func TestARememberedTokenIsJudgedWhenItsRequestArrived(t *testing.T) {
	arrived := time.Now()
	d := newDoor(t, identity.Door{Arrived: func(*http.Request) time.Time { return arrived }})
	token := d.issuer.Mint(nil)
	for _, tt := range []struct {
		at     time.Time
		cached bool
	}{{arrived, false}, {arrived, true}, {arrived.Add(1000 * time.Hour), false}} {
		arrived = tt.at
		d.ask("/", "Authorization", "Bearer "+token)
		if got := d.last(); got.Result != identity.Passed || got.Cached != tt.cached {
			t.Errorf("at %v: %v, cached %v; want it passed, cached %v", tt.at, got.Result, got.Cached, tt.cached)
		}
	}
}

func TestWithoutCredentialsTheChallengeSaysNoError(t *testing.T) {
	d := newDoor(t, identity.Door{})
	for _, header := range [][]string{nil, {"Authorization", "Basic dTpw"}, {"Authorization", "Bearerx y"}, {"Authorization", ""}} {
		w := d.ask("/", header...)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || got != "Bearer" {
			t.Errorf("%v: %d, challenge %q, want 401 and %q", header, w.Code, got, "Bearer")
		}
		if diff := cmp.Diff(d.last(), identity.Outcome{Result: identity.Missing}); diff != "" {
			t.Errorf("%v (-got +want):\n%s", header, diff)
		}
	}
}

// Whatever is wrong with a token, the client learns only that something is.
func TestEveryRefusalLooksTheSame(t *testing.T) {
	d := newDoor(t, identity.Door{})
	now := time.Now().Unix()
	first := ""
	for reason, token := range map[identity.Reason]string{
		identity.Malformed:       "x.y",
		identity.BadHeader:       d.issuer.Sign(`{"alg":"RS256"}`, `{}`),
		identity.BadClaims:       d.issuer.Mint(map[string]any{"sub": nil}),
		identity.UnknownIssuer:   d.issuer.Mint(map[string]any{"iss": "https://evil.test"}),
		identity.BadAlgorithm:    d.issuer.Sign(`{"alg":"none","kid":"key-1"}`, `{"iss":"`+d.issuer.URL+`","sub":"u","exp":9e9}`),
		identity.BadType:         d.issuer.Sign(`{"alg":"RS256","kid":"key-1","typ":"x"}`, `{"iss":"`+d.issuer.URL+`","sub":"u","exp":9e9}`),
		identity.Expired:         d.issuer.Mint(map[string]any{"exp": now - 10}),
		identity.NotYetValid:     d.issuer.Mint(map[string]any{"nbf": now + 100}),
		identity.BadParty:        d.issuer.Mint(map[string]any{"azp": "https://evil.test"}),
		identity.InactiveSession: d.issuer.Mint(map[string]any{"sts": "pending"}),
		identity.UnknownKey:      withKid(d.issuer, "nope"),
		identity.BadSignature:    d.issuer.Mint(nil) + "AA",
	} {
		w := d.ask("/", "Authorization", "Bearer "+token)
		if d.last().Reason != reason || d.last().Result != identity.Refused {
			t.Errorf("outcome = %+v, want %v", d.last(), reason)
		}
		answer := w.Header().Get("WWW-Authenticate") + w.Body.String()
		if first == "" {
			first = answer
		}
		if w.Code != 401 || answer != first {
			t.Errorf("%v: %d %s, want 401 %s", reason, w.Code, answer, first)
		}
	}
	if !strings.HasPrefix(first, `Bearer error="invalid_token"{`) {
		t.Errorf("answer = %s", first)
	}
}

func TestSeveralTokensAndTokensInTheURLAreRefused(t *testing.T) {
	d := newDoor(t, identity.Door{})
	token := d.issuer.Mint(nil)
	bearer := "Bearer " + token
	for name, c := range map[string]struct {
		target string
		header []string
		want   identity.Reason
	}{
		"two headers":        {"/", []string{"Authorization", bearer, "Authorization", bearer}, identity.SeveralTokens},
		"two schemes":        {"/", []string{"Authorization", bearer, "Authorization", "Basic dTpw"}, identity.SeveralTokens},
		"query":              {"/?access_token=" + token, nil, identity.TokenInQuery},
		"query and header":   {"/?a=b&access_token=x", []string{"Authorization", bearer}, identity.TokenInQuery},
		"query, no value":    {"/?access_token", []string{"Authorization", bearer}, identity.TokenInQuery},
		"query, encoded":     {"/?access%5ftoken=x", []string{"Authorization", bearer}, identity.TokenInQuery},
		"query, semicolon":   {"/?a=b;access_token=x", []string{"Authorization", bearer}, identity.TokenInQuery},
		"two session cookie": {"/", []string{"Sec-Fetch-Site", "same-origin", "Cookie", "__session=" + token + "; __session=" + token}, identity.SeveralTokens},
	} {
		w := d.ask(c.target, c.header...)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != 400 || got != `Bearer error="invalid_request"` {
			t.Errorf("%s: %d, challenge %q", name, w.Code, got)
		}
		if d.last().Reason != c.want {
			t.Errorf("%s: %v, want %v", name, d.last().Reason, c.want)
		}
	}
	for _, target := range []string{"/?xaccess_token=1", "/?access_tokens=1", "/?q=access_token", "/?%61=1&%zz=2"} {
		if w := d.ask(target, "Authorization", bearer); w.Code != 200 {
			t.Errorf("%s: %d, want 200", target, w.Code)
		}
	}
	for _, header := range []string{"Bearer", "Bearer ", bearer + ", " + bearer, bearer + " x", bearer + ";"} {
		if w := d.ask("/", "Authorization", header); w.Code != 401 || d.last().Reason != identity.Malformed {
			t.Errorf("%.20q…: %d, %v, want 401, malformed", header, w.Code, d.last().Reason)
		}
	}
}

// A cookie travels with requests that other people's pages cause, so it needs the browser's word
// that the page is ours, and a token that was made for a page we know.
func TestTheSessionCookieIsForSameOriginRequests(t *testing.T) {
	d := newDoor(t, identity.Door{Secure: func(*http.Request) bool { return true }})
	cookie := "__session=" + d.issuer.Mint(map[string]any{"azp": app})
	for name, c := range map[string]struct {
		header []string
		want   int
	}{
		"neither header":              {nil, 401},
		"same origin by metadata":     {[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		"same site":                   {[]string{"Sec-Fetch-Site", "same-site"}, 401},
		"cross site":                  {[]string{"Sec-Fetch-Site", "cross-site"}, 401},
		"typed by the user":           {[]string{"Sec-Fetch-Site", "none"}, 401},
		"metadata twice":              {[]string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Site", "same-origin"}, 401},
		"our origin":                  {[]string{"Origin", "https://" + host}, 200},
		"our origin twice":            {[]string{"Sec-Fetch-Site", "same-origin", "Origin", "https://" + host, "Origin", "https://evil.test"}, 401},
		"metadata twice, our origin":  {[]string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Site", "cross-site", "Origin", "https://" + host}, 401},
		"our origin in capitals":      {[]string{"Origin", "https://API.test"}, 200},
		"our origin, both":            {[]string{"Origin", "https://" + host, "Sec-Fetch-Site", "same-origin"}, 200},
		"our origin unencrypted":      {[]string{"Origin", "http://" + host}, 401},
		"our origin, another port":    {[]string{"Origin", "https://" + host + ":8443"}, 401},
		"our origin with a suffix":    {[]string{"Origin", "https://" + host + ".evil.test"}, 401},
		"our origin as user":          {[]string{"Origin", "https://" + host + "@evil.test"}, 401},
		"the party's origin":          {[]string{"Origin", app}, 401},
		"null origin":                 {[]string{"Origin", "null"}, 401},
		"empty origin":                {[]string{"Origin", ""}, 401},
		"other origin, metadata ours": {[]string{"Origin", "https://evil.test", "Sec-Fetch-Site", "same-origin"}, 401},
		"our origin, metadata other":  {[]string{"Origin", "https://" + host, "Sec-Fetch-Site", "cross-site"}, 401},
	} {
		w := d.ask("/", append(c.header, "Cookie", cookie)...)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", name, w.Code, c.want)
		}
		if c.want == 401 && d.last().Result != identity.Missing {
			t.Errorf("%s: %v, want the cookie not looked at", name, d.last().Result)
		}
	}
	for azp, want := range map[any]int{app: 200, nil: 401} {
		cookie := "__session=" + d.issuer.Mint(map[string]any{"azp": azp})
		if w := d.ask("/", "Sec-Fetch-Site", "same-origin", "Cookie", cookie); w.Code != want {
			t.Errorf("azp %v: %d, want %d", azp, w.Code, want)
		}
	}
	bad := d.ask("/", "Sec-Fetch-Site", "same-origin", "Cookie", cookie, "Authorization", "Bearer x.y.z")
	if bad.Code != 401 {
		t.Errorf("a bad header beside a good cookie: %d, want 401", bad.Code)
	}
}

func TestWithoutAListNoCookieIsAccepted(t *testing.T) {
	issuer := testenv.NewIssuer(t)
	handler := newVerifier(t, issuer, identity.Issuer{}).Middleware(identity.Door{})(http.NotFoundHandler())
	for _, azp := range []any{app, nil} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Cookie", "__session="+issuer.Mint(map[string]any{"azp": azp}))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != 401 {
			t.Errorf("azp %v: %d, want 401", azp, w.Code)
		}
	}
}

func TestOwnOriginFollowsTheConnection(t *testing.T) {
	issuer := testenv.NewIssuer(t)
	v := newVerifier(t, issuer, identity.Issuer{AuthorizedParties: []string{app}})
	handler := v.Middleware(identity.Door{})(http.NotFoundHandler())
	cookie := "__session=" + issuer.Mint(map[string]any{"azp": app})
	for origin, encrypted := range map[string]bool{"http://" + host: false, "https://" + host: true} {
		for _, connection := range []*tls.ConnectionState{nil, {}} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host, r.TLS = host, connection
			r.Header.Set("Origin", origin)
			r.Header.Set("Cookie", cookie)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			want := 401
			if encrypted == (connection != nil) {
				want = 404 // the handler's
			}
			if w.Code != want {
				t.Errorf("Origin %s, TLS %v: %d, want %d", origin, connection != nil, w.Code, want)
			}
		}
	}
}

func TestModesDecideAboutCallersWithoutAToken(t *testing.T) {
	for m, want := range map[identity.Mode][3]int{ // none, bad, good
		identity.Required: {401, 401, 200}, identity.Optional: {200, 401, 200}, identity.None: {200, 200, 200},
		identity.Mode(9): {401, 401, 200},
	} {
		d := newDoor(t, identity.Door{Mode: mode(m)})
		for n, header := range [][]string{nil, {"Authorization", "Bearer bad"}, {"Authorization", "Bearer " + d.issuer.Mint(nil)}} {
			w := d.ask("/", header...)
			if w.Code != want[n] {
				t.Errorf("%v, case %d: %d, want %d", m, n, w.Code, want[n])
			}
			if who := w.Body.String(); m == identity.None && who != "nobody" {
				t.Errorf("%v, case %d: the handler sees %q, want nobody", m, n, who)
			}
		}
		if m == identity.None && len(d.outcomes) != 0 {
			t.Errorf("%v: outcomes %v, want none", m, d.outcomes)
		}
	}
	d := newDoor(t, identity.Door{Mode: mode(identity.None)})
	if w := d.ask("/?access_token=x"); w.Code != 200 {
		t.Errorf("none, with a token in the URL: %d, want 200", w.Code)
	}
}

func TestModesAreReadByName(t *testing.T) {
	for _, m := range []identity.Mode{identity.Required, identity.Optional, identity.None} {
		if got, err := identity.ParseMode(m.String()); got != m || err != nil {
			t.Errorf("ParseMode(%q) = %v, %v", m, got, err)
		}
	}
	for _, text := range []string{"", "Required", "off"} {
		if got, err := identity.ParseMode(text); err == nil || got != identity.Required {
			t.Errorf("ParseMode(%q) = %v, %v, want required and an error", text, got, err)
		}
	}
}

// The door is asked before work is done for a stranger, and before a stranger is refused.
func TestTheDoorIsAskedInOrder(t *testing.T) {
	var asked []string
	answer := map[string]bool{}
	hook := func(name string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			asked = append(asked, name)
			if !answer[name] {
				w.WriteHeader(http.StatusTooManyRequests)
			}
			return answer[name]
		}
	}
	d := newDoor(t, identity.Door{BeforeVerify: hook("verify"), BeforeRefuse: hook("refuse")})
	good, bad := "Bearer "+d.issuer.Mint(nil), "Bearer a.b.c"
	for _, c := range []struct {
		name           string
		verify, refuse bool
		header         []string
		code           int
		asked          string
		result         identity.Result
	}{
		{"unknown token, no budget", false, true, []string{"Authorization", good}, 429, "verify", identity.Limited},
		{"unknown token", true, true, []string{"Authorization", good}, 200, "verify", identity.Passed},
		{"known token, no budget", false, false, []string{"Authorization", good}, 200, "", identity.Passed},
		{"bad token", true, true, []string{"Authorization", bad}, 401, "verify refuse", identity.Refused},
		{"bad token, budget gone", true, false, []string{"Authorization", bad}, 429, "verify refuse", identity.Limited},
		{"no token", false, true, nil, 401, "refuse", identity.Missing},
		{"no token, no budget", false, false, nil, 429, "refuse", identity.Limited},
		{"two tokens", false, true, []string{"Authorization", bad, "Authorization", bad}, 400, "refuse", identity.Refused},
	} {
		asked, answer["verify"], answer["refuse"] = nil, c.verify, c.refuse
		w := d.ask("/", c.header...)
		if got := strings.Join(asked, " "); w.Code != c.code || got != c.asked || d.last().Result != c.result {
			t.Errorf("%s: %d, asked %q, %v; want %d, %q, %v", c.name, w.Code, got, d.last().Result, c.code, c.asked, c.result)
		}
	}
}

func TestABarredCallerGetsTheDoorsAnswer(t *testing.T) {
	var answer problem.Details
	charged := 0
	d := newDoor(t, identity.Door{
		Bar: func(p *identity.Principal) (problem.Details, bool) { return answer, p.Subject == "user_1" },
		BeforeRefuse: func(_ http.ResponseWriter, r *http.Request) bool {
			if p, ok := identity.FromContext(r.Context()); ok && p.Subject == "user_1" {
				charged++
			}
			return true
		},
	})
	token := d.issuer.Mint(nil)
	for _, tt := range []struct {
		answer    problem.Details
		status    int
		challenge string
	}{
		{problem.AccountSuspended, 403, ""},
		{problem.InvalidToken, 401, `Bearer error="invalid_token"`},
	} {
		answer = tt.answer
		w := d.ask("/", "Authorization", "Bearer "+token)
		if w.Code != tt.status || w.Header().Get("WWW-Authenticate") != tt.challenge || d.last().Result != identity.Barred {
			t.Errorf("answer = %d %q %v, want %d %q barred", w.Code, w.Header().Get("WWW-Authenticate"), d.last().Result, tt.status, tt.challenge)
		}
	}
	if w := d.ask("/", "Authorization", "Bearer "+d.issuer.Mint(map[string]any{"sub": "user_2"})); w.Code != 200 || charged != 2 {
		t.Errorf("another caller = %d after %d refusals were charged, want 200 after 2", w.Code, charged)
	}
}

func TestMissingKeysAre503WithRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := testenv.NewBubbleIssuer(t)
		issuer.Break(testenv.IssuerFails)
		var outcome identity.Outcome
		handler := newVerifier(t, issuer, identity.Issuer{}).Middleware(identity.Door{
			Seen: func(_ *http.Request, o identity.Outcome) { outcome = o },
		})(http.NotFoundHandler())
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Mint(nil))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		var body struct{ Code string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if w.Code != 503 || w.Header().Get("Retry-After") != "30" || body.Code != "auth-keys-unavailable" {
			t.Errorf("%d, Retry-After %q, %s", w.Code, w.Header().Get("Retry-After"), w.Body)
		}
		if w.Header().Get("WWW-Authenticate") != "" || outcome.Result != identity.KeysMissing {
			t.Errorf("challenge %q, outcome %+v", w.Header().Get("WWW-Authenticate"), outcome)
		}
	})
}

// Neither an answer, nor an error, nor the log may hold any part of a token.
func TestTokensAreNeverTold(t *testing.T) {
	var log bytes.Buffer
	issuer := testenv.NewIssuer(t)
	v, err := identity.New([]identity.Issuer{{URL: issuer.URL}}, identity.Config{
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	handler := v.Middleware(identity.Door{})(http.NotFoundHandler())
	const canary = "canary-7f3a"
	for _, token := range []string{
		issuer.Mint(map[string]any{"sub": canary, "exp": 1}), issuer.Mint(map[string]any{"iss": canary}),
		issuer.Mint(map[string]any{"sub": canary}) + "AA", withKid(issuer, canary), canary, issuer.Sign(`{"alg":"`+canary+`","kid":"k"}`, `{}`),
	} {
		issuer.Break(testenv.IssuerHealthy)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		_, err := v.Verify(t.Context(), token)
		issuer.Break(testenv.IssuerFails)
		_ = v.Refresh(t.Context())
		for where, text := range map[string]string{"answer": w.Body.String(), "error": err.Error(), "log": log.String()} {
			if strings.Contains(text, canary) || strings.Contains(text, token[max(0, len(token)-8):]) {
				t.Errorf("the %s tells: %s", where, text)
			}
		}
	}
	if !strings.Contains(log.String(), "issuer keys cannot be fetched") {
		t.Errorf("log = %s", log.String())
	}
}

package probes

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
	"github.com/gantryhq/gantry/audit/selftest"
)

// signedCookies are cookies as the frameworks made them: Django 3.2.25, itsdangerous 2.1.2, cookie-signature and keygrip
// themselves; Rails, Flask-Login and Laravel by the algorithm that their documentation gives.
var signedCookies = []struct{ format, secret, line string }{
	{"Django signed cookie", "django-insecure-change-me", "visitor=42:1xWUZv:c-4ReVu-kcOaon0WF36CRArwB8BarvBBzwpzK_34Jh0"},
	{"Django session", "django-insecure-change-me", "sessionid=eyJfYXV0aF91c2VyX2lkIjoiNyJ9:1xWUZv:kBG8FEPJZ-MB5YuIpayL-Qs15QEHtQzuZc2Ek62-RK0"},
	{"Django session", "django-insecure-change-me", "sessionid=eyJhIjoxfQ:1xWUZv:EDn1CFYBiD13LcRLYy4aoi9OiAs"},
	{"Flask session", "you-will-never-guess", "session=eyJ1c2VyX2lkIjo3fQ.awfpsw.HBaUoEAyTbIvxVf7lr4ePCR6D4w; HttpOnly; Path=/"},
	{"Starlette session", "super-secret", "session=eyJ1c2VyIjogN30=.awfpsw.9zXEr02DJ6SEw-h62DwglbLN-H8; path=/"},
	{"itsdangerous value", "secret-key", "remember=eyJ1c2VyIjo3fQ.awfpsw.RsI7lHL0oZzWe6fs0GWWXr0ayn4"},
	{"Flask-Login remember token", "dev", "remember_token=7|cd92df2b260070a304680dc94d71608c71cc13debf69a48e6ad3bd0855f9630b7cf0bbbcc3b9e791c3cc85f5ad25ecc8818725e00c57ef0bd3d51148cd0cc7d7"},
	{"Express signed cookie", "keyboard cat", "connect.sid=s%3AabcDEF_1234.a%2FPKmIjlRdAL1IGqUbacaeXn6Asv7MuNI%2BqAeyALBLM; Path=/; HttpOnly"},
	{"Rails signed cookie", "development_secret", "user_id=eyJfcmFpbHMiOnsibWVzc2FnZSI6Ik53PT0iLCJleHAiOm51bGwsInB1ciI6ImNvb2tpZS51c2VyX2lkIn19--618c427fcf6301010f1cdbe7bd4997a90e3c78e3"},
	{"Rails signed cookie", "development_secret", "user_id=eyJfcmFpbHMiOnsibWVzc2FnZSI6Ik53PT0iLCJleHAiOm51bGwsInB1ciI6ImNvb2tpZS51c2VyX2lkIn19--de3feeb254c71b0cc3eda30cf34441a4691d16f5"},
	{"Rails 3 signed cookie", "secret_token", "_app=eyJfcmFpbHMiOnsibWVzc2FnZSI6Ik53PT0iLCJleHAiOm51bGwsInB1ciI6ImNvb2tpZS51c2VyX2lkIn19--48ef50750929fa9475503657d0945a7f5f5bf9e0"},
	{"Rails encrypted cookie", "development_secret", "_app_session=QaB5da1jiY%2FLq8XDuYzr084o--MDEyMzQ1Njc4OWFi--s4YSg%2F2aNPsUN5zTRJaY1Q%3D%3D; path=/; HttpOnly"},
	{"Rails encrypted cookie", "development_secret", "_app_session=qndDe%2F3tjrfB0TnmxSz2U2jy--MDEyMzQ1Njc4OWFi--RIoGunm750n6Oi%2FreLeA1A%3D%3D; path=/"},
	{"Laravel encrypted cookie", "SomeRandomStringSomeRandomString", "laravel_session=eyJpdiI6ICJNREV5TXpRMU5qYzRPV0ZpWTJSbFpnPT0iLCAidmFsdWUiOiAiZUhoNGVIaDRlSGg0ZUhoNGVIaDRlSGg0ZUhoNGVIaDRlSGg0ZUhoNGVIZz0iLCAibWFjIjogIjdiNDllYmVkMTRjMzk3NDgwMTc1ZTVlYTE2MjE0MjcyM2Q5NzRkOWRmNDNkY2Y3NjRjYWY5M2I3MDI2Zjc3NzAiLCAidGFnIjogIiJ9"},
}

func parsedCookie(t *testing.T, line string) *http.Cookie {
	t.Helper()
	c, err := http.ParseSetCookie(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return c
}

// fitting are the formats in which the cookies verify with a secret.
func fitting(cookies []*http.Cookie, secret string) []string {
	var list []string
	for _, s := range signatures(cookies) {
		if s.fits([]byte(secret)) {
			list = append(list, s.format)
		}
	}
	return list
}

func TestFrameworksCookiesVerifyWithTheirSecretOnly(t *testing.T) {
	for _, c := range signedCookies {
		cookies := []*http.Cookie{parsedCookie(t, c.line)}
		if got := fitting(cookies, c.secret); len(got) != 1 || got[0] != c.format {
			t.Errorf("%s verifies as %q, want %q", c.line, got, c.format)
		}
		if got := fitting(cookies, c.secret+"x"); len(got) != 0 {
			t.Errorf("%s verifies with another secret as %q", c.line, got)
		}
	}
}

func TestDjangoMessagesVerify(t *testing.T) {
	list := django("messages", `[["hello"]]:1xWUZv:exyPYZt7griBEIVrWzttEQYDVXN70VBIYsNrxJK_DZ0`)
	fits := 0
	for _, s := range list {
		if s.fits([]byte("django-insecure-change-me")) {
			fits++
		}
	}
	if fits != 1 {
		t.Errorf("verifies in %d readings, want 1", fits)
	}
}

func TestKeygripSignsACookieByAnother(t *testing.T) {
	pair := []*http.Cookie{parsedCookie(t, "session=eyJ1c2VyIjo3fQ==; path=/"), parsedCookie(t, "session.sig=sYzsKlUj8X-MDm3An0lwyhmIh1g; path=/")}
	if got := fitting(pair, "secret1"); len(got) != 1 {
		t.Errorf("verifies as %q, want once", got)
	}
	if got := fitting(pair, "secret2"); len(got) != 0 {
		t.Errorf("verifies with another secret as %q", got)
	}
}

func TestEveryVectorsSecretIsKnown(t *testing.T) {
	known := map[string]bool{}
	for _, s := range knownList() {
		known[s] = true
	}
	for _, c := range signedCookies {
		if !known[c.secret] {
			t.Errorf("%q is not on the list", c.secret)
		}
	}
}

func TestGuessesAreManyAndDifferent(t *testing.T) {
	list, seen := guesses(), map[string]bool{}
	for _, g := range list {
		if g == "" || seen[g] {
			t.Errorf("%q is empty or stands twice", g)
		}
		seen[g] = true
	}
	if len(list) < 2000 || len(list) > 6000 {
		t.Errorf("%d guesses, want some thousand", len(list))
	}
	for _, want := range []string{"secret", "changeme", "CHANGEME123", "django-insecure-change-me", "your-256-bit-secret"} {
		if !seen[want] && !seen[strings.TrimSuffix(want, "123")] {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestCookiesAreJudgedByTheirSignature(t *testing.T) {
	sets := func(lines ...string) func(*selftest.API) {
		return outer(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			for _, line := range lines {
				w.Header().Add("Set-Cookie", line)
			}
			next.ServeHTTP(w, r)
		})
	}
	weakToken, err := jws.Sign([]byte(`{"alg":"HS256"}`), []byte(`{"sub":"1"}`), "HS256", []byte("changeme"))
	if err != nil {
		t.Fatal(err)
	}
	nobody := func(_ *selftest.API, t *audit.Target, _ *audit.Config) { t.Token = "" }
	tryRuses(t, []ruse{
		{name: "none, with tokens", probe: "CFG-03", want: audit.NotApplicable},
		{name: "none, without tokens", probe: "CFG-03", knobs: nobody, want: audit.Inconclusive},
		{name: "random", probe: "CFG-03", server: sets("sid=9f86d081884c7d659a2feaa0c55ad015; HttpOnly"), want: audit.Inconclusive, says: "has a signature of a known format"},
		{name: "another secret", probe: "CFG-03", server: sets("connect.sid=s%3AU1vTMysld9nX9u6_suouCv9gKIi0EW18.25xmQV8r%2FWWcsl10LS%2Bt3x90ZMJjYhflbtyxL07Dymo; Path=/"), want: audit.Pass},
		{name: "Django", probe: "CFG-03", server: sets(signedCookies[1].line), want: audit.Fail, as: audit.Critical, says: "Django session"},
		{name: "Rails", probe: "CFG-03", server: sets(signedCookies[11].line), want: audit.Fail, as: audit.Critical, says: "Rails encrypted"},
		{name: "a token", probe: "CFG-03", server: sets("auth=" + weakToken), want: audit.Fail, as: audit.Critical, says: "JSON web token"},
	})
}

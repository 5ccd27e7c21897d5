package dashboard

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestWithoutATokenOnlyNamesOfThisMachineAreAnswered(t *testing.T) {
	a := open(t, Config{})
	for host, want := range map[string]int{
		"127.0.0.1:9000": 200, "localhost:9000": 200, "[::1]:9000": 200, "LOCALHOST": 200, "127.8.8.8": 200,
		"evil.example": 421, "evil.example:9000": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "10.0.0.5:9000": 421,
	} {
		for _, path := range []string{"/", "/api/view", "/login", "/assets/live.js"} {
			if path == "/login" && want == 200 {
				continue // nothing to log in to: it leads to the page
			}
			if got := a.ask(t, "GET", path, nil, "Host: "+host).StatusCode; got != want {
				t.Errorf("GET %s of %s = %d, want %d", path, host, got, want)
			}
		}
	}
}

func TestRequestsFromAnotherSiteChangeNothing(t *testing.T) {
	for name, cfg := range map[string]Config{"with a token": closed(), "without": {}} {
		t.Run(name, func(t *testing.T) {
			a := open(t, cfg)
			cookie := "X: x"
			if cfg.Token != nil {
				cookie = a.login(t)
			}
			form := formToken(t, text(t, a.firing().ask(t, "GET", "/", nil, cookie)))
			values := url.Values{"form": {form}, "alert": {"High Error Rate"}, "for": {"1h"}}
			for _, h := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example", "Origin: null"} {
				wantStatus(t, a.ask(t, "POST", "/alerts/silence", values, cookie, h), http.StatusForbidden)
			}
			values.Set("form", "")
			wantStatus(t, a.ask(t, "POST", "/alerts/silence", values, cookie), http.StatusForbidden)
			values.Set("form", form[1:]+"A")
			wantStatus(t, a.ask(t, "POST", "/alerts/silence", values, cookie), http.StatusForbidden)
			if len(a.office.done) > 0 {
				t.Fatalf("something was done: %q", a.office.done)
			}
			values.Set("form", form)
			wantStatus(t, a.ask(t, "POST", "/alerts/silence", values, cookie, "Sec-Fetch-Site: same-origin"), http.StatusSeeOther)
			if len(a.office.done) != 1 {
				t.Errorf("the honest form did %q", a.office.done)
			}
		})
	}
}

// firing makes the page have a form.
func (a *admin) firing() *admin {
	v := healthy()
	v.Alerts[0].State = "firing"
	a.office.set(v)
	a.later(time.Minute)
	return a
}

// login returns the session's cookie as a request header.
func (a *admin) login(t *testing.T) string {
	t.Helper()
	r := a.ask(t, "POST", "/login", url.Values{"token": {adminToken}})
	wantStatus(t, r, http.StatusSeeOther)
	for _, c := range r.Cookies() {
		if c.Name == cookieName {
			return "Cookie: " + c.Name + "=" + c.Value
		}
	}
	t.Fatal("no session was opened")
	return ""
}

func TestTheAdminTokenOpensTheDoor(t *testing.T) {
	a := open(t, closed())
	r := a.ask(t, "GET", "/", nil)
	wantStatus(t, r, http.StatusSeeOther)
	if to := r.Header.Get("Location"); to != "/login" {
		t.Errorf("the page leads to %q, want /login", to)
	}
	for _, path := range []string{"/api/view", "/events", "/metrics"} {
		r := a.ask(t, "GET", path, nil)
		wantStatus(t, r, http.StatusUnauthorized)
		if r.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s does not say what is missing", path)
		}
	}
	wantStatus(t, a.ask(t, "GET", "/api/view", nil, "Authorization: Bearer "+adminToken), http.StatusOK)
	wantStatus(t, a.ask(t, "GET", "/api/view", nil, "Authorization: Bearer wrong"), http.StatusUnauthorized)
	wantStatus(t, a.ask(t, "POST", "/login", url.Values{"token": {"wrong"}}), http.StatusUnauthorized)

	r = a.ask(t, "POST", "/login", url.Values{"token": {adminToken}})
	cookie := r.Header.Get("Set-Cookie")
	for _, want := range []string{"Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie %q lacks %s", cookie, want)
		}
	}
	if strings.Contains(cookie, "Secure") {
		t.Error("a browser would drop a Secure cookie that came without TLS")
	}
	wantStatus(t, a.ask(t, "GET", "/", nil, a.login(t)), http.StatusOK)
}

func TestTheCookieIsSecureBehindTLS(t *testing.T) {
	cfg := closed()
	cfg.Secure = func(*http.Request) bool { return true }
	a := open(t, cfg)
	r := a.ask(t, "POST", "/login", url.Values{"token": {adminToken}})
	if cookie := r.Header.Get("Set-Cookie"); !strings.Contains(cookie, "; Secure") {
		t.Errorf("the cookie is %q", cookie)
	}
}

func TestASessionEnds(t *testing.T) {
	in := func(t *testing.T, a *admin, cookie string) bool {
		return a.ask(t, "GET", "/", nil, cookie).StatusCode == http.StatusOK
	}
	t.Run("after twelve hours", func(t *testing.T) {
		a := open(t, closed())
		cookie := a.login(t)
		a.later(sessionLife - time.Minute)
		before := in(t, a, cookie)
		a.later(2 * time.Minute)
		if after := in(t, a, cookie); !before || after {
			t.Errorf("in before the end %v, after it %v", before, after)
		}
	})
	t.Run("at logout, for copies of the cookie too", func(t *testing.T) {
		a := open(t, closed())
		cookie, other := a.login(t), a.login(t)
		form := formToken(t, text(t, a.ask(t, "GET", "/", nil, cookie)))
		wantStatus(t, a.ask(t, "POST", "/logout", url.Values{"form": {form}}, other), http.StatusForbidden)
		wantStatus(t, a.ask(t, "POST", "/logout", url.Values{"form": {form}}, cookie), http.StatusSeeOther)
		if in(t, a, cookie) || !in(t, a, other) {
			t.Error("one session should have ended, and only one")
		}
	})
	t.Run("with the key that signed it", func(t *testing.T) {
		a := open(t, closed())
		cookie := a.login(t)
		a.keys.Store(&[][]byte{[]byte("second key"), []byte("first key")})
		if !in(t, a, cookie) {
			t.Error("a key in rotation should still verify")
		}
		a.keys.Store(&[][]byte{[]byte("second key")})
		if in(t, a, cookie) {
			t.Error("a key that is gone should not")
		}
	})
	t.Run("when a bit of it changes", func(t *testing.T) {
		a := open(t, closed())
		cookie := a.login(t)
		for i := len("Cookie: " + cookieName + "="); i < len(cookie)-1; i++ { // the last character has bits that say nothing
			b := []byte(cookie)
			b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
			if in(t, a, string(b)) {
				t.Errorf("in with character %d changed", i)
			}
		}
	})
}

func TestLogoutsAreRememberedWithinBounds(t *testing.T) {
	l := newLock(closed())
	for i := range 2 * maxEnded {
		l.end(sessionID{byte(i), byte(i >> 8)})
	}
	if n := len(l.ended); n != maxEnded {
		t.Errorf("%d are remembered, want %d", n, maxEnded)
	}
}

func TestASessionReadsAndOnlyTheTokenItselfWrites(t *testing.T) {
	a := open(t, closed())
	cookie := a.login(t)
	wantStatus(t, a.ask(t, "GET", "/api/view", nil, cookie), http.StatusOK)
	wantStatus(t, a.ask(t, "POST", "/api/other", nil, cookie), http.StatusUnauthorized)
	wantStatus(t, a.ask(t, "POST", "/api/other", nil, "Authorization: Bearer "+adminToken), http.StatusNoContent)
	wantStatus(t, a.ask(t, "POST", "/alerts/acknowledge", url.Values{"alert": {"x"}}, "Authorization: Bearer "+adminToken), http.StatusSeeOther)
}

// A link in an alert's message comes from another site, and a strict cookie does not come along.
func TestALinkFromElsewhereComesBackWithTheCookie(t *testing.T) {
	a := open(t, closed())
	page := text(t, a.ask(t, "GET", "/", nil, "Sec-Fetch-Site: cross-site"))
	if !strings.Contains(page, `http-equiv="refresh" content="0;url=/"`) {
		t.Errorf("the page does not lead on: %s", page)
	}
	wantStatus(t, a.ask(t, "GET", "/", nil, "Sec-Fetch-Site: same-origin"), http.StatusSeeOther)
}

func TestLoginsAreThrottled(t *testing.T) {
	a := open(t, closed())
	for i := range triesEach {
		if got := a.ask(t, "POST", "/login", url.Values{"token": {"wrong"}}).StatusCode; got != http.StatusUnauthorized {
			t.Fatalf("try %d = %d, want 401", i, got)
		}
	}
	r := a.ask(t, "POST", "/login", url.Values{"token": {adminToken}})
	wantStatus(t, r, http.StatusTooManyRequests)
	if r.Header.Get("Retry-After") == "" {
		t.Error("it does not say how long to wait")
	}
	wantStatus(t, a.ask(t, "GET", "/api/view", nil, "Authorization: Bearer "+adminToken), http.StatusOK)
	a.later(time.Minute)
	a.login(t)
}

func TestTheThrottleCountsNetworksAndAll(t *testing.T) {
	var th throttle
	now := time.Now()
	take := func(addr string) bool { return th.take(netip.MustParseAddr(addr), now) == 0 }
	for i := range triesEach {
		if !take(fmt.Sprintf("2001:db8::%d", i)) {
			t.Errorf("try %d of a network is refused", i)
		}
	}
	if take("2001:db8::ffff") {
		t.Error("a sixth address of the same /64 gets a try")
	}
	if !take("2001:db8:0:1::1") || !take("192.0.2.1") {
		t.Error("another network is refused")
	}
	for i := range 1000 {
		take(fmt.Sprintf("10.0.%d.%d", i/250, i%250))
	}
	if th.all != triesAll || len(th.each) > triesAll {
		t.Errorf("%d tries of %d networks are counted, want %d at most", th.all, len(th.each), triesAll)
	}
}

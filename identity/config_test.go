package identity

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	_, err := New([]Issuer{
		{URL: ""},
		{URL: "http://issuer.example"},
		{URL: "https://a.test", Profile: OIDC},
		{URL: "https://b.test", Algorithms: []string{"HS256"}, AuthorizedParties: []string{""}},
		{URL: "https://c.test", Static: []byte("no key"), Profile: 9},
		{URL: "https://d.test"},
		{URL: "https://d.test"},
	}, Config{Leeway: 61 * time.Second, MaxStale: -1, CacheBytes: 1})
	if err == nil {
		t.Fatal("New accepts it all")
	}
	for _, want := range []string{
		"issuers[0]: URL must be set", "issuers[1]: URL: must be https", "issuers[2]: Audience must be set for profile oidc",
		"issuers[3]: AuthorizedParties", "Algorithms may hold", "issuers[4]: Static", "Profile is not one of",
		"issuers[6]: URL is there twice", "Leeway", "MaxStale", "CacheBytes",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("New accepts no issuer at all")
	}
}

func TestKeyAddressesAreHTTPSOrLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"https://issuer.test":           true,
		"https://issuer.test/tenant/":   true,
		"https://issuer.test:8443":      true,
		"http://127.0.0.1:9000/keys":    true,
		"http://[::1]/keys":             true,
		"http://localhost:1":            true,
		"http://dev.localhost":          true,
		"http://issuer.test":            false,
		"http://127.0.0.1.evil.test":    false,
		"http://localhost.evil.test":    false,
		"http://10.0.0.1":               false,
		"http://169.254.169.254/latest": false,
		"https://user@issuer.test":      false,
		"https://issuer.test/?a=b":      false,
		"https://issuer.test/?":         false,
		"https://issuer.test/#x":        false,
		"https://issuer.test/#":         false,
		"https://":                      false,
		"https://:443":                  false,
		"https:issuer.test":             false,
		"ftp://issuer.test":             false,
		"file:///etc/passwd":            false,
		"issuer.test":                   false,
		"//issuer.test":                 false,
	} {
		if err := checkURL(address); (err == nil) != want {
			t.Errorf("checkURL(%q) = %v, want accepted: %v", address, err, want)
		}
	}
}

// Only loopback issuers may send their readers to an unencrypted address.
func TestDiscoveryCannotDowngrade(t *testing.T) {
	for _, c := range []struct {
		issuer, keys string
		want         bool
	}{
		{"https://issuer.test", "https://keys.test/jwks?tenant=1", true},
		{"https://issuer.test", "http://127.0.0.1/jwks", false},
		{"https://issuer.test", "http://keys.test/jwks", false},
		{"http://127.0.0.1:1", "http://127.0.0.1:2/jwks", true},
		{"http://127.0.0.1:1", "http://keys.test/jwks", false},
		{"https://issuer.test", "", false},
		{"https://issuer.test", "/jwks", false},
	} {
		f := &fetcher{issuer: Issuer{URL: c.issuer}}
		if err := f.checkKeyURL(c.keys); (err == nil) != c.want {
			t.Errorf("%s to %q: %v, want allowed: %v", c.issuer, c.keys, err, c.want)
		}
	}
}

func TestWellKnownAddressesFollowTheIssuer(t *testing.T) {
	for _, url := range []string{"https://issuer.test/tenant", "https://issuer.test/tenant/"} {
		if got, want := (Issuer{URL: url}).wellKnown("x"), "https://issuer.test/tenant/.well-known/x"; got != want {
			t.Errorf("wellKnown = %q, want %q", got, want)
		}
	}
}

func TestMaxAgeIsObeyedWithinBounds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"":                                refreshDefault,
		"public":                          refreshDefault,
		"max-age=900":                     15 * time.Minute,
		"public, max-age=900, x":          15 * time.Minute,
		"Max-Age=\"900\"":                 15 * time.Minute,
		"max-age=1":                       refreshMin,
		"max-age=-1":                      refreshMin,
		"max-age=0":                       refreshMin,
		"no-store":                        refreshMin,
		"no-cache, max-age=900":           refreshMin,
		"max-age=31536000":                refreshMax,
		"max-age=99999999999999999999999": refreshDefault,
		"max-age=abc":                     refreshDefault,
		"s-maxage=900":                    refreshDefault,
	} {
		if got := refreshAfter(map[string][]string{"Cache-Control": {text}}); got != want {
			t.Errorf("refreshAfter(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestAbsentKeysAreRememberedWithinBounds(t *testing.T) {
	var a absent
	for n := range 3 * maxAbsent {
		a.add(string(rune(n+1000)), noon)
	}
	if got := len(a.seen); got != maxAbsent {
		t.Errorf("%d remembered, want %d", got, maxAbsent)
	}
	a.add("x", noon)
	for after, want := range map[time.Duration]bool{0: true, 29 * time.Second: true, 30 * time.Second: false, -time.Hour: false} {
		if got := a.has("x", noon.Add(after)); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
	a.add("x", noon.Add(time.Minute))
	if !a.has("x", noon.Add(time.Minute)) || len(a.seen) != maxAbsent {
		t.Errorf("asked again: %d remembered", len(a.seen))
	}
	a.clear()
	if a.has("x", noon.Add(time.Minute)) {
		t.Error("remembered after clear")
	}
}

func TestSkippedStaticKeysAreLogged(t *testing.T) {
	var log strings.Builder
	public := &testKey().PublicKey
	keys := `{"keys":[` + jwkOf(public, "good", "") + "," + jwkOf(public, "leaked", `,"d":"AQAB"`) + "," + jwkOf(public, "odd", `,"use":"enc"`) + `]}`
	_, err := New([]Issuer{{URL: testURL, Static: []byte(keys)}}, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=ERROR", "kid=leaked", "level=WARN", "kid=odd"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log does not say %q:\n%s", want, log.String())
		}
	}
}

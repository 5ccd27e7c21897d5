package identity

import (
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func atNoon() time.Time { return noon }

// reasonFor verifies a token at noon and returns why it was refused.
func reasonFor(t *testing.T, issuer Issuer, token string) Reason {
	t.Helper()
	v, err := New([]Issuer{issuer}, Config{Now: atNoon})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), token)
	return reasonOf(t, err)
}

func reasonOf(t *testing.T, err error) Reason {
	t.Helper()
	if err == nil {
		return Accepted
	}
	refusal, ok := err.(*Refusal)
	if !ok {
		t.Fatalf("error = %v, want a refusal", err)
	}
	return refusal.Reason
}

func TestClaimsAreRequiredAndTyped(t *testing.T) {
	type changes = map[string]any
	long := strings.Repeat("u", 255)
	for _, c := range []struct {
		changes changes
		want    Reason
	}{
		{nil, Accepted},
		{changes{"sub": long}, Accepted},
		{changes{"sub": "auth0|a-b.c@d"}, Accepted},
		{changes{"sub": nil}, BadClaims},
		{changes{"sub": ""}, BadClaims},
		{changes{"sub": 7}, BadClaims},
		{changes{"sub": long + "u"}, BadClaims},
		{changes{"sub": "a b"}, BadClaims},
		{changes{"sub": "a\r\nX-User-Id: admin"}, BadClaims},
		{changes{"sub": "zoë"}, BadClaims},
		{changes{"sub": "a\x00"}, BadClaims},
		{changes{"sub": nil, "SUB": "admin"}, BadClaims},
		{changes{"SUB": "admin"}, Accepted}, // it is somebody else's claim
		{changes{"iss": nil}, BadClaims},
		{changes{"iss": []string{testURL}}, BadClaims},
		{changes{"iss": testURL + "/"}, UnknownIssuer},
		{changes{"iss": strings.ToUpper(testURL)}, UnknownIssuer},
		{changes{"iss": ""}, UnknownIssuer},
		{changes{"sid": "s\n"}, BadClaims},
		{changes{"sid": nil}, Accepted},
		{changes{"jti": 1}, BadClaims},
		{changes{"azp": false}, BadClaims},
		{changes{"sts": "active"}, Accepted},
		{changes{"sts": "pending"}, InactiveSession},
		{changes{"sts": "Active"}, InactiveSession},
		{changes{"sts": ""}, BadClaims},
		{changes{"aud": 7}, BadClaims},
		{changes{"aud": []any{"a", 7}}, BadClaims},
		{changes{"aud": []string{}}, Accepted}, // no audience is configured
	} {
		if got := reasonFor(t, staticIssuer(), mint(t, noon, c.changes)); got != c.want {
			t.Errorf("%v: %v, want %v", c.changes, got, c.want)
		}
	}
}

func TestTimesAreNumbersWithinLeeway(t *testing.T) {
	now := noon.Unix()
	for payload, want := range map[string]Reason{
		`"exp":1e99`:                        BadClaims,
		`"exp":-1`:                          BadClaims,
		`"exp":9007199254740992`:            BadClaims,
		`"exp":9007199254740991`:            Accepted,
		`"exp":"1900000000"`:                BadClaims,
		`"exp":null`:                        BadClaims,
		`"exp":[1900000000]`:                BadClaims,
		`"exp":true`:                        BadClaims,
		`"exp":1.9e9`:                       Accepted,
		`"EXP":1900000000`:                  BadClaims,
		`"exp":1,"EXP":1900000000`:          Expired,
		`"exp":1,"exp":1900000000`:          Malformed,
		`"exp":0`:                           Expired,
		`"exp":1900000000,"nbf":"0"`:        BadClaims,
		`"exp":1900000000,"nbf":null`:       BadClaims,
		`"exp":1900000000,"iat":-5`:         BadClaims,
		`"exp":1900000000,"iat":1.8e9`:      NotYetValid,
		`"exp":1900000000,"nbf":1800000000`: NotYetValid,
	} {
		token := sign(t, testHeader, `{"iss":"`+testURL+`","sub":"u",`+payload+`}`)
		if got := reasonFor(t, staticIssuer(), token); got != want {
			t.Errorf("%s: %v, want %v", payload, got, want)
		}
	}
	type changes = map[string]any
	for _, c := range []struct {
		changes changes
		want    Reason
	}{
		{changes{"exp": now - 4}, Accepted},
		{changes{"exp": now - 5}, Expired},
		{changes{"exp": float64(now) - 4.5}, Accepted},
		{changes{"nbf": now + 5}, Accepted},
		{changes{"nbf": now + 6}, NotYetValid},
		{changes{"iat": now + 5}, Accepted},
		{changes{"iat": now + 6}, NotYetValid},
		{changes{"iat": nil}, Accepted},
	} {
		if got := reasonFor(t, staticIssuer(), mint(t, noon, c.changes)); got != c.want {
			t.Errorf("%v: %v, want %v", c.changes, got, c.want)
		}
	}
}

func TestAudienceOnceConfiguredIsRequired(t *testing.T) {
	for _, profile := range []Profile{Clerk, OIDC} {
		issuer := staticIssuer()
		issuer.Profile, issuer.Audience = profile, "api"
		for _, c := range []struct {
			aud  any
			want Reason
		}{
			{"api", Accepted},
			{[]string{"x", "api"}, Accepted},
			{nil, BadAudience},
			{"API", BadAudience},
			{"api2", BadAudience},
			{"", BadAudience},
			{[]string{}, BadAudience},
			{[]string{"x"}, BadAudience},
		} {
			if got := reasonFor(t, issuer, mint(t, noon, map[string]any{"aud": c.aud})); got != c.want {
				t.Errorf("%v, aud %v: %v, want %v", profile, c.aud, got, c.want)
			}
		}
	}
}

func TestAuthorizedPartyIsHeldAgainstTheList(t *testing.T) {
	const app = "https://app.test"
	for _, c := range []struct {
		list    []string
		require bool
		azp     any
		want    Reason
	}{
		{nil, false, "https://anything.test", Accepted},
		{nil, false, nil, Accepted},
		{nil, true, nil, BadParty},
		{[]string{app}, false, app, Accepted},
		{[]string{"https://b.test", app}, false, app, Accepted},
		{[]string{app}, false, app + "/", BadParty},
		{[]string{app}, false, "https://APP.test", BadParty},
		{[]string{app}, false, "https://app.test.evil", BadParty},
		{[]string{app}, false, nil, Accepted},
		{[]string{app}, true, nil, BadParty},
		{[]string{app}, false, "", BadClaims},
	} {
		issuer := staticIssuer()
		issuer.AuthorizedParties, issuer.RequireAZP = c.list, c.require
		if got := reasonFor(t, issuer, mint(t, noon, map[string]any{"azp": c.azp})); got != c.want {
			t.Errorf("azp %v, list %v, required %v: %v, want %v", c.azp, c.list, c.require, got, c.want)
		}
	}
}

func TestAccessTokensAreAKindOfTheirOwn(t *testing.T) {
	issuer := staticIssuer()
	issuer.Profile, issuer.Audience = AccessToken, "api"
	full := `{"iss":"` + testURL + `","sub":"u","aud":"api","client_id":"app","jti":"1","iat":1,"exp":1900000000}`
	const header = `{"alg":"RS256","kid":"k","typ":"at+jwt"}`
	for _, c := range []struct {
		header, payload string
		want            Reason
	}{
		{header, full, Accepted},
		{testHeader, full, BadType},
		{`{"alg":"RS256","kid":"k"}`, full, BadType},
		{header, strings.Replace(full, `"client_id":"app",`, "", 1), BadClaims},
		{header, strings.Replace(full, `"jti":"1",`, "", 1), BadClaims},
		{header, strings.Replace(full, `"iat":1,`, "", 1), BadClaims},
	} {
		if got := reasonFor(t, issuer, sign(t, c.header, c.payload)); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.header, c.payload, got, c.want)
		}
	}
	clerk := staticIssuer()
	if got := reasonFor(t, clerk, sign(t, header, full)); got != BadType {
		t.Errorf("an access token at a session issuer: %v, want %v", got, BadType)
	}
}

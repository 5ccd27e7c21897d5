package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Each of these bears a good signature, and one or the other widespread library lets it pass.
func TestWhatOtherLibrariesLetPassIsRefused(t *testing.T) {
	good := fmt.Sprintf(`{"iss":%q,"sub":"user","exp":%d}`, testURL, noon.Unix()+60)
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, c := range map[string]struct {
		header, payload string
		want            Reason
	}{
		"the good one":              {testHeader, good, Accepted},
		"unknown crit":              {`{"alg":"RS256","kid":"k","crit":["x"],"x":1}`, good, BadHeader},
		"crit of a known name":      {`{"alg":"RS256","kid":"k","crit":["b64"],"b64":true}`, good, BadHeader},
		"duplicate alg":             {`{"alg":"none","alg":"RS256","kid":"k"}`, good, Malformed},
		"duplicate kid":             {`{"alg":"RS256","kid":"x","kid":"k"}`, good, Malformed},
		"alg in lower case":         {`{"alg":"rs256","kid":"k"}`, good, BadAlgorithm},
		"alg RS256 with a space":    {`{"alg":"RS256 ","kid":"k"}`, good, BadAlgorithm},
		"alg PS256":                 {`{"alg":"PS256","kid":"k"}`, good, BadAlgorithm},
		"alg RS512":                 {`{"alg":"RS512","kid":"k"}`, good, BadAlgorithm},
		"duplicate sub":             {testHeader, with(`"sub":"user"`, `"sub":"user","sub":"admin"`), Malformed},
		"duplicate sub by escape":   {testHeader, with(`"sub":"user"`, `"sub":"user","\u0073ub":"admin"`), Malformed},
		"SUB over sub":              {testHeader, with(`"sub":"user"`, `"SUB":"admin"`), BadClaims},
		"long s for s":              {testHeader, with(`"sub":"user"`, `"ſub":"admin"`), BadClaims},
		"exp as text":               {testHeader, with(fmt.Sprint(noon.Unix()+60), `"1900000000"`), BadClaims},
		"no exp":                    {testHeader, fmt.Sprintf(`{"iss":%q,"sub":"user"}`, testURL), BadClaims},
		"iat to come":               {testHeader, with(`}`, fmt.Sprintf(`,"iat":%d}`, noon.Unix()+600)), NotYetValid},
		"invalid UTF-8 in sub":      {testHeader, with("user", "user\xff"), Malformed},
		"invalid UTF-8 elsewhere":   {testHeader, with(`}`, ",\"x\":\"\xff\"}"), Malformed},
		"byte order mark":           {testHeader, "\ufeff" + good, Malformed},
		"trailing bytes":            {testHeader, good + "{}", Malformed},
		"duplicate deep inside":     {testHeader, with(`}`, `,"o":{"id":"a","id":"b"}}`), Malformed},
		"very deep":                 {testHeader, with(`}`, `,"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`}`), Malformed},
		"nested token by cty":       {`{"alg":"RS256","kid":"k","cty":"JWT"}`, segment("{}") + "..", Malformed},
		"another purpose":           {`{"alg":"RS256","kid":"k","typ":"secevent+jwt"}`, good, BadType},
		"issuer with a slash":       {testHeader, with(testURL, testURL+"/"), UnknownIssuer},
		"issuer with a suffix":      {testHeader, with(testURL, testURL+".evil.test"), UnknownIssuer},
		"the key in its own header": {`{"alg":"RS256","kid":"x","jwk":` + jwkOf(&testKey().PublicKey, "x", "") + `}`, good, UnknownKey},
		"a key address":             {`{"alg":"RS256","kid":"x","jku":"https://evil.test/keys"}`, good, UnknownKey},
	} {
		if got := reasonFor(t, staticIssuer(), sign(t, c.header, c.payload)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	token := sign(t, testHeader, good)
	dot := strings.LastIndexByte(token, '.')
	for _, bad := range []string{
		token[:dot+5] + "\r\n" + token[dot+5:], token + "\n", "\n" + token, token + "=", token + "==", " " + token,
		token + ".", "." + token, token + "." + token, strings.ReplaceAll(token, ".", "%2e"), token + "A", token[:dot+1],
	} {
		if got := reasonFor(t, staticIssuer(), bad); got == Accepted {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// joseToken lets another implementation sign.
func joseToken(t *testing.T, alg jose.SignatureAlgorithm, private any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: private, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: testURL, Subject: "user_1", Expiry: jwt.NewNumericDate(noon.Add(time.Minute)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func joseSet(t *testing.T, public crypto.PublicKey, alg string) []byte {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "k", Algorithm: alg, Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The algorithm is what the issuer lists and the key is made for; the token only gets to agree.
func TestAlgorithmsAreEnabledByIssuerAndKey(t *testing.T) {
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	larger, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{RS256, ES256, EdDSA}
	for name, c := range map[string]struct {
		token  string
		public crypto.PublicKey
		alg    string
		list   []string
		want   bool
	}{
		"RS256":                        {joseToken(t, jose.RS256, testKey()), testKey().Public(), "RS256", nil, true},
		"RS256, alg not said":          {joseToken(t, jose.RS256, testKey()), testKey().Public(), "", all, true},
		"RS256 not listed":             {joseToken(t, jose.RS256, testKey()), testKey().Public(), "", []string{ES256}, false},
		"RS512":                        {joseToken(t, jose.RS512, testKey()), testKey().Public(), "", all, false},
		"PS256":                        {joseToken(t, jose.PS256, testKey()), testKey().Public(), "", all, false},
		"PS256 said by the key":        {joseToken(t, jose.PS256, testKey()), testKey().Public(), "PS256", all, false},
		"ES256":                        {joseToken(t, jose.ES256, elliptical), elliptical.Public(), "ES256", all, true},
		"ES256, alg not said":          {joseToken(t, jose.ES256, elliptical), elliptical.Public(), "", all, true},
		"ES256 not listed":             {joseToken(t, jose.ES256, elliptical), elliptical.Public(), "ES256", nil, false},
		"ES384":                        {joseToken(t, jose.ES384, larger), larger.Public(), "ES384", all, false},
		"EdDSA":                        {joseToken(t, jose.EdDSA, edwards), edPublic, "EdDSA", all, true},
		"EdDSA not listed":             {joseToken(t, jose.EdDSA, edwards), edPublic, "EdDSA", nil, false},
		"ES256 token, EdDSA key":       {joseToken(t, jose.ES256, elliptical), edPublic, "", all, false},
		"RS256 token, ES256 key":       {joseToken(t, jose.RS256, testKey()), elliptical.Public(), "", all, false},
		"EdDSA token, RS256 key":       {joseToken(t, jose.EdDSA, edwards), testKey().Public(), "", all, false},
		"HS256 with the public key":    {joseToken(t, jose.HS256, joseSet(t, testKey().Public(), "RS256")), testKey().Public(), "", all, false},
		"ES256 with another key's kid": {joseToken(t, jose.ES256, elliptical), testKey().Public(), "RS256", all, false},
	} {
		issuer := Issuer{URL: testURL, Static: joseSet(t, c.public, c.alg), Algorithms: c.list}
		v, err := New([]Issuer{issuer}, Config{Now: atNoon})
		if err != nil {
			if c.want {
				t.Errorf("%s: %v", name, err)
			}
			continue // the set holds no usable key
		}
		_, err = v.Verify(t.Context(), c.token)
		if got := err == nil; got != c.want {
			t.Errorf("%s: accepted %v (%v), want %v", name, got, err, c.want)
		}
	}
}

// A token that names one algorithm and is signed with another is no token, even if the key would
// verify it and the issuer lists both.
func TestTheNamedAlgorithmMustBeTheKeys(t *testing.T) {
	issuer := staticIssuer()
	issuer.Algorithms = []string{RS256, ES256, EdDSA}
	payload := fmt.Sprintf(`{"iss":%q,"sub":"user","exp":%d}`, testURL, noon.Unix()+60)
	for alg, want := range map[string]Reason{RS256: Accepted, ES256: BadAlgorithm, EdDSA: BadAlgorithm} {
		token := sign(t, `{"alg":"`+alg+`","kid":"k"}`, payload)
		if got := reasonFor(t, issuer, token); got != want {
			t.Errorf("alg %s, signed with RS256: %v, want %v", alg, got, want)
		}
	}
}

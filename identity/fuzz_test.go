package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// FuzzParseToken holds the reader of envelopes and claims against the standard library: what we
// take, it takes too, and reads alike; and no token has two spellings.
func FuzzParseToken(f *testing.F) {
	for _, header := range []string{testHeader, `{"alg":"none"}`, `{"alg":"RS256","kid":"k","crit":[]}`, `[]`, ``, `{"a":"\ud83d\ude00"}`} {
		for _, payload := range []string{
			`{"iss":"i","sub":"s","exp":1}`, `{"iss":"i","sub":"s","exp":1e3,"aud":["a"],"o":{"id":"x"},"fva":[1,-1]}`,
			`{"a":1,"\u0061":2}`, "{\"a\":\"\xff\"}", `{}{}`, strings.Repeat(`{"a":`, 20),
		} {
			f.Add(segment(header) + "." + segment(payload) + ".c2ln")
		}
	}
	f.Add(strings.Repeat(".", 9000))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		e, why := openEnvelope(token)
		if why != Accepted {
			return
		}
		checkSpelling(t, token, e)
		c, why := readClaims(e.payload)
		if why != Accepted {
			return
		}
		agree(t, e.payload, c.all)
		if !printable(c.subject, maxName) || c.expires.Unix() < 0 {
			t.Fatalf("subject %q, expires %v", c.subject, c.expires)
		}
		for profile := Clerk; profile <= AccessToken; profile++ {
			_, _ = Issuer{Profile: profile}.principal(c, e.payload)
		}
	})
}

func checkSpelling(t *testing.T, token string, e *envelope) {
	parts := strings.Split(token, ".")
	encode := base64.RawURLEncoding.EncodeToString
	if parts[1] != encode(e.payload) || parts[2] != encode(e.signature) || e.signed != parts[0]+"."+parts[1] {
		t.Fatalf("%q has another spelling", token)
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	agree(t, header, e.header)
}

// fuzzKey is the same in every worker process, as RSA keys cannot be.
func fuzzKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func fuzzSign(header, payload string) string {
	signed := segment(header) + "." + segment(payload)
	return signed + "." + segment(string(ed25519.Sign(fuzzKey(), []byte(signed))))
}

// FuzzVerify looks for a token that we accept and another implementation does not, or that was
// never signed.
func FuzzVerify(f *testing.F) {
	public := fuzzKey().Public().(ed25519.PublicKey)
	keys := `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + segment(string(public)) + `"}]}`
	issuer := Issuer{URL: testURL, Static: []byte(keys), Algorithms: []string{EdDSA}}
	v, err := New([]Issuer{issuer}, Config{Now: atNoon})
	if err != nil {
		f.Fatal(err)
	}
	const header, payload = `{"alg":"EdDSA","kid":"k"}`, `{"iss":"` + testURL + `","sub":"u","exp":1900000000}`
	good := fuzzSign(header, payload)
	if _, err := v.Verify(f.Context(), good); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		good, good[:len(good)-2], good + "\n", strings.Replace(good, ".", "..", 1),
		fuzzSign(header, `{"iss":"`+testURL+`","sub":"u","exp":1}`), fuzzSign(`{"alg":"none","kid":"k"}`, payload),
		fuzzSign(`{"alg":"EdDSA","kid":"k","crit":[]}`, payload), segment(header) + "." + segment(payload) + ".",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, err := v.Verify(t.Context(), token)
		cached, hit := v.Cached(token)
		if (err == nil) != hit || (hit && cached.Subject != p.Subject) {
			t.Fatalf("Verify says %v, the cache %v", err, hit)
		}
		if err == nil {
			checkWithJose(t, token, public)
		}
	})
}

func checkWithJose(t *testing.T, token string, public ed25519.PublicKey) {
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatalf("%q: %v", token, err)
	}
	if _, err := parsed.Verify(public); err != nil {
		t.Fatalf("%q: %v", token, err)
	}
}

// FuzzStrictJSON: the same law for the JSON reader alone, without base64 in the fuzzer's way.
func FuzzStrictJSON(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[true,false,null,-0.5e+7,"\ud83d\ude00\n"],"c":{"a":{}}}`))
	f.Add([]byte(`{"a":1,"\u0061":2}`))
	f.Add([]byte("\ufeff{}"))
	f.Add([]byte(`{"a":[[[[]]]]} `))
	f.Fuzz(func(t *testing.T, text []byte) {
		if o, err := parseObject(text, maxDepth); err == nil {
			agree(t, text, o)
		}
	})
}

// FuzzKeySet reads what an issuer might send.
func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[` + jwkOf(&testKey().PublicKey, "k", `,"use":"sig"`) + `]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"e","x":"AA","y":"AA"},{"kty":"OKP","crv":"Ed25519","kid":"o","x":""}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"r","n":"AQ","e":"AQ"},1,null,[]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, _, err := parseKeySet(text, []string{RS256, ES256, EdDSA})
		if err != nil {
			return
		}
		for id, k := range set.keys {
			if id != k.id || !printable(id, maxKeyID) || k.verify("a.b", []byte("signature")) {
				t.Fatalf("key %q of %q", id, text)
			}
		}
	})
}

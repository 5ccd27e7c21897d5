package identity

import (
	"encoding/base64"
	"runtime"
	"strings"
	"testing"
)

// segment encodes text as a part of a token.
func segment(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestGateLetsOnlyThreePartsOfBase64URLPass(t *testing.T) {
	for token, want := range map[string]bool{
		"a.b.c":                             true,
		"..":                                true,
		"A-z_0.9.x":                         true,
		"":                                  false,
		"a":                                 false,
		"a.b":                               false,
		"a.b.c.d":                           false,
		"a.b.c.d.e":                         false,
		"a.b.c=":                            false,
		"a.b.c\n":                           false,
		"a.b\r\n.c":                         false,
		" a.b.c":                            false,
		"a.b.c ":                            false,
		"a.b/.c":                            false,
		"a.b+.c":                            false,
		"a.b.ç":                             false,
		"a.b.c\x00":                         false,
		`{"a":"b.c.d"}`:                     false,
		strings.Repeat("a", 8190) + "..":    true,
		strings.Repeat("a", 8191) + "..":    false,
		strings.Repeat(".", 1<<20):          false,
		"a.b." + strings.Repeat("c", 1<<20): false,
	} {
		if got := wellFormed(token); got != want {
			t.Errorf("wellFormed(%.20q, %d bytes) = %v, want %v", token, len(token), got, want)
		}
	}
}

// A token has one spelling only, or a deny-list of tokens could be walked around.
func TestBase64IsStrict(t *testing.T) {
	for text, want := range map[string]string{"": "", "YQ": "a", "YWI": "ab", "YWJj": "abc"} {
		if got, err := decode(text); err != nil || string(got) != want {
			t.Errorf("decode(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"Y", "YR", "YWJ", "YQ==", "YWI=", "Y Q", "YQ\n", "Y\rQ", "a+b_", "a/b_"} {
		if got, err := decode(text); err == nil {
			t.Errorf("decode(%q) = %q, want an error", text, got)
		}
	}
}

func TestHeaderRules(t *testing.T) {
	for header, want := range map[string]Reason{
		`{"alg":"RS256","kid":"k"}`:                                Accepted,
		`{"alg":"RS256","kid":"k","typ":"JWT","oiat":1,"x":{}}`:    Accepted,
		`{"alg":"RS256","kid":"k","jwk":{},"jku":"","x5c":[]}`:     Accepted, // ignored, not used
		`{"alg":"RS256","kid":"` + strings.Repeat("k", 256) + `"}`: Accepted,
		`{"alg":"RS256","kid":"` + strings.Repeat("k", 257) + `"}`: BadHeader,
		`{"alg":"RS256","kid":""}`:                                 BadHeader,
		`{"alg":"RS256","kid":"a b"}`:                              BadHeader,
		`{"alg":"RS256","kid":"a\u0000"}`:                          BadHeader,
		`{"alg":"RS256","kid":"é"}`:                                BadHeader,
		`{"alg":"RS256","kid":null}`:                               BadHeader,
		`{"alg":"RS256"}`:                                          BadHeader,
		`{"alg":256,"kid":"k"}`:                                    BadHeader,
		`{"alg":["RS256"],"kid":"k"}`:                              BadHeader,
		`{"kid":"k"}`:                                              BadHeader,
		`{"ALG":"RS256","kid":"k"}`:                                BadHeader,
		`{"alg":"RS256","kid":"k","crit":[]}`:                      BadHeader,
		`{"alg":"RS256","kid":"k","crit":["exp"]}`:                 BadHeader,
		`{"alg":"RS256","kid":"k","crit":null}`:                    BadHeader,
		`{"alg":"RS256","kid":"k","b64":true}`:                     BadHeader,
		`{"alg":"RS256","kid":"k","zip":"DEF"}`:                    BadHeader,
		`{"alg":"RS256","kid":"k","enc":"A128GCM"}`:                BadHeader,
		`{"alg":"RS256","kid":"k","typ":null}`:                     BadHeader,
		`{"alg":"RS256","kid":"k","typ":""}`:                       BadHeader,
		`{"alg":"RS256","kid":"k","typ":["JWT"]}`:                  BadHeader,
		`{"alg":"none","alg":"RS256","kid":"k"}`:                   Malformed,
		`{"alg":"RS256","kid":"k"}{}`:                              Malformed,
		`["alg","RS256"]`:                                          Malformed,
		"\ufeff" + `{"alg":"RS256","kid":"k"}`:                     Malformed,
	} {
		if _, got := openEnvelope(segment(header) + ".e30.c2ln"); got != want {
			t.Errorf("%.80s: %v, want %v", header, got, want)
		}
	}
}

func TestTypeFollowsTheProfile(t *testing.T) {
	for typ, want := range map[string][3]bool{ // Clerk, OIDC, AccessToken
		"":                   {true, true, false},
		"JWT":                {true, true, false},
		"jwt":                {true, true, false},
		"application/jwt":    {true, true, false},
		"Application/JWT":    {true, true, false},
		"at+jwt":             {false, false, true},
		"AT+JWT":             {false, false, true},
		"application/at+jwt": {false, false, true},
		"logout+jwt":         {false, false, false},
		"dpop+jwt":           {false, false, false},
		"JOSE":               {false, false, false},
		"application/":       {false, false, false},
	} {
		for profile, ok := range want {
			if got := Profile(profile).allowsType(typ); got != ok {
				t.Errorf("%v.allowsType(%q) = %v, want %v", Profile(profile), typ, got, ok)
			}
		}
	}
}

// A megabyte of dots in a header must cost no memory: earlier libraries split it into a million
// strings.
func TestGarbageAllocatesNothing(t *testing.T) {
	v := staticVerifier(t, Config{})
	garbage := strings.Repeat(".", 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		_, _ = v.Verify(t.Context(), garbage)
	}
	runtime.ReadMemStats(&after)
	got := (after.TotalAlloc - before.TotalAlloc) / 100
	if got > 1<<10 {
		t.Errorf("refusing 1 MiB of dots allocates %d bytes, want 1,024 at most", got)
	}
}

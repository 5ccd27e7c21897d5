package identity

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// The signature core against other people's vectors. Their payloads are not claims, so these tests
// stop where the signature has been checked.

// checkSignature opens a token and verifies it with the keys of a JWK set.
func checkSignature(token string, keys []byte, algorithms ...string) Reason {
	e, why := openEnvelope(token)
	if why != Accepted {
		return why
	}
	set, _, err := parseKeySet(keys, algorithms)
	if err != nil || set.find(e.kid) == nil {
		return UnknownKey
	}
	if !slices.Contains(algorithms, e.alg) {
		return BadAlgorithm
	}
	return e.verify(set.find(e.kid))
}

type wycheproof struct {
	NumberOfTests int
	TestGroups    []struct {
		Comment         string
		Public, Private json.RawMessage
		Tests           []struct {
			TcID                 int
			Comment, JWS, Result string
		}
	}
}

func readWycheproof(t *testing.T, file string) wycheproof {
	t.Helper()
	var vectors wycheproof
	if err := json.Unmarshal(readVector(t, "wycheproof", file), &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// With RS256 alone, its 8 valid signatures verify and the other 393 vectors do not.
func TestWycheproofSignatures(t *testing.T) {
	vectors := readWycheproof(t, "json_web_signature_test.json")
	valid := []int{33, 259, 260, 261, 262, 263, 345, 349}
	total, accepted := 0, 0
	for _, group := range vectors.TestGroups {
		for _, test := range group.Tests {
			total++
			got := checkSignature(test.JWS, setOf(group.Public, group.Private), RS256)
			if got == Accepted {
				accepted++
			}
			if want := slices.Contains(valid, test.TcID); (got == Accepted) != want {
				t.Errorf("%d (%s, %s) = %v, want accepted: %v", test.TcID, group.Comment, test.Comment, got, want)
			}
		}
	}
	if total != vectors.NumberOfTests || accepted != len(valid) {
		t.Errorf("%d of %d verify, want %d of %d", accepted, total, len(valid), vectors.NumberOfTests)
	}
}

// With ES256 enabled as well, its vectors must come out as the file says; nothing else changes.
func TestWycheproofSignaturesOfES256(t *testing.T) {
	seen := 0
	for _, group := range readWycheproof(t, "json_web_signature_test.json").TestGroups {
		var public struct{ Alg, Crv string }
		_ = json.Unmarshal(group.Public, &public)
		if public.Alg != ES256 {
			continue
		}
		for _, test := range group.Tests {
			seen++
			got := checkSignature(test.JWS, setOf(group.Public, nil), RS256, ES256)
			if want := test.Result == "valid"; (got == Accepted) != want {
				t.Errorf("%d (%s) = %v, want accepted: %v", test.TcID, test.Comment, got, want)
			}
		}
	}
	if seen != 39 {
		t.Errorf("%d vectors of ES256, want 39", seen)
	}
}

// setOf makes a set of the group's key: the public half, or, where the file has none, what it has.
func setOf(public, private json.RawMessage) []byte {
	key := public
	if key == nil {
		key = private
	}
	return slices.Concat([]byte(`{"keys":[`), key, []byte(`]}`))
}

// The key vectors hold for all algorithms; those of symmetric keys (2, 13, 14, 15) are valid there
// and never here.
func TestWycheproofKeys(t *testing.T) {
	for _, group := range readWycheproof(t, "json_web_key_test.json").TestGroups {
		keys := group.Public
		if keys == nil {
			keys = group.Private
		}
		for _, test := range group.Tests {
			got := checkSignature(test.JWS, keys, RS256, ES256, EdDSA)
			if want := test.TcID == 5; (got == Accepted) != want {
				t.Errorf("%d (%s, %s) = %v, want accepted: %v", test.TcID, group.Comment, test.Comment, got, want)
			}
		}
	}
}

// The same with the private halves: a set that publishes its secret is not to be trusted.
func TestWycheproofPrivateKeysAreNotUsed(t *testing.T) {
	for _, group := range readWycheproof(t, "json_web_key_test.json").TestGroups {
		for _, test := range group.Tests {
			if got := checkSignature(test.JWS, group.Private, RS256, ES256, EdDSA); got == Accepted {
				t.Errorf("%d (%s) verifies with a private key", test.TcID, test.Comment)
			}
		}
	}
}

func TestRFC7520Section4(t *testing.T) {
	files := map[string]Reason{
		"4_1.rsa_v15_signature.json":              Accepted,
		"4_2.rsa-pss_signature.json":              BadAlgorithm,
		"4_3.ecdsa_signature.json":                UnknownKey,
		"4_4.hmac-sha2_integrity_protection.json": UnknownKey,
	}
	for file, want := range files {
		var vector struct {
			Input  struct{ Key map[string]any }
			Output struct{ Compact string }
		}
		if err := json.Unmarshal(readVector(t, "rfc7520", "jws", file), &vector); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			delete(vector.Input.Key, secret)
		}
		key, err := json.Marshal(vector.Input.Key)
		if err != nil {
			t.Fatal(err)
		}
		got := checkSignature(vector.Output.Compact, setOf(key, nil), RS256)
		if got != want {
			t.Errorf("%s = %v, want %v", file, got, want)
		}
	}
}

type gantryVectors struct {
	Now    int64
	JWKS   json.RawMessage
	Config struct {
		Issuer   string
		LeewayS  int      `json:"leeway_s"`
		Parties  []string `json:"authorized_parties"`
		Audience string   `json:"audience_when_configured"`
	}
	Cases []struct{ Name, Expect, Why, Token string }
}

// verdict verifies a token as the file's config has it, with changes.
func (g *gantryVectors) verdict(t *testing.T, token string, change func(*Issuer)) Reason {
	t.Helper()
	issuer := Issuer{URL: g.Config.Issuer, Static: g.JWKS, AuthorizedParties: g.Config.Parties}
	change(&issuer)
	now := time.Unix(g.Now, 0)
	v, err := New([]Issuer{issuer}, Config{
		Leeway: time.Duration(g.Config.LeewayS) * time.Second,
		Now:    func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), token)
	return reasonOf(t, err)
}

func TestTokensOfTheVectorFile(t *testing.T) {
	var file gantryVectors
	if err := json.Unmarshal(readVector(t, "gantry", "jwt_rs256_vectors.json"), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	asIs := func(*Issuer) {}
	for _, c := range file.Cases {
		got := file.verdict(t, c.Token, asIs)
		switch c.Expect {
		case "accept", "accept-leeway5":
			if got != Accepted {
				t.Errorf("%s: %v, want it accepted (%s)", c.Name, got, c.Why)
			}
		case "reject":
			if got == Accepted {
				t.Errorf("%s: accepted, want it refused (%s)", c.Name, c.Why)
			}
		case "policy": // azp is missing: accepted unless required
			strict := file.verdict(t, c.Token, func(i *Issuer) { i.RequireAZP = true })
			if got != Accepted || strict != BadParty {
				t.Errorf("%s: %v, and %v when azp is required", c.Name, got, strict)
			}
		case "reject-if-aud-configured":
			strict := file.verdict(t, c.Token, func(i *Issuer) { i.Audience = file.Config.Audience })
			if got != Accepted || strict != BadAudience {
				t.Errorf("%s: %v, and %v when an audience is configured", c.Name, got, strict)
			}
		default:
			t.Errorf("%s: the file expects %q, which this test does not know", c.Name, c.Expect)
		}
		if c.Name == "aud array with match" {
			if strict := file.verdict(t, c.Token, func(i *Issuer) { i.Audience = file.Config.Audience }); strict != Accepted {
				t.Errorf("%s: %v when an audience is configured", c.Name, strict)
			}
		}
	}
}

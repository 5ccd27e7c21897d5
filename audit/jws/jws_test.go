package jws

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"os"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// What is signed here must verify elsewhere, or a refusal by the target would prove nothing.
func TestSignaturesVerifyWithAnotherImplementation(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	public, edKey, _ := ed25519.GenerateKey(rand.Reader)
	secret := []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	for alg, keys := range map[string][2]any{
		"HS256": {secret, secret}, "HS384": {secret, secret}, "HS512": {secret, secret},
		"RS256": {rsaKey, &rsaKey.PublicKey}, "RS512": {rsaKey, &rsaKey.PublicKey}, "PS256": {rsaKey, &rsaKey.PublicKey},
		"ES256": {p256, &p256.PublicKey}, "ES384": {p384, &p384.PublicKey}, "ES512": {p521, &p521.PublicKey}, "EdDSA": {edKey, public},
	} {
		token, err := Sign([]byte(`{"alg":"`+alg+`"}`), []byte(`{"sub":"a"}`), alg, keys[0])
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if _, err := parsed.Verify(keys[1]); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestParseTakesApartWhatCompactPutsTogether(t *testing.T) {
	header, payload := []byte(`{"alg":"RS256","kid":"k"}`), []byte(`{"sub":"a","n":12345678901234567890}`)
	token, err := Parse(Compact(header, payload, []byte{0, 1, 2}))
	if err != nil {
		t.Fatal(err)
	}
	if string(token.Header) != string(header) || string(token.Payload) != string(payload) || token.Alg() != "RS256" || token.Kid() != "k" {
		t.Errorf("parsed %+v", token)
	}
	claims, err := token.Claims()
	if err != nil || claims["n"] != json.Number("12345678901234567890") {
		t.Errorf("claims %v, %v: a number lost digits", claims, err)
	}
	for _, opaque := range []string{"", "abc", "a.b", "a.b.c", "e30.e30", "e30.e30.e30.e30.e30", "e30.bm90IGpzb24.AA"} {
		if _, err := Parse(opaque); err == nil {
			t.Errorf("Parse(%q) took it for a token", opaque)
		}
	}
}

func TestWithSetsAndRemovesMembers(t *testing.T) {
	got := With([]byte(`{"a":1,"b":12345678901234567890}`), map[string]any{"a": nil, "c": "x"})
	if string(got) != `{"b":12345678901234567890,"c":"x"}` {
		t.Errorf("With = %s", got)
	}
}

// The examples of RFC 7520 are real tokens of other people's making.
func TestParsesTheCookbook(t *testing.T) {
	text, err := os.ReadFile("../../../shared/vectors/rfc7520/jws/4_1.rsa_v15_signature.json")
	if err != nil {
		t.Skipf("the vectors are not here: %v", err)
	}
	var v struct {
		Output struct{ Compact string }
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	// Its payload is prose, not claims: for an audit that is opaque.
	if _, err := Parse(v.Output.Compact); err == nil {
		t.Error("a token whose payload is not JSON was taken for one with claims")
	}
}

package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

func parseOne(jwk string, algorithms ...string) (*keySet, []skip, error) {
	return parseKeySet([]byte(`{"keys":[`+jwk+`]}`), algorithms)
}

func TestOnlyUsableKeysAreUsed(t *testing.T) {
	public := &testKey().PublicKey
	modulus := func(bits int, last byte) string {
		n := make([]byte, bits/8)
		_, _ = rand.Read(n)
		n[0] |= 0x80
		n[len(n)-1] = last
		return base64.RawURLEncoding.EncodeToString(n)
	}
	raw := func(n, e string) string { return fmt.Sprintf(`{"kty":"RSA","kid":"k","n":%q,"e":%q}`, n, e) }
	for name, c := range map[string]struct {
		jwk string
		ok  bool
	}{
		"plain":                 {jwkOf(public, "k", ""), true},
		"all said":              {jwkOf(public, "k", `,"use":"sig","alg":"RS256","key_ops":["verify"]`), true},
		"unknown members":       {jwkOf(public, "k", `,"x5c":["no certificate"],"x5t":"?","ext":true`), true},
		"8192 bits":             {raw(modulus(8192, 1), "AQAB"), true},
		"leading zero":          {raw(base64.RawURLEncoding.EncodeToString(append([]byte{0}, public.N.Bytes()...)), "AQAB"), true},
		"use enc":               {jwkOf(public, "k", `,"use":"enc"`), false},
		"use null":              {jwkOf(public, "k", `,"use":null`), false},
		"key_ops sign":          {jwkOf(public, "k", `,"key_ops":["sign"]`), false},
		"key_ops empty":         {jwkOf(public, "k", `,"key_ops":[]`), false},
		"key_ops string":        {jwkOf(public, "k", `,"key_ops":"verify"`), false},
		"alg PS256":             {jwkOf(public, "k", `,"alg":"PS256"`), false},
		"alg in lower case":     {jwkOf(public, "k", `,"alg":"rs256"`), false},
		"alg null":              {jwkOf(public, "k", `,"alg":null`), false},
		"private d":             {jwkOf(public, "k", `,"d":"AQAB"`), false},
		"private p":             {jwkOf(public, "k", `,"p":"AQAB"`), false},
		"private, null":         {jwkOf(public, "k", `,"d":null`), false},
		"no kid":                {strings.Replace(jwkOf(public, "k", ""), `"kid":"k",`, "", 1), false},
		"kid with a space":      {jwkOf(public, "a b", ""), false},
		"kid too long":          {jwkOf(public, strings.Repeat("k", 257), ""), false},
		"1024 bits":             {raw(modulus(1024, 1), "AQAB"), false},
		"16384 bits":            {raw(modulus(16384, 1), "AQAB"), false},
		"even modulus":          {raw(modulus(2048, 2), "AQAB"), false},
		"exponent 1":            {raw(modulus(2048, 1), "AQ"), false},
		"exponent 3":            {raw(modulus(2048, 1), "Aw"), false},
		"even exponent":         {raw(modulus(2048, 1), "AQAC"), false},
		"exponent 2^31+1":       {raw(modulus(2048, 1), "gAAAAQ"), false},
		"exponent of 2048 bits": {raw(modulus(2048, 1), modulus(2048, 1)), false},
		"padded modulus":        {raw(modulus(2048, 1)+"==", "AQAB"), false},
		"no modulus":            {`{"kty":"RSA","kid":"k","e":"AQAB"}`, false},
		"symmetric":             {`{"kty":"oct","kid":"k","k":"AAAA"}`, false},
		"P-256, not enabled":    {jwkEC(t), false},
		"unknown type":          {`{"kty":"AKP","kid":"k","alg":"ML-DSA-44","pub":"AA"}`, false},
		"no type":               {`{"kid":"k"}`, false},
		"lower-case type":       {strings.Replace(jwkOf(public, "k", ""), "RSA", "rsa", 1), false},
		"not an object":         {`"k"`, false},
	} {
		set, skipped, err := parseOne(c.jwk, RS256)
		if got := err == nil && set.find("k") != nil; got != c.ok {
			t.Errorf("%s: usable = %v, want %v (%v, %v)", name, got, c.ok, skipped, err)
		}
		if !c.ok && len(skipped) != 1 {
			t.Errorf("%s: skipped = %v, want one", name, skipped)
		}
	}
}

func jwkEC(t *testing.T) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"k","x":%q,"y":%q}`, encode(point[1:33]), encode(point[33:]))
}

// One odd key must not cost us the others, and one published secret must be told.
func TestBadKeysDoNotSpoilTheSet(t *testing.T) {
	public := &testKey().PublicKey
	set, skipped, err := parseOne(strings.Join([]string{
		`{"kty":"oct","kid":"secret","k":"AAAA"}`, `7`, `{"kty":"EC","crv":"P-256","kid":"ec","x":"AA","y":"AA"}`,
		jwkOf(public, "good", ""), jwkOf(public, "private", `,"d":"AQAB"`),
	}, ","), RS256)
	if err != nil || set.find("good") == nil || set.len() != 1 {
		t.Fatalf("set = %v, %v, want the good key", set, err)
	}
	var alarms []string
	for _, k := range skipped {
		if k.alarm {
			alarms = append(alarms, k.id)
		}
	}
	if got := strings.Join(alarms, " "); got != "secret private" {
		t.Errorf("alarms = %q, want %q", got, "secret private")
	}
}

func TestKeysThatShareAnIDAreNotUsed(t *testing.T) {
	public := &testKey().PublicKey
	for _, times := range []int{2, 3, 4} {
		twins := strings.Repeat(jwkOf(public, "twin", "")+",", times)
		set, skipped, err := parseOne(twins+jwkOf(public, "single", ""), RS256)
		if err != nil || set.find("twin") != nil || set.find("single") == nil || len(skipped) != 1 {
			t.Errorf("%d times: set = %v, skipped %v, %v", times, set, skipped, err)
		}
	}
}

func TestKeyDocumentsAreBounded(t *testing.T) {
	public := &testKey().PublicKey
	var many []string
	for n := range maxKeys + 1 {
		many = append(many, jwkOf(public, fmt.Sprint(n), ""))
	}
	if _, _, err := parseOne(strings.Join(many[:maxKeys], ","), RS256); err != nil {
		t.Errorf("%d keys: %v, want none", maxKeys, err)
	}
	for name, text := range map[string]string{
		"too many keys":  `{"keys":[` + strings.Join(many, ",") + `]}`,
		"no keys":        `{"keys":[]}`,
		"no usable key":  `{"keys":[{"kty":"oct","kid":"k","k":"AAAA"}]}`,
		"no list":        `{"keys":{}}`,
		"nothing":        `{}`,
		"array":          `[` + many[0] + `]`,
		"page":           `<!doctype html>`,
		"duplicate list": `{"keys":[` + many[0] + `],"keys":[` + many[0] + `]}`,
		"too deep":       `{"keys":[` + many[0] + `],"x":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}`,
		"cut off":        `{"keys":[` + many[0],
	} {
		if set, _, err := parseKeySet([]byte(text), []string{RS256}); err == nil {
			t.Errorf("%s: set = %v, want an error", name, set)
		}
	}
}

func TestHonestKeysAreNotTakenForROCA(t *testing.T) {
	for range 200 {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 2048))
		if err != nil {
			t.Fatal(err)
		}
		if isROCA(n.SetBit(n, 0, 1)) {
			t.Fatalf("%x is taken for a ROCA modulus", n)
		}
	}
}

func TestStaticKeysComeAsPEMOrJWKS(t *testing.T) {
	public := &testKey().PublicKey
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	good := block("PUBLIC KEY", pkix)
	small, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).Rsh(public.N, 1024), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"PKIX":           {good, true},
		"PKCS #1":        {block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(public)), true},
		"one line":       {strings.ReplaceAll(good, "\n", `\n`), true},
		"set":            {"\n {\"keys\":[" + jwkOf(public, "k", "") + "]}\n", true},
		"two blocks":     {good + good, false},
		"private key":    {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testKey())), false},
		"small key":      {block("PUBLIC KEY", small), false},
		"broken DER":     {block("PUBLIC KEY", pkix[:100]), false},
		"empty":          {"", false},
		"single JWK":     {jwkOf(public, "k", ""), false},
		"secret key set": {`{"keys":[` + jwkOf(public, "k", `,"d":"AQAB"`) + `]}`, false},
	} {
		set, err := parseStatic([]byte(c.text), []string{RS256})
		if got := err == nil && set.find("k") != nil; got != c.ok {
			t.Errorf("%s: usable = %v (%v), want %v", name, got, err, c.ok)
		}
	}
	if _, err := parseStatic([]byte(good), []string{ES256}); err == nil {
		t.Error("an RSA key is taken by an issuer of ES256 only")
	}
}

package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"
)

const testURL = "https://issuer.test"

var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return private
})

// jwkOf writes a public RSA key as a JWK with further members.
func jwkOf(public *rsa.PublicKey, kid, more string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"kty":"RSA","kid":%q,"n":%q,"e":%q%s}`, kid,
		encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes()), more)
}

func staticIssuer() Issuer {
	return Issuer{URL: testURL, Static: []byte(`{"keys":[` + jwkOf(&testKey().PublicKey, "k", "") + `]}`)}
}

func staticVerifier(t testing.TB, cfg Config) *Verifier {
	t.Helper()
	v, err := New([]Issuer{staticIssuer()}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sign makes a token of any header and payload.
func sign(t testing.TB, header, payload string) string {
	t.Helper()
	signed := segment(header) + "." + segment(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, testKey(), crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

const testHeader = `{"alg":"RS256","kid":"k","typ":"JWT"}`

// mint makes a token that is valid for a minute from now, with changes over the usual claims.
func mint(t testing.TB, now time.Time, changes map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": testURL, "sub": "user_1", "iat": now.Unix(), "exp": now.Unix() + 60}
	for name, v := range changes {
		claims[name] = v
		if v == nil {
			delete(claims, name)
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, testHeader, string(payload))
}

package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestEncryptedTokensOpenElsewhere(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"RSA-OAEP", "RSA-OAEP-256"} {
		opens(t, alg, &r.PublicKey, r)
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		e, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		opens(t, "ECDH-ES", &e.PublicKey, e)
	}
}

func opens(t *testing.T, alg string, public crypto.PublicKey, private any) {
	t.Helper()
	compact, err := Encrypt(public, map[string]any{"alg": alg, "cty": "JWT"}, []byte("inside"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jose.ParseEncryptedCompact(compact, []jose.KeyAlgorithm{jose.KeyAlgorithm(alg)}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		t.Fatalf("%s: %v", alg, err)
	}
	if got, err := parsed.Decrypt(private); err != nil || string(got) != "inside" {
		t.Errorf("%s: decrypted %q, %v; want %q", alg, got, err, "inside")
	}
}

func TestEncryptionNamesWhatItCannotDo(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Encrypt(public, map[string]any{"alg": "ECDH-ES"}, nil); err == nil {
		t.Error("encrypted to a key that only signs")
	}
}

package realtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit/jws"
)

// issuer makes the tokens that the applications are asked with.
type issuer struct {
	key        *rsa.PrivateKey
	publicFile string // in PEM
	typ        string // of its access tokens: at+jwt (RFC 9068), or JWT as of most issuers
}

func newIssuer(t *testing.T, typ string) issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "public.pem")
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	return issuer{key, file, typ}
}

// private key in PEM, as --jwt-key takes it.
func (i issuer) private() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(i.key)}))
}

// token of a user under RS256.
func (i issuer) token(t *testing.T, user string) string {
	t.Helper()
	return signed(t, user, i.typ, "RS256", i.key)
}

// signed is an access token of a user that lives for half an hour.
func signed(t *testing.T, user, typ, alg string, key any) string {
	t.Helper()
	header := map[string]any{"alg": alg, "typ": typ, "kid": "issuer-1"}
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": "https://issuer.example", "aud": "notes", "sub": user, "iat": now - 1, "exp": now + 1800, "name": "A. Miller",
	}
	token, err := jws.Sign(object(t, header), object(t, claims), alg, key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func object(t *testing.T, members map[string]any) []byte {
	t.Helper()
	text, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

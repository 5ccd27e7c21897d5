package selftest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// signatureCases are verifiers with one hole each. What a fault lets in still goes through the check of the claims.
func signatureCases() []Case {
	return []Case{
		{Probe: "JWT-01", Break: func(a *API) { a.Identify = decodeOnly }},
		{Probe: "JWT-02", Break: lets(func(a *API, t jws.Token) bool {
			return len(t.Signature) == 0 // "nothing to verify" is not "verified"
		})},
		{Probe: "JWT-03", Break: lets(func(a *API, t jws.Token) bool {
			return t.Alg() != "none" && strings.EqualFold(t.Alg(), "none") // a blocklist of one spelling before a library that folds case
		})},
		{Probe: "JWT-04", Break: lets(confusesKeys)},
		{Probe: "JWT-05", Break: lets(func(a *API, t jws.Token) bool {
			return t.Alg() == "HS256" && macOf(t, []byte(os.Getenv("GANTRY_SELFTEST_UNSET_SECRET")))
		})},
		{Probe: "JWT-07", Break: lets(func(a *API, t jws.Token) bool {
			return t.Kid() == keyID && len(t.Signature) == a.Key.Size() // the result of verify is not looked at
		})},
		{Probe: "JWT-08", Break: breaksOn(func(t jws.Token) bool { return t.Kid() != keyID })}, // keys[kid] without a look whether it is there
		{Probe: "JWT-09", Break: lets(func(a *API, t jws.Token) bool {
			secret, err := os.ReadFile(filepath.Join("/", "etc", "keys", t.Kid())) // dots and all
			return err == nil && t.Alg() == "HS256" && macOf(t, secret)
		})},
		{Probe: "JWT-10", Break: lets(func(a *API, t jws.Token) bool {
			var header struct{ JWK map[string]string }
			return json.Unmarshal(t.Header, &header) == nil && verifiesWith(header.JWK, t)
		})},
		{Probe: "JWT-11", Break: lets(fetchesKey)},
		{Probe: "JWT-12", Break: lets(func(a *API, t jws.Token) bool { // r and s are not checked to be positive
			return strings.HasPrefix(t.Alg(), "ES") && len(bytes.Trim(t.Signature, "\x00")) == 0
		})},
		{Probe: "JWT-13", Break: lets(func(a *API, t jws.Token) bool {
			switch t.Alg() {
			case "RS256", "none", "":
				return false
			case "HS256", "HS384", "HS512", "ES256", "ES384", "ES512", "EdDSA":
				return false
			}
			return true // the switch over the algorithms has no default
		})},
		{Probe: "JWT-24", Prepare: takesEncrypted(false), Break: takesEncrypted(true)},
		{Probe: "JWT-25", Break: func(a *API) {
			a.Identify = func(r *http.Request) (map[string]any, error) { // the middleware verifies the first, the handler reads the last
				values := r.Header.Values("Authorization")
				if len(values) == 0 {
					return nil, errToken
				}
				first := r.Clone(r.Context())
				first.Header.Set("Authorization", values[0])
				if _, err := a.verified(first); err != nil {
					return nil, err
				}
				t, err := jws.Parse(strings.TrimPrefix(values[len(values)-1], "Bearer "))
				if err != nil {
					return nil, err
				}
				return t.Claims()
			}
		}},
		{Probe: "JWT-26", Break: lets(func(a *API, t jws.Token) bool { return StrictHeader(t.Header) && a.signed(t) })}, // padding and spare bits are forgiven
		{Probe: "JWT-27", Break: func(a *API) {
			a.Identify = func(r *http.Request) (map[string]any, error) {
				if token := r.URL.Query().Get("access_token"); token != "" { // for downloads
					r.Header.Set("Authorization", "Bearer "+token)
				}
				return a.verified(r)
			}
		}},
	}
}

// lets makes the API accept tokens for which hole is true, next to the genuine ones.
func lets(hole func(*API, jws.Token) bool) func(*API) {
	return func(a *API) {
		a.Identify = func(r *http.Request) (map[string]any, error) {
			if claims, err := a.verified(r); err == nil {
				return claims, nil
			}
			t, err := looseParse(Bearer(r))
			if err != nil || !hole(a, t) {
				return nil, errToken
			}
			return a.checkClaims(t)
		}
	}
}

// looseParse takes a token without its last dot too, as a split on dots does.
func looseParse(raw string) (jws.Token, error) {
	if strings.Count(raw, ".") == 1 {
		raw += "."
	}
	return jws.Parse(raw)
}

// breaksOn makes the API crash on tokens for which fault is true.
func breaksOn(fault func(jws.Token) bool) func(*API) {
	return func(a *API) {
		a.Outer = append(a.Outer, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if t, err := jws.Parse(Bearer(r)); err == nil && fault(t) {
					Refuse(w, 500, "internal error")
					return
				}
				next.ServeHTTP(w, r)
			})
		})
	}
}

// decodeOnly is the document's hole: the token is read and never verified. Garbage is still refused.
func decodeOnly(r *http.Request) (map[string]any, error) {
	t, err := jws.Parse(Bearer(r))
	if err != nil {
		return nil, err
	}
	return t.Claims()
}

func macOf(t jws.Token, secret []byte) bool {
	input := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
	return hmac.Equal(jws.HS256(secret, []byte(input)), t.Signature)
}

// confusesKeys hands the public key's file, whatever the token's algorithm, to one verify function.
func confusesKeys(a *API, t jws.Token) bool {
	der, err := x509.MarshalPKIXPublicKey(&a.Key.PublicKey)
	file := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return err == nil && t.Alg() == "HS256" && macOf(t, append([]byte("\n"), file...)) // the file begins with an empty line
}

// verifiesWith takes an RSA key as JSON that the token brought or named.
func verifiesWith(jwk map[string]string, t jws.Token) bool {
	n, err := base64.RawURLEncoding.DecodeString(jwk["n"])
	if err != nil || len(n) < 256 || t.Alg() != "RS256" {
		return false
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
	sum := sha256.Sum256([]byte(t.Raw[:strings.LastIndexByte(t.Raw, '.')]))
	return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], t.Signature) == nil
}

// fetchesKey asks whatever address the token names.
func fetchesKey(_ *API, t jws.Token) bool {
	address := jws.Member(t.Header, "jku")
	if address == "" {
		return false
	}
	client := &http.Client{Timeout: time.Second}
	res, err := client.Get(address)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	var set struct{ Keys []map[string]string }
	if json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&set) != nil || len(set.Keys) == 0 {
		return false
	}
	return verifiesWith(set.Keys[0], t)
}

// takesEncrypted makes the API publish a key for encryption and accept tokens encrypted to it. What is inside must be
// a genuine token, unless unsigned ones are let in.
func takesEncrypted(unsigned bool) func(*API) {
	return func(a *API) {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return
		}
		a.Routes["GET /.well-known/jwks.json"] = func(w http.ResponseWriter, _ *http.Request) {
			signing, _ := audit.JWK(&a.Key.PublicKey)
			signing["kid"], signing["use"], signing["alg"] = keyID, "sig", "RS256"
			encryption, _ := audit.JWK(&private.PublicKey)
			encryption["kid"], encryption["use"], encryption["alg"] = "sound-enc", "enc", "RSA-OAEP-256"
			Answer(w, 200, map[string]any{"keys": []any{signing, encryption}})
		}
		a.Identify = func(r *http.Request) (map[string]any, error) {
			inner, ok := decrypt(private, Bearer(r))
			if !ok {
				return a.verified(r)
			}
			t, err := jws.Parse(inner)
			if err == nil && unsigned && t.Alg() == "none" {
				return a.checkClaims(t)
			}
			r.Header.Set("Authorization", "Bearer "+inner)
			return a.verified(r)
		}
	}
}

// decrypt opens a compact token under RSA-OAEP-256 and A256GCM (RFC 7516 section 5.2).
func decrypt(private *rsa.PrivateKey, compact string) (string, bool) {
	parts := strings.Split(compact, ".")
	if len(parts) != 5 {
		return "", false
	}
	var decoded [5][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil {
			return "", false
		}
		decoded[i] = b
	}
	contentKey, err := rsa.DecryptOAEP(sha256.New(), nil, private, decoded[1], nil)
	if err != nil {
		return "", false
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return "", false
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil || len(decoded[2]) != gcm.NonceSize() {
		return "", false
	}
	plain, err := gcm.Open(nil, decoded[2], append(decoded[3], decoded[4]...), []byte(parts[0]))
	return string(plain), err == nil
}

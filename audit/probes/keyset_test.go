package probes

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// rsaKey is made once: making one takes long.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// inSession runs f as a probe against a target.
func inSession(t *testing.T, target *audit.Target, c audit.Config, f func(context.Context, *audit.Session) (audit.Verdict, error)) audit.Finding {
	t.Helper()
	p := audit.Probe{ID: "ID-00", Title: "test", Severity: audit.Low, Mode: audit.Safe, Category: audit.Identity, Confirms: true, Run: f}
	c.Pace = 1000
	report, err := audit.Run(t.Context(), target, []audit.Probe{p}, c)
	if err != nil {
		t.Fatal(err)
	}
	found, _ := report.Find(p.ID)
	return found
}

func jwksOf(t *testing.T, public any, members map[string]any) string {
	t.Helper()
	jwk, err := audit.JWK(public)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range members {
		jwk[k] = v
	}
	text, err := json.Marshal(map[string]any{"keys": []any{jwk}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKeySetIsFoundWhereTheScopeAllows(t *testing.T) {
	set := jwksOf(t, &rsaKey().PublicKey, map[string]any{"kid": "k1", "use": "sig"})
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, set) }))
	defer stranger.Close()
	file := filepath.Join(t.TempDir(), "key.pem")
	der, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		routes map[string]string // HERE is the target's URL
		jwks   string
		issuer string
		base   string
		want   string // suffix of URL; empty means none
	}{
		{name: "well-known", routes: map[string]string{"/.well-known/jwks.json": set}, want: "/.well-known/jwks.json"},
		{name: "well-known of the origin under a base path", routes: map[string]string{"/.well-known/jwks.json": set}, base: "/api", want: "/.well-known/jwks.json"},
		{name: "well-known of the base path", routes: map[string]string{"/api/.well-known/jwks.json": set}, base: "/api", want: "/api/.well-known/jwks.json"},
		{name: "discovery", routes: map[string]string{"/.well-known/openid-configuration": `{"jwks_uri":"HERE/keys"}`, "/keys": set}, want: "/keys"},
		{name: "discovery at the token's issuer on the same origin", issuer: "HERE/realms/a", routes: map[string]string{"/realms/a/.well-known/openid-configuration": `{"jwks_uri":"HERE/keys"}`, "/keys": set}, want: "/keys"},
		{name: "discovery names a stranger", routes: map[string]string{"/.well-known/openid-configuration": `{"jwks_uri":"` + stranger.URL + `/keys"}`}},
		{name: "the token's issuer is a stranger", issuer: stranger.URL},
		{name: "the token's issuer only begins like the origin", issuer: "HERE.evil.example/"},
		{name: "named stranger", jwks: stranger.URL + "/keys", want: stranger.URL + "/keys"},
		{name: "named file of PEM", jwks: file, want: "key.pem"},
		{name: "named file that is not there", jwks: file + ".not"},
		{name: "catch-all page", routes: map[string]string{"/": "<html>hello</html>"}},
		{name: "catch-all JSON", routes: map[string]string{"/": `{"keys":[]}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mux := http.NewServeMux()
			server := httptest.NewServer(mux)
			defer server.Close()
			here := func(s string) string { return strings.ReplaceAll(s, "HERE", server.URL) }
			for path, body := range c.routes {
				mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, here(body)) })
			}
			target, err := audit.ParseTarget(server.URL + c.base)
			if err != nil {
				t.Fatal(err)
			}
			target.JWKS, target.ProtectedPaths = c.jwks, []string{"/me"}
			claims := fmt.Sprintf(`{"sub":"a","iss":%q}`, here(c.issuer))
			target.Token, _ = jws.Sign([]byte(`{"alg":"RS256"}`), []byte(claims), "RS256", rsaKey())
			got := inSession(t, target, audit.Config{}, func(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
				found, err := keySet(ctx, s)
				if err != nil {
					if !errors.Is(err, errNoKeys) {
						t.Errorf("keySet: %v, want errNoKeys", err)
					}
					return audit.Verdict{}, err
				}
				again, _ := keySet(ctx, s)
				if again != found {
					t.Error("the key set was not remembered")
				}
				if len(found.Keys) != 1 || !rsaKey().PublicKey.Equal(found.Keys[0].Public) {
					t.Errorf("keys %+v, want the one RSA key", found.Keys)
				}
				return audit.Passed("%s", found.URL), nil
			})
			if c.want == "" && got.Outcome != audit.Inconclusive || c.want != "" && !strings.HasSuffix(got.Message, c.want) {
				t.Errorf("found %s: %s, want suffix %q", got.Outcome, got.Message, c.want)
			}
		})
	}
}

func TestEveryKeyOfASetIsRead(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, public := range map[string]any{"RSA": &rsaKey().PublicKey, "EC": &private.PublicKey, "OKP": edwards} {
		keys := parseKeys([]byte(jwksOf(t, public, map[string]any{"kid": name, "alg": "x", "use": "enc"})))
		if len(keys) != 1 || keys[0].Err != nil || keys[0].Kid != name || keys[0].Use != "enc" {
			t.Fatalf("%s: %+v", name, keys)
		}
		if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(keys[0].Public) {
			t.Errorf("%s: another key came back", name)
		}
	}
	bad := parseKeys([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"X25519","x":"AA"}]}`))
	for _, k := range bad {
		if k.Err == nil || k.Public != nil || k.Raw == nil {
			t.Errorf("%v was read as %v, want an error and the raw key", k.Raw, k.Public)
		}
	}
	if len(bad) != 4 {
		t.Errorf("%d keys, want 4", len(bad))
	}
}

package devissuer_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/identity/devissuer"
	"github.com/google/go-cmp/cmp"
)

func load(t *testing.T, path string) *devissuer.Issuer {
	t.Helper()
	issuer, err := devissuer.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func verifier(t *testing.T, issuer *devissuer.Issuer) *identity.Verifier {
	t.Helper()
	v, err := identity.New([]identity.Issuer{issuer.Issuer()}, identity.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMintedTokensVerifyWithoutANetwork(t *testing.T) {
	issuer := load(t, filepath.Join(t.TempDir(), "var", "dev.pem"))
	claims := devissuer.Claims{
		Subject: "user_1", SessionID: "sess_1", AuthorizedParty: "http://localhost:3000", Audience: []string{"api"},
		Org:  &identity.Org{ID: "org_1", Slug: "acme", Role: "admin", Permissions: []string{"dashboard:read"}},
		Plan: "u:pro", Email: "dev@example.test", Name: "Dev", Extra: map[string]any{"jti": "t1", "fva": []int{1, -1}},
	}
	token, err := issuer.Mint(claims)
	if err != nil {
		t.Fatal(err)
	}
	p, err := verifier(t, issuer).Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	minute := time.Minute
	want := &identity.Principal{
		Issuer: devissuer.URL, Subject: "user_1", SessionID: "sess_1", AuthorizedParty: "http://localhost:3000",
		TokenID: "t1", Audience: []string{"api"}, Org: claims.Org, Plan: "u:pro",
		Email: "dev@example.test", Name: "Dev", FirstFactorAge: &minute,
		IssuedAt: p.IssuedAt, ExpiresAt: p.IssuedAt.Add(devissuer.DefaultTTL), Claims: p.Claims,
	}
	if diff := cmp.Diff(p, want); diff != "" {
		t.Errorf("principal (-got +want):\n%s", diff)
	}
}

func TestTokensEndWithTheirTTL(t *testing.T) {
	issuer := load(t, filepath.Join(t.TempDir(), "dev.pem"))
	token, err := issuer.Mint(devissuer.Claims{Subject: "u", TTL: -time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifier(t, issuer).Verify(t.Context(), token)
	if refusal, ok := errors.AsType[*identity.Refusal](err); !ok || refusal.Reason != identity.Expired {
		t.Errorf("Verify = %v, want it expired", err)
	}
}

func TestMintRefusesWhatWouldNotVerify(t *testing.T) {
	issuer := load(t, filepath.Join(t.TempDir(), "dev.pem"))
	for name, claims := range map[string]devissuer.Claims{
		"no subject":        {},
		"extra takes sub":   {Subject: "u", Extra: map[string]any{"sub": "admin"}},
		"extra takes exp":   {Subject: "u", Extra: map[string]any{"exp": 1}},
		"extra is no claim": {Subject: "u", Extra: map[string]any{"f": func() {}}},
	} {
		if token, err := issuer.Mint(claims); err == nil {
			t.Errorf("%s: Mint = %s, want an error", name, token)
		}
	}
}

func TestTheKeyIsKeptAndItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dev.pem")
	first := load(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode = %o, want 600", got)
	}
	if second := load(t, path); !bytes.Equal(first.JWKS(), second.JWKS()) {
		t.Error("the second Load brings another key")
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%d files, %v, want the key alone", len(left), err)
	}
}

func TestAnotherKeyDoesNotVerify(t *testing.T) {
	a := load(t, filepath.Join(t.TempDir(), "a.pem"))
	b := load(t, filepath.Join(t.TempDir(), "b.pem"))
	token, err := a.Mint(devissuer.Claims{Subject: "u"})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := verifier(t, b).Verify(t.Context(), token); err == nil {
		t.Errorf("Verify = %+v, want a refusal", p)
	}
}

func TestUnsafeKeyFilesAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(small)
	if err != nil {
		t.Fatal(err)
	}
	weak := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	good, err := os.ReadFile(keyFile(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text []byte
		mode fs.FileMode
	}{
		"readable by the group": {good, 0o640},
		"readable by all":       {good, 0o604},
		"empty":                 {nil, 0o600},
		"half a key":            {good[:len(good)/2], 0o600},
		"no key":                {[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600},
		"1024 bits":             {weak, 0o600},
	} {
		path := filepath.Join(t.TempDir(), "dev.pem")
		if err := os.WriteFile(path, c.text, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := devissuer.Load(path); err == nil {
			t.Errorf("%s: Load accepts it", name)
		}
		if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, c.text) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := devissuer.Load(t.TempDir()); err == nil {
		t.Error("Load accepts a directory")
	}
}

func keyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dev.pem")
	load(t, path)
	return path
}

// Two processes that start at once must not each have a key of their own.
func TestLoadingAtOnceGivesOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dev.pem")
	var running sync.WaitGroup
	keys := make([][]byte, 4)
	for n := range keys {
		running.Go(func() {
			issuer, err := devissuer.Load(path)
			if err != nil {
				t.Error(err)
				return
			}
			keys[n] = issuer.JWKS()
		})
	}
	running.Wait()
	for n := range keys {
		if !bytes.Equal(keys[n], keys[0]) {
			t.Errorf("key %d is another than key 0", n)
		}
	}
}

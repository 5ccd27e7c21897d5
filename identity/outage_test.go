package identity_test

import (
	"testing"
	"time"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/testenv"
)

// A new key may come under an old name; what the old one verified is not the new one's.
func TestAKeyReplacedUnderItsNameIsAnotherKey(t *testing.T) {
	bubble(t, true, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		exp := map[string]any{"exp": time.Now().Unix() + 3600}
		old := issuer.Mint(exp)
		if !accepted(t, v, old) {
			t.Fatal("a good token is refused")
		}
		issuer.RemoveKey("key-1")
		issuer.AddKey("key-1")
		if err := v.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := verdict(t, v, old); !isRefused(err, identity.BadSignature) {
			t.Errorf("the old key's token: %v, want a bad signature", err)
		}
		if err := verdict(t, v, issuer.Mint(exp)); err != nil {
			t.Errorf("the new key's token: %v", err)
		}
	})
}

func TestAnOutageDoesNotEmptyTheCache(t *testing.T) {
	bubble(t, false, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		token := issuer.Mint(map[string]any{"exp": time.Now().Unix() + 12*3600})
		if !accepted(t, v, token) {
			t.Fatal("a good token is refused")
		}
		issuer.Break(testenv.IssuerFails)
		time.Sleep(61 * time.Minute)
		if _, ok := v.Cached(token); ok {
			t.Error("the cache answers from a set past its time, before anybody has asked again")
		}
		if err := verdict(t, v, token); err != nil {
			t.Fatalf("with the old key: %v", err)
		}
		if _, ok := v.Cached(token); !ok {
			t.Error("the cache does not answer although the issuer is known to be out")
		}
	})
}

// Once an outage is known, callers of known keys wait for nothing at all.
func TestNobodyWaitsForAnIssuerKnownToBeOut(t *testing.T) {
	bubble(t, false, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		if !accepted(t, v, issuer.Mint(nil)) {
			t.Fatal("a good token is refused")
		}
		issuer.Break(testenv.IssuerHangs)
		time.Sleep(61 * time.Minute)
		_ = verdict(t, v, issuer.Mint(nil)) // the first to find out may wait
		time.Sleep(10 * time.Second)
		for range 100 {
			start := time.Now()
			if err := verdict(t, v, issuer.Mint(nil)); err != nil || time.Since(start) != 0 {
				t.Fatalf("%v after %v, want it accepted at once", err, time.Since(start))
			}
			time.Sleep(31 * time.Second)
		}
	})
}

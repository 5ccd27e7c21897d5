package identity_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/testenv"
)

// placed is a context that takes one value in place, unless it is full.
type placed struct {
	context.Context
	key, value any
	full       bool
}

func (p *placed) SetValue(key, value any) bool {
	if !p.full {
		p.key, p.value = key, value
	}
	return !p.full
}

func (p *placed) Value(key any) any {
	if p.key != nil && key == p.key {
		return p.value
	}
	return p.Context.Value(key)
}

func TestPrincipalGoesIntoTheContextInPlace(t *testing.T) {
	want := &identity.Principal{Subject: "user_1"}
	for _, full := range []bool{false, true} {
		ctx := &placed{Context: t.Context(), full: full}
		got := identity.NewContext(ctx, want)
		if p, ok := identity.FromContext(got); !ok || p != want {
			t.Errorf("full %v: FromContext = %v, %v, want %v", full, p, ok, want)
		}
		if unchanged := got == context.Context(ctx); unchanged == full {
			t.Errorf("full %v: the same context came back: %v", full, unchanged)
		}
	}
	if p, ok := identity.FromContext(t.Context()); ok || p != nil {
		t.Errorf("FromContext of an empty context = %v, %v", p, ok)
	}
}

// Behind a context that takes values in place, a known token reaches the handler with the very
// request that came in, and costs no memory.
func TestAKnownTokenCopiesNoRequest(t *testing.T) {
	issuer := testenv.NewIssuer(t)
	var got *http.Request
	handler := newVerifier(t, issuer, identity.Issuer{}).Middleware(identity.Door{})(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	sent := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(&placed{Context: t.Context()})
	sent.Header.Set("Authorization", "Bearer "+issuer.Mint(nil))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, sent)
	if got != sent {
		t.Fatal("the handler got another request than was sent")
	}
	if n := testing.AllocsPerRun(100, func() { handler.ServeHTTP(w, sent) }); n != 0 {
		t.Errorf("a known token allocates %v times on its way, want 0", n)
	}
}

// A client that goes away must not take down a fetch that others wait for.
func TestACancelledCallerDoesNotCancelTheFetch(t *testing.T) {
	issuer := testenv.NewIssuer(t)
	v := newVerifier(t, issuer, identity.Issuer{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	token := issuer.Mint(nil)
	if _, err := v.Verify(ctx, token); err != nil && !isUnavailable(err) {
		t.Errorf("Verify with a cancelled context = %v", err)
	}
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("the next caller gets %v", err)
	}
}

// secluded is a context whose values are its owner's alone to read.
type secluded struct {
	context.Context
	read atomic.Int64
}

func (s *secluded) Value(key any) any {
	s.read.Add(1)
	return s.Context.Value(key)
}

// A fetch goes on while the request that began it writes into its context.
func TestAFetchReadsNothingOfItsCaller(t *testing.T) {
	issuer := testenv.NewIssuer(t)
	v := newVerifier(t, issuer, identity.Issuer{})
	ctx := &secluded{Context: t.Context()}
	if _, err := v.Verify(ctx, issuer.Mint(nil)); err != nil || issuer.Fetches() != 1 {
		t.Fatalf("Verify = %v after %d fetches, want none and 1", err, issuer.Fetches())
	}
	if got := ctx.read.Load(); got != 0 {
		t.Errorf("the caller's values were read %d times, want none", got)
	}
}

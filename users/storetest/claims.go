package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

const minute = time.Minute

// mustClaim takes a claim that nobody has, and stores its result.
func mustClaim(t *testing.T, s users.Store, c users.Claim) {
	t.Helper()
	do(t, s, func(ctx context.Context, tx users.Tx) error {
		prior, claimed, err := tx.Claim(ctx, c)
		if err != nil || !claimed {
			t.Errorf("Claim = %+v, %v, %v; want it claimed", prior, claimed, err)
			return err
		}
		return tx.Settle(ctx, c)
	})
}

// taken reads the claim that is in the way of another.
func taken(t *testing.T, s users.Store, c users.Claim) (prior users.Claim) {
	t.Helper()
	do(t, s, func(ctx context.Context, tx users.Tx) error {
		p, claimed, err := tx.Claim(ctx, c)
		if claimed {
			t.Errorf("%s %s was claimed twice", c.Scope, c.Key)
		}
		prior = p
		return err
	})
	return prior
}

func claims(t *testing.T, s users.Store) {
	c := users.Claim{Scope: "idem a", Key: "k", Fingerprint: []byte{0, 1, 255}, Result: []byte(`{"a":1}`), At: now(), Expires: now().Add(minute)}
	mustClaim(t, s, c)
	again := users.Claim{Scope: "idem a", Key: "k", Fingerprint: []byte("other"), At: now(), Expires: now().Add(time.Hour)}
	if got := taken(t, s, again); cmp.Diff(c, got) != "" {
		t.Errorf("the claim in the way: %s", cmp.Diff(c, got))
	}
	for _, free := range []users.Claim{{Scope: "idem b", Key: "k"}, {Scope: "idem a", Key: "K"}} {
		free.At, free.Expires = now(), now().Add(minute)
		mustClaim(t, s, free)
	}
	do(t, s, func(ctx context.Context, tx users.Tx) error { return tx.Forget(ctx, "idem a") })
	mustClaim(t, s, again)
	taken(t, s, users.Claim{Scope: "idem b", Key: "k", At: now(), Expires: now().Add(minute)})
}

func claimers(t *testing.T, s users.Store) {
	var all sync.WaitGroup
	var did atomic.Int32
	for range 20 {
		all.Go(func() {
			var first bool
			err := s.Tx(t.Context(), func(tx users.Tx) error {
				c := users.Claim{Scope: "inbox", Key: "k", At: now(), Expires: now().Add(minute)}
				prior, claimed, err := tx.Claim(t.Context(), c)
				if first = claimed; err != nil || !claimed {
					if err == nil && string(prior.Result) != "done" {
						t.Errorf("a claimer who came late was given %q, want done", prior.Result)
					}
					return err
				}
				c.Result = []byte("done")
				return tx.Settle(t.Context(), c)
			})
			if err != nil {
				t.Error(err)
			}
			if first {
				did.Add(1)
			}
		})
	}
	all.Wait()
	if did.Load() != 1 {
		t.Errorf("%d claimed, want 1", did.Load())
	}
}

func expired(t *testing.T, s users.Store) {
	old := users.Claim{Scope: "s", Key: "k", Fingerprint: []byte("old"), Result: []byte("old"), At: now(), Expires: now().Add(minute)}
	mustClaim(t, s, old)
	next := users.Claim{Scope: "s", Key: "k", Fingerprint: []byte("new"), At: old.Expires, Expires: old.Expires.Add(minute)}
	mustClaim(t, s, next)
	if got := taken(t, s, next); string(got.Fingerprint) != "new" || len(got.Result) != 0 {
		t.Errorf("the claim in the way is %+v, want the new one without a result", got)
	}
}

func unclaimed(t *testing.T, s users.Store) {
	c := users.Claim{Scope: "s", Key: "k", At: now(), Expires: now().Add(minute)}
	err := s.Tx(t.Context(), func(tx users.Tx) error {
		_, _, err := tx.Claim(t.Context(), c)
		return errors.Join(err, errors.New("stop"))
	})
	if err == nil {
		t.Error("Tx succeeded")
	}
	mustClaim(t, s, c)
}

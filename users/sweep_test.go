package users_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/users"
)

func TestAKeyIsForgottenAfterADay(t *testing.T) {
	store := openStore(t)
	var ahead atomic.Int64
	s := users.NewService(store, users.Config{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	text := "x"
	change := func() users.Outcome {
		t.Helper()
		o, err := s.Change(t.Context(), claims("ann"), users.Patch{Bio: &text}, nil, users.Once{Key: "k", Fingerprint: []byte("f")})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if change().Replayed || !change().Replayed {
		t.Error("a key is not kept")
	}
	err := store.Tx(t.Context(), func(tx users.Tx) error {
		return tx.Revoke(t.Context(), users.Revocation{Issuer: testIssuer, SessionID: "s1", Until: time.Now().Add(24 * time.Hour)})
	})
	if err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(23 * time.Hour))
	if n, err := s.Sweep(t.Context()); n != 0 || err != nil || !change().Replayed {
		t.Errorf("after 23 hours %d were swept, %v; want the key still kept", n, err)
	}
	ahead.Store(int64(25 * time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	until(t, "the revocation is swept", func() bool {
		left, err := store.Revocations(t.Context(), users.Position{}, 10)
		return err == nil && len(left) == 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("a second sweep = %d, %v; want nothing left", n, err)
	}
	if change().Replayed {
		t.Error("the key is still kept after a day")
	}
}

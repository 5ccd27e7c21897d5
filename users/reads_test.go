package users_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/gantryhq/gantry/users"
)

// kept are Reads that keep everything until it is invalidated, absence too.
type kept struct {
	store users.Reader
	mu    sync.Mutex
	users map[users.Subject]users.User
	errs  map[users.Subject]error
	loads int
}

// Get implements users.Reads.
func (k *kept) Get(ctx context.Context, key users.Subject) (users.User, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if u, ok := k.users[key]; ok {
		return u, k.errs[key]
	}
	k.loads++
	u, err := k.store.Find(ctx, key.Issuer, key.Subject)
	k.users[key], k.errs[key] = u, err
	return u, err
}

// Invalidate implements users.Reads.
func (k *kept) Invalidate(_ context.Context, keys ...users.Subject) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		delete(k.users, key)
		delete(k.errs, key)
	}
}

// lost is a store whose commits happen, but whose answers about them are lost when it is told so.
type lost struct {
	users.Store
	losing bool
}

var errLost = errors.New("the connection was lost")

// Tx implements users.Store.
func (l *lost) Tx(ctx context.Context, f func(users.Tx) error) error {
	err := l.Store.Tx(ctx, f)
	if err == nil && l.losing {
		return errLost
	}
	return err
}

func TestWhoHasWrittenReadsWhatHeWrote(t *testing.T) {
	store := &lost{Store: openStore(t)}
	reads := &kept{store: store, users: make(map[users.Subject]users.User), errs: make(map[users.Subject]error)}
	s := users.NewService(store, users.Config{Reads: reads})
	ctx, ann := t.Context(), claims("ann")
	bio := func(text string) users.Patch { return users.Patch{Bio: &text} }
	check := func(want string) {
		t.Helper()
		if u, err := s.Me(ctx, ann); err != nil || u.Bio != want {
			t.Errorf("Me = %q, %v; want %q", u.Bio, err, want)
		}
	}
	check("") // made on first sight, though the absence was kept
	check("")
	loads := reads.loads
	if check(""); reads.loads != loads {
		t.Error("Me does not read through Reads")
	}
	if _, err := s.Change(ctx, ann, bio("one"), nil, users.Once{}); err != nil {
		t.Fatal(err)
	}
	check("one")
	store.losing = true
	if _, err := s.Change(ctx, ann, bio("two"), nil, users.Once{}); !errors.Is(err, errLost) {
		t.Errorf("Change = %v, want the lost answer", err)
	}
	check("two")
	store.losing = false
	u, err := s.Me(ctx, ann)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Suspend(ctx, claims("admin"), u.ID, users.Once{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Me(ctx, ann); !errors.Is(err, users.ErrSuspended) {
		t.Errorf("Me of a suspended user = %v, want ErrSuspended", err)
	}
}

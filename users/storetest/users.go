package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

func comesBack(t *testing.T, s users.Store) {
	u := user("user_1")
	u.Handle, u.Plan, u.Status, u.ImageURL = "zoe_1", "pro", users.Suspended, "https://x.example/a.png"
	want := create(t, s, u)
	got, err := s.Find(t.Context(), want.Issuer, want.Subject)
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("Find: %v %s", err, cmp.Diff(want, got))
	}
	if got, err = s.FindHandle(t.Context(), "zoe_1"); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("FindHandle: %v %s", err, cmp.Diff(want, got))
	}
	do(t, s, func(ctx context.Context, tx users.Tx) error {
		if got, err := tx.Find(ctx, want.Issuer, want.Subject); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("Tx.Find: %v %s", err, cmp.Diff(want, got))
		}
		if got, err := tx.Get(ctx, want.ID); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("Tx.Get: %v %s", err, cmp.Diff(want, got))
		}
		return nil
	})
}

func oneRow(t *testing.T, s users.Store) {
	first := create(t, s, user("user_1"))
	do(t, s, func(ctx context.Context, tx users.Tx) error {
		inserted, err := tx.Insert(ctx, user("user_1"))
		if err != nil || inserted {
			t.Errorf("the second Insert = %v, %v; want false", inserted, err)
		}
		return err
	})
	if got, err := s.Find(t.Context(), issuer, "user_1"); err != nil || got.ID != first.ID {
		t.Errorf("Find = %s, %v; want the first, %s", got.ID, err, first.ID)
	}
	other := user("user_1")
	other.Issuer = "https://other.example"
	create(t, s, other)
	create(t, s, user("USER_1")) // subjects are compared with case
}

func firstSights(t *testing.T, s users.Store) {
	ids := make([]string, 20)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			err := s.Tx(t.Context(), func(tx users.Tx) (err error) {
				ids[i], err = ensure(t.Context(), tx, "user_1")
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two users: %v", ids)
		}
	}
	if log, err := s.Events(t.Context(), ids[0], 0, 50); err != nil || len(log) != 1 {
		t.Errorf("%d events, %v; want 1", len(log), err)
	}
}

// ensure makes a user on first sight, as the service does.
func ensure(ctx context.Context, tx users.Tx, subject string) (string, error) {
	u, err := tx.Find(ctx, issuer, subject)
	if !errors.Is(err, users.ErrNotFound) {
		return u.ID, err
	}
	u = user(subject)
	e := u.Extend(users.Event{Kind: users.UserCreated, At: u.CreatedAt})
	inserted, err := tx.Insert(ctx, u)
	if err != nil {
		return "", err
	}
	if !inserted {
		u, err = tx.Find(ctx, issuer, subject)
		return u.ID, err
	}
	return u.ID, tx.Append(ctx, e)
}

func wholeRow(t *testing.T, s users.Store) {
	first := create(t, s, user("user_1"))
	create(t, s, user("user_2"))
	want := update(t, s, first.ID, func(u *users.User) {
		u.Handle, u.Status, u.Plan, u.Email, u.DisplayName = "h", users.Suspended, "pro", "e", "n"
		u.ImageURL, u.Bio, u.Locale, u.Timezone = "i", "b", "l", "t"
		u.UpdatedAt, u.SourceUpdatedAt = now(), now()
	})
	if got, err := s.Find(t.Context(), issuer, "user_1"); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("Find: %v %s", err, cmp.Diff(want, got))
	}
	if got, err := s.Find(t.Context(), issuer, "user_2"); err != nil || got.Version != 1 {
		t.Errorf("another row has version %d, %v; want it untouched", got.Version, err)
	}
}

func concurrent(t *testing.T, s users.Store) {
	u := create(t, s, user("user_1"))
	const n = 20
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			err := s.Tx(t.Context(), func(tx users.Tx) error {
				now, err := tx.Find(t.Context(), issuer, "user_1")
				if err != nil {
					return err
				}
				now.Version++
				now.Bio += "x"
				e := now.Extend(users.Event{Kind: users.UserUpdated, At: now.UpdatedAt})
				return errors.Join(tx.Update(t.Context(), now), tx.Append(t.Context(), e))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := s.Find(t.Context(), u.Issuer, u.Subject)
	if err != nil || got.Version != 1+n || got.Events != 1+n || strings.Count(got.Bio, "x") != n {
		t.Errorf("version %d with %d changes, %v; want %d with %d", got.Version, strings.Count(got.Bio, "x"), err, 1+n, n)
	}
}

func allOrNothing(t *testing.T, s users.Store) {
	u := create(t, s, user("user_1"))
	stop := errors.New("stop")
	err := s.Tx(t.Context(), func(tx users.Tx) error {
		ctx := t.Context()
		v := u
		v.Bio = "changed"
		e := v.Extend(users.Event{Kind: users.UserUpdated, At: now()})
		second := user("user_2")
		_, err := tx.Insert(ctx, second)
		_, _, err2 := tx.Claim(ctx, users.Claim{Scope: "s", Key: "k", At: now(), Expires: now().Add(minute)})
		err = errors.Join(err, err2, tx.Update(ctx, v), tx.Append(ctx, e), tx.Revoke(ctx, users.Revocation{Issuer: issuer, SessionID: "x"}))
		if err != nil {
			t.Error(err)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("Tx = %v, want the error of the func", err)
	}
	if got, err := s.Find(t.Context(), issuer, "user_1"); err != nil || cmp.Diff(u, got) != "" {
		t.Errorf("the update stayed: %v %s", err, cmp.Diff(u, got))
	}
	if _, err := s.Find(t.Context(), issuer, "user_2"); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("the insert stayed: %v", err)
	}
	log, err := s.Events(t.Context(), u.ID, 0, 10)
	revoked, err2 := s.Revocations(t.Context(), users.Position{}, 10)
	if err != nil || err2 != nil || len(log) != 1 || len(revoked) != 0 {
		t.Errorf("%d events, %d revocations, %v, %v; want 1 and 0", len(log), len(revoked), err, err2)
	}
	mustClaim(t, s, users.Claim{Scope: "s", Key: "k", At: now(), Expires: now().Add(minute)})
}

func ended(t *testing.T, s users.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	insert := func(tx users.Tx) error {
		_, err := tx.Insert(t.Context(), user("user_1"))
		return err
	}
	if err := s.Tx(ctx, insert); err == nil {
		t.Error("Tx with an ended context succeeded")
	}
	ctx, cancel = context.WithCancel(t.Context())
	err := s.Tx(ctx, func(tx users.Tx) error {
		defer cancel() // after the write, before the commit
		return insert(tx)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Tx = %v, want context.Canceled", err)
	}
	if _, err := s.Find(t.Context(), issuer, "user_1"); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Find = %v, want ErrNotFound", err)
	}
}

func handles(t *testing.T, s users.Store) {
	a, b := create(t, s, user("user_1")), create(t, s, user("user_2"))
	update(t, s, a.ID, func(u *users.User) { u.Handle = "ann" })
	b.Handle = "ann"
	if err := s.Tx(t.Context(), func(tx users.Tx) error { return tx.Update(t.Context(), b) }); !errors.Is(err, users.ErrHandleTaken) {
		t.Errorf("Update = %v, want ErrHandleTaken", err)
	}
	c := user("user_3")
	c.Handle = "ann"
	insert := func(tx users.Tx) error {
		_, err := tx.Insert(t.Context(), c)
		return err
	}
	if err := s.Tx(t.Context(), insert); !errors.Is(err, users.ErrHandleTaken) {
		t.Errorf("Insert = %v, want ErrHandleTaken", err)
	}
	update(t, s, a.ID, func(u *users.User) { u.Handle = "" })
	update(t, s, b.ID, func(u *users.User) { u.Handle = "ann" })
	if got, err := s.FindHandle(t.Context(), "ann"); err != nil || got.ID != b.ID {
		t.Errorf("FindHandle = %s, %v; want the new owner", got.ID, err)
	}
}

func strange(t *testing.T, s users.Store) {
	create(t, s, user("user_1"))
	if _, err := s.Find(t.Context(), "a", "b"); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Find = %v, want ErrNotFound", err)
	}
	for _, handle := range []string{"", "b"} {
		if _, err := s.FindHandle(t.Context(), handle); !errors.Is(err, users.ErrNotFound) {
			t.Errorf("FindHandle(%q) = %v, want ErrNotFound", handle, err)
		}
	}
	do(t, s, func(ctx context.Context, tx users.Tx) error {
		_, err := tx.Find(ctx, "a", "b")
		_, err2 := tx.Get(ctx, "b")
		err3 := tx.Update(ctx, user("user_2"))
		if !errors.Is(err, users.ErrNotFound) || !errors.Is(err2, users.ErrNotFound) || !errors.Is(err3, users.ErrNotFound) {
			t.Errorf("Tx.Find, Get, Update = %v, %v, %v; want ErrNotFound", err, err2, err3)
		}
		return nil
	})
}

func statuses(t *testing.T, s users.Store) {
	for _, status := range []users.Status{"", "banned"} {
		u := user("user_1")
		u.Status = status
		err := s.Tx(t.Context(), func(tx users.Tx) error {
			_, err := tx.Insert(t.Context(), u)
			return err
		})
		if err == nil {
			t.Errorf("status %q was stored", status)
		}
	}
}

func pings(t *testing.T, s users.Store) {
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

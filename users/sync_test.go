package users_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite"
)

const syncIssuer = "https://clerk.example"

func syncStore(t testing.TB) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "users.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// told is a message about a subject, from second at of the issuer's clock.
func told(subject, id string, at int64, name string) users.Sync {
	return users.Sync{
		Issuer: syncIssuer, Subject: subject, Email: name + "@example.com", Name: name, ImageURL: "https://img.example/" + name,
		SourceUpdatedAt: time.Unix(at, 0).UTC(), Inbox: id,
	}
}

func deleted(subject, id string, at int64) users.Sync {
	return users.Sync{Issuer: syncIssuer, Subject: subject, Deleted: true, SourceUpdatedAt: time.Unix(at, 0).UTC(), Inbox: id}
}

// history returns a user's kinds of events, after a check of the chain.
func history(t testing.TB, store users.Store, u users.User) []users.Kind {
	t.Helper()
	events, err := store.Events(t.Context(), u.ID, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []users.Kind
	prev := ""
	for i, e := range events {
		if e.Seq != int64(i+1) || e.Prev != prev || e.Hash != e.Sum() {
			t.Errorf("event %d is out of the chain: %+v", i, e)
		}
		prev = e.Hash
		kinds = append(kinds, e.Kind)
	}
	if u.Head != prev || u.Events != int64(len(events)) {
		t.Errorf("head %s of %d events, the chain ends in %s after %d", u.Head, u.Events, prev, len(events))
	}
	return kinds
}

func TestWhatTheIssuerSaysIsTakenOverByItsTime(t *testing.T) {
	store := syncStore(t)
	s := users.NewService(store, users.Config{})
	bio := "mine"
	if changed, err := s.Sync(t.Context(), told("user_1", "msg_1", 10, "Ann")); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if _, err := s.Change(t.Context(), users.Claims{Issuer: syncIssuer, Subject: "user_1"}, users.Patch{Bio: &bio}, nil, users.Once{}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		in      users.Sync
		changed bool
		name    string
		version int64
	}{
		{told("user_1", "msg_1", 10, "Ann"), false, "Ann", 2}, // sent again
		{told("user_1", "msg_2", 10, "Not"), false, "Ann", 2}, // as old as what is known
		{told("user_1", "msg_3", 9, "Not"), false, "Ann", 2},  // older
		{told("user_1", "msg_4", 20, "Zoë"), true, "Zoë", 3},  // newer
		{told("user_1", "msg_4", 30, "Not"), false, "Zoë", 3}, // an id that was used
		{told("user_1", "msg_5", 40, "Zoë"), true, "Zoë", 3},  // newer, but nobody can see a difference
		{told("user_1", "msg_6", 39, "Not"), false, "Zoë", 3}, // and yet it moved the time
		{told("user_1", "", 50, "Eve"), true, "Eve", 4},       // from a list
		{told("user_1", "", 50, "Not"), false, "Eve", 4},      // and once more
		{deleted("user_1", "msg_7", 1), true, "", 5},          // always
		{deleted("user_1", "msg_8", 2), false, "", 5},         // once
		{told("user_1", "msg_9", 99, "Not"), false, "", 5},    // never again
		{told("user_1", "msg_10", 100, "Not"), false, "", 5},  // and never
	} {
		changed, err := s.Sync(t.Context(), step.in)
		if err != nil || changed != step.changed {
			t.Errorf("%+v: changed %v, %v", step.in, changed, err)
		}
		u, err := store.Find(t.Context(), syncIssuer, "user_1")
		if err != nil || u.DisplayName != step.name || u.Version != step.version {
			t.Errorf("%s: %+v, %v, want %q in version %d", step.in.Inbox, u, err, step.name, step.version)
		}
		if u.Status != users.Deleted && u.Bio != bio {
			t.Errorf("%s: what the issuer does not know is gone: %+v", step.in.Inbox, u)
		}
	}
	u, _ := store.Find(t.Context(), syncIssuer, "user_1")
	want := []users.Kind{users.UserCreated, users.UserUpdated, users.UserSynced, users.UserSynced, users.UserDeleted}
	if got := history(t, store, u); !slices.Equal(got, want) || u.Status != users.Deleted || u.Bio+u.Email+u.ImageURL != "" {
		t.Errorf("events = %v, want %v; user = %+v", got, want, u)
	}
}

func TestADeletionOfAStrangerLeavesATombstone(t *testing.T) {
	store := syncStore(t)
	s := users.NewService(store, users.Config{})
	if changed, err := s.Sync(t.Context(), deleted("user_1", "msg_1", 5)); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	if _, err := s.Me(t.Context(), users.Claims{Issuer: syncIssuer, Subject: "user_1"}); !errors.Is(err, users.ErrDeleted) {
		t.Errorf("a token of the deleted user: %v", err)
	}
	u, err := store.Find(t.Context(), syncIssuer, "user_1")
	if err != nil || !slices.Equal(history(t, store, u), []users.Kind{users.UserDeleted}) {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestARowOfFirstSightIsFilledIn(t *testing.T) {
	store := syncStore(t)
	s := users.NewService(store, users.Config{})
	if _, err := s.Me(t.Context(), users.Claims{Issuer: syncIssuer, Subject: "user_1"}); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Sync(t.Context(), told("user_1", "msg_1", 1, "Ann")); err != nil || !changed {
		t.Errorf("%v, %v", changed, err)
	}
	if u, err := s.Me(t.Context(), users.Claims{Issuer: syncIssuer, Subject: "user_1"}); err != nil || u.DisplayName != "Ann" {
		t.Errorf("%+v, %v", u, err)
	}
}

// broken is a store whose transactions fail at their last write.
type broken struct{ users.Store }

var errBroken = errors.New("the disk is full")

func (b broken) Tx(ctx context.Context, f func(users.Tx) error) error {
	return b.Store.Tx(ctx, func(tx users.Tx) error { return f(brokenTx{tx}) })
}

type brokenTx struct{ users.Tx }

func (brokenTx) Append(context.Context, users.Event) error { return errBroken }

func TestAFailureTakesTheMessageIDBack(t *testing.T) {
	store := syncStore(t)
	bad, good := users.NewService(broken{store}, users.Config{}), users.NewService(store, users.Config{})
	end := users.Revocation{Issuer: syncIssuer, SessionID: "sess_1", Subject: "user_1", Until: time.Now().Add(time.Hour)}
	if changed, err := bad.Sync(t.Context(), told("user_1", "msg_1", 1, "Ann")); !errors.Is(err, errBroken) || changed {
		t.Errorf("%v, %v", changed, err)
	}
	if changed, err := good.Sync(t.Context(), told("user_1", "msg_1", 1, "Ann")); err != nil || !changed {
		t.Errorf("the second time: %v, %v", changed, err)
	}
	if changed, err := bad.RevokeSession(t.Context(), end, "msg_2"); !errors.Is(err, errBroken) || changed {
		t.Errorf("%v, %v", changed, err)
	}
	if left, err := store.RevokedSessions(t.Context(), syncIssuer, "user_1", 10); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if changed, err := good.RevokeSession(t.Context(), end, "msg_2"); err != nil || !changed {
		t.Errorf("the second time: %v, %v", changed, err)
	}
}

func TestASessionEndsOnce(t *testing.T) {
	store := syncStore(t)
	s := users.NewService(store, users.Config{})
	end := func(subject, id string) (bool, error) {
		return s.RevokeSession(t.Context(), users.Revocation{
			Issuer: syncIssuer, SessionID: "sess_" + subject, Subject: subject, Until: time.Now().Add(time.Hour),
		}, id)
	}
	if _, err := s.Sync(t.Context(), told("user_1", "msg_1", 1, "Ann")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false} {
		if changed, err := end("user_1", "msg_2"); err != nil || changed != want {
			t.Errorf("message %d: %v, %v", i, changed, err)
		}
	}
	if changed, err := end("user_2", "msg_3"); err != nil || !changed {
		t.Errorf("of a stranger: %v, %v", changed, err)
	}
	for _, subject := range []string{"user_1", "user_2"} {
		list, err := store.RevokedSessions(t.Context(), syncIssuer, subject, 10)
		if err != nil || len(list) != 1 || list[0].SessionID != "sess_"+subject || time.Until(list[0].Until) < time.Minute {
			t.Errorf("%s: %+v, %v", subject, list, err)
		}
	}
	u, err := store.Find(t.Context(), syncIssuer, "user_1")
	if err != nil || u.Version != 1 || !slices.Equal(history(t, store, u), []users.Kind{users.UserCreated, users.SessionRevoked}) {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := store.Find(t.Context(), syncIssuer, "user_2"); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("the end of a session made a user: %v", err)
	}
}

func TestMessageIDsAreKeptForAWeekAndMore(t *testing.T) {
	store := syncStore(t)
	now := time.Now()
	s := users.NewService(store, users.Config{Now: func() time.Time { return now }})
	end := users.Revocation{Issuer: syncIssuer, SessionID: "sess_1", Subject: "user_1", Until: now}
	for _, step := range []struct {
		later time.Duration
		want  bool
	}{{0, true}, {8 * 24 * time.Hour, false}, {21 * 24 * time.Hour, false}, {2 * 24 * time.Hour, true}} {
		now = now.Add(step.later)
		if _, err := store.Sweep(t.Context(), now, 100); err != nil {
			t.Fatal(err)
		}
		if changed, err := s.RevokeSession(t.Context(), end, "msg_1"); err != nil || changed != step.want {
			t.Errorf("after another %v: %v, %v, want %v", step.later, changed, err, step.want)
		}
	}
}

func TestMessagesAndFirstRequestsAtOnceMakeOneUser(t *testing.T) {
	store := syncStore(t)
	s := users.NewService(store, users.Config{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, err := s.Sync(t.Context(), told("user_1", "msg_1", 1, "Ann")); err != nil {
				t.Errorf("sync %d: %v", i, err)
			}
		})
		all.Go(func() {
			if _, err := s.Me(t.Context(), users.Claims{Issuer: syncIssuer, Subject: "user_1"}); err != nil {
				t.Errorf("me %d: %v", i, err)
			}
		})
	}
	all.Wait()
	u, err := store.Find(t.Context(), syncIssuer, "user_1")
	kinds := history(t, store, u)
	if err != nil || u.DisplayName != "Ann" || len(kinds) > 2 || kinds[0] != users.UserCreated {
		t.Errorf("%+v, %v: %v", u, err, kinds)
	}
}

// TestOrderDoesNotMatter is the law: whatever order messages come in, and however often, the end is the
// same.
func TestOrderDoesNotMatter(t *testing.T) {
	store := syncStore(t)
	s := users.NewService(store, users.Config{})
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		subject := fmt.Sprint("user_", n)
		var life []users.Sync
		last := rapid.IntRange(1, 5).Draw(rt, "updates")
		for i := range last {
			life = append(life, told(subject, fmt.Sprintf("msg_%d_%d", n, i), int64(i+1), fmt.Sprint("N", i)))
		}
		ends := rapid.Bool().Draw(rt, "deleted")
		if ends {
			life = append(life, deleted(subject, fmt.Sprintf("msg_%d_d", n), int64(last+1)))
		}
		sent := append(slices.Clone(life), rapid.SliceOf(rapid.SampledFrom(life)).Draw(rt, "again")...)
		for _, m := range rapid.Permutation(sent).Draw(rt, "order") {
			if _, err := s.Sync(t.Context(), m); err != nil {
				rt.Fatal(err)
			}
		}
		u, err := store.Find(t.Context(), syncIssuer, subject)
		want := fmt.Sprint("N", last-1)
		if ends {
			want = ""
		}
		if err != nil || u.DisplayName != want || (u.Status == users.Deleted) != ends {
			rt.Errorf("%+v, %v, want %q", u, err, want)
		}
	})
}

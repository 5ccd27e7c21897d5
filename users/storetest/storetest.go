// Package storetest holds the laws that every users.Store obeys.
//
// Begin with [Run] in a store's own test. The surprise: it is the only place where the laws are
// tested; a store's own tests are about its engine.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/users"
)

// Run tests every law on a store of its own.
func Run(t *testing.T, open func(*testing.T) users.Store) {
	for name, law := range map[string]func(*testing.T, users.Store){
		"a user comes back as stored":                   comesBack,
		"a subject has one row per issuer":              oneRow,
		"first sights at once make one user, one event": firstSights,
		"an update needs the version before it":         versions,
		"concurrent updates lose nothing":               concurrent,
		"an ended context leaves nothing":               ended,
		"events are newest first":                       events,
		"a strange user is not found":                   strange,
		"it answers":                                    pings,
	} {
		t.Run(name, func(t *testing.T) { law(t, open(t)) })
	}
}

func user(subject string) (users.User, users.Event) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	u := users.User{
		ID: "usr_" + rand.Text(), Issuer: "https://issuer.example", Subject: subject, Email: "Ünï@example.com",
		DisplayName: "Zoë 👩‍🚀 O'Neil; DROP TABLE users", Bio: strings.Repeat("字", 1000), Locale: "pt-BR", Timezone: "UTC",
		Version: 1, CreatedAt: now, UpdatedAt: now,
	}
	return u, users.Event{UserID: u.ID, Kind: "user.created", Actor: subject, At: now}
}

func create(t *testing.T, s users.Store, subject string) users.User {
	t.Helper()
	u, e := user(subject)
	got, err := s.Create(t.Context(), u, e)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func comesBack(t *testing.T, s users.Store) {
	want := create(t, s, "user_1")
	got, err := s.Find(t.Context(), want.Issuer, want.Subject)
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("Find: %v %s", err, cmp.Diff(want, got))
	}
}

func oneRow(t *testing.T, s users.Store) {
	first := create(t, s, "user_1")
	if again := create(t, s, "user_1"); again.ID != first.ID {
		t.Errorf("the second Create made %s beside %s", again.ID, first.ID)
	}
	u, e := user("user_1")
	u.Issuer = "https://other.example"
	if other, err := s.Create(t.Context(), u, e); err != nil || other.ID == first.ID {
		t.Errorf("the same subject of another issuer = %v, %v; want a user of its own", other.ID, err)
	}
	if upper := create(t, s, "USER_1"); upper.ID == first.ID {
		t.Error("subjects are compared without case")
	}
}

func firstSights(t *testing.T, s users.Store) {
	ids := make([]string, 20)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			u, e := user("user_1")
			got, err := s.Create(t.Context(), u, e)
			if err != nil {
				t.Error(err)
			}
			ids[i] = got.ID
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two users: %v", ids)
			break
		}
	}
	if log, err := s.Events(t.Context(), ids[0], 50); err != nil || len(log) != 1 {
		t.Errorf("%d events, %v; want 1", len(log), err)
	}
}

func versions(t *testing.T, s users.Store) {
	u := create(t, s, "user_1")
	_, e := user("user_1")
	e.UserID = u.ID
	stale := u
	u.Version, u.DisplayName = 2, "second"
	if err := s.Update(t.Context(), u, e); err != nil {
		t.Fatal(err)
	}
	stale.Version, stale.DisplayName = 2, "too late"
	if err := s.Update(t.Context(), stale, e); !errors.Is(err, users.ErrConflict) {
		t.Errorf("a stale update = %v, want ErrConflict", err)
	}
	if got, _ := s.Find(t.Context(), u.Issuer, u.Subject); got.DisplayName != "second" {
		t.Errorf("name = %q, want second", got.DisplayName)
	}
	if log, _ := s.Events(t.Context(), u.ID, 50); len(log) != 2 {
		t.Errorf("%d events, want 2: a refused update leaves none", len(log))
	}
}

func concurrent(t *testing.T, s users.Store) {
	u := create(t, s, "user_1")
	const n = 20
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for {
				now, err := s.Find(t.Context(), u.Issuer, u.Subject)
				if err != nil {
					t.Error(err)
					return
				}
				now.Version++
				now.Bio += "x"
				err = s.Update(t.Context(), now, users.Event{UserID: u.ID, Kind: "user.updated", At: now.UpdatedAt})
				if !errors.Is(err, users.ErrConflict) {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	all.Wait()
	got, err := s.Find(t.Context(), u.Issuer, u.Subject)
	if err != nil || got.Version != 1+n || strings.Count(got.Bio, "x") != n {
		t.Errorf("version %d with %d changes, %v; want %d with %d", got.Version, strings.Count(got.Bio, "x"), err, 1+n, n)
	}
}

func ended(t *testing.T, s users.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	u, e := user("user_1")
	if _, err := s.Create(ctx, u, e); err == nil {
		t.Error("Create with an ended context succeeded")
	}
	if _, err := s.Find(t.Context(), u.Issuer, u.Subject); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Find = %v, want ErrNotFound", err)
	}
}

func events(t *testing.T, s users.Store) {
	u := create(t, s, "user_1")
	for v := int64(2); v < 6; v++ {
		u.Version = v
		if err := s.Update(t.Context(), u, users.Event{UserID: u.ID, Kind: "user.updated", Actor: "a", Fields: []string{"bio", "locale"}, At: u.UpdatedAt}); err != nil {
			t.Fatal(err)
		}
	}
	log, err := s.Events(t.Context(), u.ID, 3)
	if err != nil || len(log) != 3 || log[0].ID < log[1].ID || len(log[0].Fields) != 2 {
		t.Errorf("events = %+v, %v; want the three newest, newest first", log, err)
	}
}

func strange(t *testing.T, s users.Store) {
	if _, err := s.Find(t.Context(), "a", "b"); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Find = %v, want ErrNotFound", err)
	}
	u, e := user("user_1")
	u.Version = 2
	if err := s.Update(t.Context(), u, e); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Update = %v, want ErrNotFound", err)
	}
}

func pings(t *testing.T, s users.Store) {
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

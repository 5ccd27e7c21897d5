// Package storetest holds the laws that every users.Store obeys.
//
// Begin with [Run] in a store's own test. The surprise: it is the only place where the laws are
// tested; a store's own tests are about its engine.
package storetest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/users"
)

const issuer = "https://issuer.example"

// Run tests every law on a store of its own.
func Run(t *testing.T, open func(*testing.T) users.Store) {
	for name, law := range map[string]func(*testing.T, users.Store){
		"a user comes back as stored":                        comesBack,
		"a subject has one row per issuer":                   oneRow,
		"first sights at once make one user, one event":      firstSights,
		"an update stores the whole row":                     wholeRow,
		"a row that was read in a transaction stays":         concurrent,
		"what a failed transaction did is gone":              allOrNothing,
		"an ended context leaves nothing":                    ended,
		"a handle has one owner":                             handles,
		"a strange user is not found":                        strange,
		"a status must be one of the three":                  statuses,
		"it answers":                                         pings,
		"events are oldest first, by page":                   events,
		"chains and heads come in the order of their ids":    chains,
		"an event needs a user, and its place alone":         misplaced,
		"an honest log is sound while others write to it":    sound,
		"a list is newest first, without gap or repeat":      list,
		"a list is stable under inserts":                     stable,
		"a list can be filtered":                             filter,
		"a claim is taken once":                              claims,
		"claimers at once: one does, the others see it done": claimers,
		"a claim can be taken again when it has expired":     expired,
		"a failed claimer leaves the key to the next":        unclaimed,
		"standings are those that changed":                   standings,
		"revocations keep the later end":                     revocations,
		"a feed goes on where it was left":                   feed,
		"a sweep removes what has expired":                   sweep,
	} {
		t.Run(name, func(t *testing.T) { law(t, open(t)) })
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// user is a new one that nobody stored yet, with every field set that may be.
func user(subject string) users.User {
	at := now()
	return users.User{
		ID: "usr_" + rand.Text(), Issuer: issuer, Subject: subject, Status: users.Active, Email: "Ünï@example.com",
		DisplayName: "Zoë 👩‍🚀 O'Neil; DROP TABLE users", Bio: strings.Repeat("字", 1000), Locale: "pt-BR", Timezone: "UTC",
		Version: 1, CreatedAt: at, UpdatedAt: at, SourceUpdatedAt: at.Add(-time.Hour),
	}
}

// create stores a user with its first event.
func create(t testing.TB, s users.Store, u users.User) users.User {
	t.Helper()
	e := u.Extend(users.Event{Kind: users.UserCreated, Actor: u.Subject, At: u.CreatedAt})
	do(t, s, func(ctx context.Context, tx users.Tx) error {
		if inserted, err := tx.Insert(ctx, u); err != nil || !inserted {
			t.Errorf("Insert = %v, %v; want true", inserted, err)
			return err
		}
		return tx.Append(ctx, e)
	})
	return u
}

// update changes a stored user, with an event.
func update(t testing.TB, s users.Store, id string, change func(*users.User), fields ...string) (u users.User) {
	t.Helper()
	do(t, s, func(ctx context.Context, tx users.Tx) (err error) {
		if u, err = tx.Get(ctx, id); err != nil {
			return err
		}
		change(&u)
		u.Version++
		e := u.Extend(users.Event{Kind: users.UserUpdated, Actor: u.Subject, Fields: fields, At: now()})
		if err := tx.Update(ctx, u); err != nil {
			return err
		}
		return tx.Append(ctx, e)
	})
	return u
}

// do runs f in a transaction that must succeed.
func do(t testing.TB, s users.Store, f func(context.Context, users.Tx) error) {
	t.Helper()
	if err := s.Tx(t.Context(), func(tx users.Tx) error { return f(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres"
	"github.com/gantryhq/gantry/users/storetest"
)

// Round trips are what a request waits for. Each line of want is the statements of one, by their first word.
func TestRoundTrips(t *testing.T) {
	var trips []string
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase()), Trace: func(statements []string) {
		trips = append(trips, words(statements))
	}})
	store(t, s, newUser("user_1"))
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	claim := users.Claim{Scope: "s", Key: "k", At: time.Now(), Expires: later}
	for name, tt := range map[string]struct {
		call func() error
		want string
	}{
		"find": {func() error { _, err := s.Find(ctx, "iss", "user_1"); return err }, "SELECT"},
		"list": {func() error { _, err := s.List(ctx, users.Query{Limit: 100}); return err }, "SELECT | SELECT"},
		"change": {
			func() error { return rename(ctx, s, "usr_user_1", "x") },
			"BEGIN SELECT | UPDATE INSERT COMMIT",
		},
		"change with an idempotency key": {func() error {
			return s.Tx(ctx, func(tx users.Tx) error {
				_, _, err := tx.Claim(ctx, claim)
				return errors.Join(err, change(ctx, tx), tx.Settle(ctx, claim))
			})
		}, "BEGIN INSERT | SELECT | UPDATE INSERT UPDATE COMMIT"},
		"first sight": {func() error { u := newUser("user_2"); store(t, s, u); return nil }, "BEGIN INSERT | INSERT COMMIT"},
		"revocation": {func() error {
			return s.Tx(ctx, func(tx users.Tx) error {
				return tx.Revoke(ctx, users.Revocation{Issuer: "iss", SessionID: "s", Until: later})
			})
		}, "BEGIN INSERT COMMIT"},
		"a transaction that does nothing": {func() error { return s.Tx(ctx, func(users.Tx) error { return nil }) }, ""},
	} {
		trips = nil
		if err := tt.call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(trips, " | "); got != tt.want {
			t.Errorf("%s: %s; want %s", name, got, tt.want)
		}
	}
}

func change(ctx context.Context, tx users.Tx) error {
	u, err := tx.Get(ctx, "usr_user_1")
	if err != nil {
		return err
	}
	u.Version++
	e := u.Extend(users.Event{Kind: users.UserUpdated, At: u.UpdatedAt})
	return errors.Join(tx.Update(ctx, u), tx.Append(ctx, e))
}

// words are the first words of statements, comments aside.
func words(statements []string) string {
	var first []string
	for _, s := range statements {
		for line := range strings.Lines(s) {
			if !strings.HasPrefix(line, "--") {
				first = append(first, strings.Fields(line)[0])
				break
			}
		}
	}
	return strings.Join(first, " ")
}

// Statements are counted for every route, by the same table as for the other store.
func TestEveryRouteKeepsToItsStatements(t *testing.T) {
	p := testenv.NewPostgres(t)
	var seen storetest.Statements
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase()), Trace: func(statements []string) {
		for _, statement := range statements {
			seen.Seen(statement)
		}
	}})
	storetest.Budget(t, s, &seen)
}

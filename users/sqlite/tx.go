package sqlite

import (
	"context"
	"errors"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite/internal/db"
)

// transaction is the writer's; it has the file for itself, so nothing needs a lock of its own.
type transaction struct{ q *db.Queries }

// Find implements users.Tx.
func (t transaction) Find(ctx context.Context, issuer, subject string) (users.User, error) {
	return oneUser(t.q.FindUser(ctx, db.FindUserParams{Issuer: issuer, Subject: subject}))
}

// Get implements users.Tx.
func (t transaction) Get(ctx context.Context, id string) (users.User, error) {
	return oneUser(t.q.GetUser(ctx, id))
}

// Insert implements users.Tx.
func (t transaction) Insert(ctx context.Context, u users.User) (bool, error) {
	var changed int64
	if u.Status != users.Active || u.Plan != "" {
		changed = now()
	}
	n, err := t.q.InsertUser(ctx, db.InsertUserParams{
		ID: u.ID, Issuer: u.Issuer, Subject: u.Subject, Handle: u.Handle, Status: string(u.Status), Plan: u.Plan,
		Email: u.Email, DisplayName: u.DisplayName, ImageURL: u.ImageURL, Bio: u.Bio, Locale: u.Locale, Timezone: u.Timezone,
		Version: u.Version, CreatedAt: micros(u.CreatedAt), UpdatedAt: micros(u.UpdatedAt),
		SourceUpdatedAt: micros(u.SourceUpdatedAt), AccessChangedAt: changed, Events: u.Events, Head: u.Head,
	})
	return n == 1, handleTaken(err)
}

// Update implements users.Tx.
func (t transaction) Update(ctx context.Context, u users.User) error {
	n, err := t.q.UpdateUser(ctx, db.UpdateUserParams{
		ID: u.ID, Handle: u.Handle, Status: string(u.Status), Plan: u.Plan, Now: now(),
		Email: u.Email, DisplayName: u.DisplayName, ImageURL: u.ImageURL, Bio: u.Bio, Locale: u.Locale, Timezone: u.Timezone,
		Version: u.Version, UpdatedAt: micros(u.UpdatedAt), SourceUpdatedAt: micros(u.SourceUpdatedAt), Events: u.Events, Head: u.Head,
	})
	if err == nil && n == 0 {
		return users.ErrNotFound
	}
	return handleTaken(err)
}

// now is the engine's time: SQLite runs in this process.
func now() int64 { return time.Now().UnixMicro() }

// handleTaken tells the one unique index that a rule may run into from every other failure.
func handleTaken(err error) error {
	var engine *sqlite3.Error
	if errors.As(err, &engine) && engine.Code() == lib.SQLITE_CONSTRAINT_UNIQUE && strings.Contains(engine.Error(), "users.handle") {
		return users.ErrHandleTaken
	}
	return wrap(err)
}

// Append implements users.Tx.
func (t transaction) Append(ctx context.Context, e users.Event) error {
	return wrap(t.q.AppendEvent(ctx, db.AppendEventParams{
		UserID: e.UserID, Seq: e.Seq, Kind: string(e.Kind), Actor: e.Actor, Fields: strings.Join(e.Fields, " "),
		At: micros(e.At), Prev: e.Prev, Hash: e.Hash,
	}))
}

// Claim implements users.Tx.
func (t transaction) Claim(ctx context.Context, c users.Claim) (users.Claim, bool, error) {
	n, err := t.q.Claim(ctx, db.ClaimParams{
		Scope: c.Scope, Key: c.Key, Fingerprint: present(c.Fingerprint), Result: present(c.Result),
		At: micros(c.At), ExpiresAt: micros(c.Expires),
	})
	if err != nil || n == 1 {
		return users.Claim{}, n == 1, wrap(err)
	}
	r, err := t.q.FindClaim(ctx, db.FindClaimParams{Scope: c.Scope, Key: c.Key})
	return users.Claim{
		Scope: r.Scope, Key: r.Key, Fingerprint: r.Fingerprint, Result: r.Result, At: timeOf(r.At), Expires: timeOf(r.ExpiresAt),
	}, false, wrap(err)
}

// present is b, but never null.
func present(b []byte) []byte { return append([]byte{}, b...) }

// Settle implements users.Tx.
func (t transaction) Settle(ctx context.Context, c users.Claim) error {
	return wrap(t.q.SettleClaim(ctx, db.SettleClaimParams{Result: present(c.Result), Scope: c.Scope, Key: c.Key}))
}

// Forget implements users.Tx.
func (t transaction) Forget(ctx context.Context, scope string) error {
	return wrap(t.q.ForgetClaims(ctx, scope))
}

// Revoke implements users.Tx.
func (t transaction) Revoke(ctx context.Context, r users.Revocation) error {
	return wrap(t.q.Revoke(ctx, db.RevokeParams{
		Issuer: r.Issuer, SessionID: r.SessionID, Subject: r.Subject, Until: micros(r.Until), At: now(),
	}))
}

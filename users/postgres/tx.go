package postgres

import (
	"context"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres/internal/db"
)

// tx is a users.Tx on a pipe.
type tx struct {
	p *pipe
	// now waits for the answer, later does not.
	now, later *db.Queries
	// handles, by id, of the users that this transaction has read and so holds.
	handles map[string]string
}

// Tx implements users.Store.
func (s *Store) Tx(ctx context.Context, f func(users.Tx) error) error {
	return s.attempt(ctx, func(p *pipe) error {
		p.begin()
		if err := f(&tx{p: p, now: db.New(p), later: db.New(deferred{p}), handles: map[string]string{}}); err != nil {
			return err
		}
		return wrap(ctx, p.commit(ctx))
	})
}

// Find implements users.Tx.
func (t *tx) Find(ctx context.Context, issuer, subject string) (users.User, error) {
	row, err := t.now.LockUser(ctx, db.LockUserParams{Issuer: issuer, Subject: subject})
	return t.holds(row, wrap(ctx, err))
}

// Get implements users.Tx.
func (t *tx) Get(ctx context.Context, id string) (users.User, error) {
	row, err := t.now.LockUserByID(ctx, id)
	return t.holds(row, wrap(ctx, err))
}

func (t *tx) holds(row db.User, err error) (users.User, error) {
	if err != nil {
		return users.User{}, err
	}
	t.handles[row.ID] = row.Handle
	return user(row), nil
}

// Insert implements users.Tx.
func (t *tx) Insert(ctx context.Context, u users.User) (bool, error) {
	n, err := t.now.InsertUser(ctx, db.InsertUserParams{
		ID: u.ID, Issuer: u.Issuer, Subject: u.Subject, Handle: u.Handle, Status: string(u.Status), Plan: u.Plan,
		Email: u.Email, DisplayName: u.DisplayName, ImageURL: u.ImageURL, Bio: u.Bio, Locale: u.Locale, Timezone: u.Timezone,
		Version: u.Version, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, SourceUpdatedAt: orNull(u.SourceUpdatedAt),
		Events: u.Events, Head: u.Head,
	})
	if n == 1 {
		t.handles[u.ID] = u.Handle
	}
	return n == 1, wrap(ctx, err)
}

// Update implements users.Tx. With the row held and the handle as it was there is nothing that could
// go wrong by the rules, and nobody waits for the answer.
func (t *tx) Update(ctx context.Context, u users.User) error {
	handle, held := t.handles[u.ID]
	q := t.now
	if held && handle == u.Handle {
		q = t.later
	}
	n, err := q.UpdateUser(ctx, db.UpdateUserParams{
		ID: u.ID, Handle: u.Handle, Status: string(u.Status), Plan: u.Plan,
		Email: u.Email, DisplayName: u.DisplayName, ImageURL: u.ImageURL, Bio: u.Bio, Locale: u.Locale, Timezone: u.Timezone,
		Version: u.Version, UpdatedAt: u.UpdatedAt, SourceUpdatedAt: orNull(u.SourceUpdatedAt), Events: u.Events, Head: u.Head,
	})
	if err == nil && n == 0 && q == t.now {
		return users.ErrNotFound
	}
	if held {
		t.handles[u.ID] = u.Handle
	}
	return wrap(ctx, err)
}

// Append implements users.Tx.
func (t *tx) Append(ctx context.Context, e users.Event) error {
	return wrap(ctx, t.later.AppendEvent(ctx, db.AppendEventParams{
		UserID: e.UserID, Seq: e.Seq, Kind: string(e.Kind), Actor: e.Actor, Fields: append([]string{}, e.Fields...),
		At: e.At, Prev: e.Prev, Hash: e.Hash,
	}))
}

// Claim implements users.Tx.
func (t *tx) Claim(ctx context.Context, c users.Claim) (prior users.Claim, claimed bool, err error) {
	n, err := t.now.Claim(ctx, db.ClaimParams{
		Scope: c.Scope, Key: c.Key, Fingerprint: filled(c.Fingerprint), Result: filled(c.Result), At: c.At, ExpiresAt: c.Expires,
	})
	if err != nil || n == 1 {
		return users.Claim{}, n == 1, wrap(ctx, err)
	}
	row, err := t.now.FindClaim(ctx, db.FindClaimParams{Scope: c.Scope, Key: c.Key})
	return claim(row), false, wrap(ctx, err)
}

// Settle implements users.Tx.
func (t *tx) Settle(ctx context.Context, c users.Claim) error {
	return wrap(ctx, t.later.SettleClaim(ctx, db.SettleClaimParams{Scope: c.Scope, Key: c.Key, Result: filled(c.Result)}))
}

// Forget implements users.Tx.
func (t *tx) Forget(ctx context.Context, scope string) error {
	return wrap(ctx, t.later.ForgetClaims(ctx, scope))
}

// Revoke implements users.Tx.
func (t *tx) Revoke(ctx context.Context, r users.Revocation) error {
	return wrap(ctx, t.later.Revoke(ctx, db.RevokeParams{Issuer: r.Issuer, SessionID: r.SessionID, Subject: r.Subject, Until: r.Until}))
}

// filled keeps nothing from becoming null.
func filled(b []byte) []byte { return append([]byte{}, b...) }

package users

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Once is a caller's idempotency key (draft-ietf-httpapi-idempotency-key-header): the write under it
// happens once, and who comes again is given the first outcome. The zero value is no key.
type Once struct {
	Key string
	// Fingerprint tells what is asked for; one key with two of them is ErrKeyReused.
	Fingerprint []byte
}

// keptFor is how long a key is remembered.
const keptFor = 24 * time.Hour

// ErrKeyReused says that an idempotency key was used before, for something else.
var ErrKeyReused = errors.New("the idempotency key was used for another request")

// Outcome of a write.
type Outcome struct {
	User User
	// Replayed says that nothing was done: the user is as it was after the first time.
	Replayed bool
}

// scopeOf is where a caller's keys live.
func scopeOf(s Subject) string { return "idem " + s.Issuer + " " + s.Subject }

// once does f in a transaction, with its outcome kept under the key; refusals are not kept, for they
// had no effect. keep says what of the outcome is needed to answer again.
func (s *Service) once(ctx context.Context, c Claims, o Once, keep func(User) User, f func(Tx) (User, error)) (out Outcome, err error) {
	out.User, err = s.change(ctx, func(tx Tx) (u User, err error) {
		out.Replayed = false
		if o.Key == "" {
			return f(tx)
		}
		claim := s.claim(c, o)
		prior, claimed, err := tx.Claim(ctx, claim)
		if err != nil {
			return User{}, err
		}
		if !claimed {
			out.Replayed = true
			return replay(prior, o)
		}
		if u, err = f(tx); err != nil {
			return User{}, err
		}
		if claim.Result, err = json.Marshal(keep(u)); err != nil {
			return User{}, err
		}
		return u, tx.Settle(ctx, claim)
	})
	return out, err
}

func (s *Service) claim(c Claims, o Once) Claim {
	at := s.time()
	return Claim{Scope: scopeOf(c.subject()), Key: o.Key, Fingerprint: o.Fingerprint, At: at, Expires: at.Add(keptFor)}
}

func replay(prior Claim, o Once) (u User, err error) {
	if !bytes.Equal(prior.Fingerprint, o.Fingerprint) {
		return User{}, ErrKeyReused
	}
	return u, json.Unmarshal(prior.Result, &u)
}

// whole keeps a user's own outcome: it is forgotten with the user.
func whole(u User) User { return u }

// bare keeps nothing personal: what an admin is told again must not outlive an erased user.
func bare(u User) User {
	return User{ID: u.ID, Issuer: u.Issuer, Subject: u.Subject, Status: u.Status, Plan: u.Plan, Version: u.Version, UpdatedAt: u.UpdatedAt}
}

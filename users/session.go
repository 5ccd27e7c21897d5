package users

import (
	"context"
	"errors"
	"strings"
	"time"
)

// sessionLife is how long a revocation is kept when it is not known when the session's tokens end.
const sessionLife = 24 * time.Hour

// inboxFor is how long the id of a message is remembered; its sender repeats one for less.
const inboxFor = 30 * 24 * time.Hour

// RevokeSession makes the tokens of a session void on every instance. inbox, unless "", is the id of
// the message that asks for it: the same one has no effect a second time. A user who is
// known gets an event. A zero Until is a day from now. changed is false for a message that was here before.
func (s *Service) RevokeSession(ctx context.Context, r Revocation, inbox string) (changed bool, err error) {
	if r.Issuer == "" || r.SessionID == "" || len(r.SessionID) > 255 || strings.ContainsAny(r.SessionID, " \t\r\n") {
		return false, errors.New("revoke a session: an issuer and a session id without spaces are needed")
	}
	if r.Until.IsZero() {
		r.Until = s.time().Add(sessionLife)
	}
	err = s.store.Tx(ctx, func(tx Tx) error {
		if changed, err = s.receive(ctx, tx, inbox); err != nil || !changed {
			return err
		}
		if err := tx.Revoke(ctx, r); err != nil {
			return err
		}
		return s.revoked(ctx, tx, r)
	})
	if err == nil && s.cfg.Door != nil {
		s.cfg.Door.TellRevoked(r)
	}
	return changed && err == nil, err
}

// receive takes the id of a message; false when it was here before.
func (s *Service) receive(ctx context.Context, tx Tx, inbox string) (fresh bool, err error) {
	if inbox == "" {
		return true, nil
	}
	at := s.time()
	_, fresh, err = tx.Claim(ctx, Claim{Scope: "inbox", Key: inbox, At: at, Expires: at.Add(inboxFor)})
	return fresh, err
}

// revoked writes the event, if there is a user to write it for.
func (s *Service) revoked(ctx context.Context, tx Tx, r Revocation) error {
	if r.Subject == "" {
		return nil
	}
	u, err := tx.Find(ctx, r.Issuer, r.Subject)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return record(ctx, tx, &u, Event{Kind: SessionRevoked, Actor: r.Subject, Fields: []string{r.SessionID}, At: s.time()})
}

package users

import "context"

// Match accepts or refuses a stored version; nil accepts all.
type Match func(version int64) bool

func (m Match) refuses(version int64) bool { return m != nil && !m(version) }

// Change sets fields of the caller's user. ErrConflict when match refuses the version that is stored;
// ErrHandleTaken. Changing nothing writes nothing.
func (s *Service) Change(ctx context.Context, c Claims, p Patch, match Match, o Once) (Outcome, error) {
	return s.once(ctx, c, o, whole, func(tx Tx) (User, error) {
		u, err := welcome(s.ensure(ctx, tx, c))
		if err != nil {
			return User{}, err
		}
		if match.refuses(u.Version) {
			return User{}, ErrConflict
		}
		changed, fields := p.apply(u)
		if len(fields) == 0 {
			return u, nil
		}
		err = s.write(ctx, tx, &changed, Event{Kind: UserUpdated, Actor: c.actor(), Fields: fields})
		return changed, err
	})
}

// Delete erases the caller's user for ever and leaves a tombstone, in one transaction with the event that
// says so. ErrConflict when match refuses the version that is stored, ErrDeleted the second time.
func (s *Service) Delete(ctx context.Context, c Claims, match Match, o Once) (Outcome, error) {
	out, err := s.once(ctx, c, o, bare, func(tx Tx) (User, error) {
		u, err := welcome(s.ensure(ctx, tx, c))
		if err != nil {
			return User{}, err
		}
		if match.refuses(u.Version) {
			return User{}, ErrConflict
		}
		if err := s.erase(ctx, tx, &u, c.actor()); err != nil || o.Key == "" {
			return u, err
		}
		_, _, err = tx.Claim(ctx, s.claim(c, o)) // erase has forgotten this one too
		return u, err
	})
	return s.told(out, err)
}

// eachEvent gives every audit event of u, oldest first, in pages, so that memory stays bounded. An
// error of f ends it.
func (s *Service) eachEvent(ctx context.Context, u User, f func(i int64, e EventView) error) error {
	for after := int64(0); ; {
		page, err := s.store.Events(ctx, u.ID, after, exportPage)
		if err != nil {
			return err
		}
		for i, e := range eventViews(page) {
			if err := f(after+int64(i), e); err != nil {
				return err
			}
		}
		if len(page) < exportPage {
			return nil
		}
		after = page[len(page)-1].Seq
	}
}

// revokedSessions are the ended sessions of u whose tokens may still be about.
func (s *Service) revokedSessions(ctx context.Context, u User) ([]Revocation, error) {
	return s.store.RevokedSessions(ctx, u.Issuer, u.Subject, exportPage)
}

// exportPage bounds what an export holds at once, and how many revoked sessions it names.
const exportPage = 1000

package users

import (
	"context"
	"errors"
	"time"
)

// issuerActor stands in the audit log for what the issuer did, not the user.
const issuerActor = "issuer"

// Sync is what an issuer says of one of its users, in a message or in a list.
type Sync struct {
	Issuer, Subject       string
	Email, Name, ImageURL string
	// Deleted says that the user is gone for good; the fields above do not matter then.
	Deleted bool
	// SourceUpdatedAt is the issuer's time of the change.
	SourceUpdatedAt time.Time
	// Inbox is the id of the message; the same id has an effect once. "" for what was not sent, but
	// read.
	Inbox string
}

// Sync brings a user to what the issuer says, in one transaction with the message's id and the audit
// event, and says whether anything changed. Messages come twice, late and out of order, so: a second
// message of an id changes nothing, nor does one that is not newer than what was taken over last. A
// deletion leaves a tombstone, also of a user that was never seen, and nothing brings that back.
//
// The issuer's e-mail address, name and picture replace what the user has. Fields that the issuer does
// not know stay.
func (s *Service) Sync(ctx context.Context, in Sync) (changed bool, err error) {
	u, err := s.change(ctx, func(tx Tx) (u User, err error) {
		changed = false
		if fresh, err := s.receive(ctx, tx, in.Inbox); err != nil || !fresh {
			return User{}, err
		}
		u, changed, err = s.sync(ctx, tx, in)
		return u, err
	})
	if err != nil || !changed {
		return false, err
	}
	if s.cfg.Door != nil {
		s.cfg.Door.Tell(u.standing())
	}
	return true, nil
}

func (s *Service) sync(ctx context.Context, tx Tx, in Sync) (u User, changed bool, err error) {
	u, made, err := s.findOrMake(ctx, tx, in)
	switch {
	case err != nil || made:
		return u, made, err
	case u.Status == Deleted:
		return u, false, nil
	case in.Deleted:
		u.SourceUpdatedAt = in.SourceUpdatedAt
		err = s.erase(ctx, tx, &u, issuerActor)
		return u, true, err
	case !in.SourceUpdatedAt.After(u.SourceUpdatedAt):
		return u, false, nil
	}
	err = s.takeOver(ctx, tx, &u, in)
	return u, true, err
}

// findOrMake returns the user as it is, or makes it as the issuer says. A first request of the user
// may make the row between the two looks, and is then found at the second.
func (s *Service) findOrMake(ctx context.Context, tx Tx, in Sync) (u User, made bool, err error) {
	for range 2 {
		if u, err = tx.Find(ctx, in.Issuer, in.Subject); !errors.Is(err, ErrNotFound) {
			return u, false, err
		}
		var e Event
		u, e = s.imported(in)
		if made, err = tx.Insert(ctx, u); err != nil {
			return u, false, err
		}
		if made {
			return u, true, tx.Append(ctx, e)
		}
	}
	return u, false, ErrConflict
}

// imported is a new user as the issuer describes it, or a new tombstone, and its first event.
func (s *Service) imported(in Sync) (User, Event) {
	c, status, kind := Claims{Email: in.Email, Name: in.Name, ImageURL: in.ImageURL}, Active, UserCreated
	if in.Deleted {
		c, status, kind = Claims{}, Deleted, UserDeleted
	}
	c.Issuer, c.Subject = in.Issuer, in.Subject
	u := s.first(c)
	u.Status, u.SourceUpdatedAt = status, in.SourceUpdatedAt
	e := u.Extend(Event{Kind: kind, Actor: issuerActor, At: u.CreatedAt})
	return u, e
}

// takeOver writes what is newer at the issuer. When only the time of change is, there is no event and
// no new version: nobody could see a difference.
func (s *Service) takeOver(ctx context.Context, tx Tx, u *User, in Sync) error {
	var fields []string
	for _, f := range []struct {
		name string
		to   *string
		text string
	}{
		{"email", &u.Email, clean(in.Email, emailRule)},
		{"display_name", &u.DisplayName, clean(in.Name, nameRule)},
		{"image_url", &u.ImageURL, clean(in.ImageURL, imageRule)},
	} {
		if *f.to != f.text {
			*f.to = f.text
			fields = append(fields, f.name)
		}
	}
	u.SourceUpdatedAt = in.SourceUpdatedAt
	if len(fields) == 0 {
		return tx.Update(ctx, *u)
	}
	return s.write(ctx, tx, u, Event{Kind: UserSynced, Actor: issuerActor, Fields: fields})
}

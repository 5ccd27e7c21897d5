package users

import (
	"context"
	"errors"
	"regexp"
)

// ErrUnknownPlan says that there is no plan of that name.
var ErrUnknownPlan = errors.New("there is no such plan")

// ListQuery asks for a page of all users, newest first.
type ListQuery struct {
	// Status and Match filter; see [Query].
	Status Status
	Match  string
	// Cursor is Page.Next of the page before, with the same filter; "" for the first page.
	Cursor string
	// Limit is the size of the page; at most 100, default 20.
	Limit int
}

// Page of a list.
type Page struct {
	Users []Listed
	// Next is the cursor of the next page, "" when this is the last.
	Next string
}

// The sizes of a page.
const (
	DefaultLimit = 20
	MaxLimit     = 100
)

// List returns a page of users; ErrCursor for a cursor that is not ours or of another filter. The
// caller must be an admin, which is not checked here.
func (s *Service) List(ctx context.Context, q ListQuery) (Page, error) {
	if q.Limit <= 0 {
		q.Limit = DefaultLimit
	}
	q.Limit = min(q.Limit, MaxLimit)
	after, err := s.cursors.read(q.Cursor, q.filter())
	if err != nil {
		return Page{}, err
	}
	// One more than asked for tells whether there is a next page.
	list, err := s.store.List(ctx, Query{Status: q.Status, Match: q.Match, After: after, Limit: q.Limit + 1})
	if err != nil || len(list) <= q.Limit {
		return Page{Users: list}, err
	}
	list = list[:q.Limit]
	last := list[q.Limit-1]
	return Page{Users: list, Next: s.cursors.write(Position{At: last.CreatedAt, ID: last.ID}, q.filter())}, nil
}

// Suspend refuses a user at every door until Reinstate. A user who is suspended already stays as is.
// The caller must be an admin, which is not checked here.
func (s *Service) Suspend(ctx context.Context, admin Claims, id string, o Once) (Outcome, error) {
	return s.govern(ctx, admin, id, o, func(u *User) (Kind, bool) {
		changed := u.Status != Suspended
		u.Status = Suspended
		return UserSuspended, changed
	})
}

// Reinstate ends a suspension.
func (s *Service) Reinstate(ctx context.Context, admin Claims, id string, o Once) (Outcome, error) {
	return s.govern(ctx, admin, id, o, func(u *User) (Kind, bool) {
		changed := u.Status != Active
		u.Status = Active
		return UserReinstated, changed
	})
}

// planName is the shape of a plan's name; Clerk's have a colon.
var planName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:_.-]{0,63}$`)

// SetPlan gives a user a plan of its own, or with "" the token's again. ErrUnknownPlan.
func (s *Service) SetPlan(ctx context.Context, admin Claims, id, plan string, o Once) (Outcome, error) {
	if plan != "" && (!planName.MatchString(plan) || s.cfg.KnowsPlan != nil && !s.cfg.KnowsPlan(plan)) {
		return Outcome{}, ErrUnknownPlan
	}
	return s.govern(ctx, admin, id, o, func(u *User) (Kind, bool) {
		changed := u.Plan != plan
		u.Plan = plan
		return UserPlanChanged, changed
	})
}

// govern changes what only an admin may; a tombstone stays one.
func (s *Service) govern(ctx context.Context, admin Claims, id string, o Once, set func(*User) (Kind, bool)) (Outcome, error) {
	out, err := s.once(ctx, admin, o, bare, func(tx Tx) (User, error) {
		u, err := tx.Get(ctx, id)
		if err == nil && u.Status == Deleted {
			err = ErrDeleted
		}
		if err != nil {
			return User{}, err
		}
		kind, changed := set(&u)
		if !changed {
			return u, nil
		}
		err = s.write(ctx, tx, &u, Event{Kind: kind, Actor: admin.actor()})
		return u, err
	})
	return s.told(out, err)
}

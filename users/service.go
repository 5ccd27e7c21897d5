package users

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// Service holds the rules.
type Service struct {
	store Store
	now   func() time.Time
}

// Config of a Service; the zero value is the default.
type Config struct {
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// NewService returns the rules over a store.
func NewService(store Store, cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{store: store, now: cfg.Now}
}

// Me returns the caller's user, made on first sight.
func (s *Service) Me(ctx context.Context, c Claims) (User, error) {
	u, err := s.store.Find(ctx, c.Issuer, c.Subject)
	if !errors.Is(err, ErrNotFound) {
		return u, err
	}
	u = s.first(c)
	return s.store.Create(ctx, u, Event{UserID: u.ID, Kind: "user.created", Actor: actor(c), At: u.CreatedAt})
}

// first is a new user as the token describes it. What the token says beyond the rules is left out:
// a strange picture address is no reason to refuse a caller.
func (s *Service) first(c Claims) User {
	now := s.now().UTC().Truncate(time.Microsecond)
	u := User{
		ID: "usr_" + rand.Text(), Issuer: c.Issuer, Subject: c.Subject, Email: clean(c.Email, emailRule),
		DisplayName: clean(c.Name, nameRule), ImageURL: clean(c.ImageURL, imageRule),
		Version: 1, CreatedAt: now, UpdatedAt: now,
	}
	return u
}

func clean(text string, rule func(string) (string, error)) string {
	text, err := rule(text)
	if err != nil {
		return ""
	}
	return text
}

func actor(c Claims) string {
	if c.Actor != "" {
		return c.Actor
	}
	return c.Subject
}

// Change sets fields of the caller's user. match, if not nil, must accept the version that is stored,
// else ErrConflict. Changing nothing writes nothing.
func (s *Service) Change(ctx context.Context, c Claims, p Patch, match func(version int64) bool) (User, error) {
	for range 3 {
		u, err := s.Me(ctx, c)
		if err != nil {
			return User{}, err
		}
		if match != nil && !match(u.Version) {
			return User{}, ErrConflict
		}
		changed, fields := p.apply(u)
		if len(fields) == 0 {
			return u, nil
		}
		changed.Version++
		changed.UpdatedAt = s.now().UTC().Truncate(time.Microsecond)
		err = s.store.Update(ctx, changed, Event{UserID: u.ID, Kind: "user.updated", Actor: actor(c), Fields: fields, At: changed.UpdatedAt})
		if errors.Is(err, ErrConflict) && match == nil {
			continue // somebody was faster; this change does not depend on what they wrote
		}
		return changed, err
	}
	return User{}, fmt.Errorf("three times in a row: %w", ErrConflict)
}

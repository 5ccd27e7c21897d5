package users

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"
)

// Service holds the rules. All methods may be called from any goroutine.
type Service struct {
	store   Store
	cfg     Config
	cursors cursors
}

// Config of a Service; the zero value is the default.
type Config struct {
	// Now is the clock; default time.Now.
	Now func() time.Time
	// CursorKeys sign the cursors of lists: the first signs, all verify. Default is one random key,
	// whose cursors end with the process and mean nothing to other instances.
	CursorKeys [][]byte
	// Reads answers Me, and may keep what it read; nil asks the store each time.
	Reads Reads
	// Door is told at once of what this instance changes about who may come in; nil for none.
	Door *Doorkeeper
	// KnowsPlan says whether there is a plan of that name; nil accepts every well-formed one.
	KnowsPlan func(name string) bool
	// Logger hears of sweeps that failed; nil discards.
	Logger *slog.Logger
}

// Reads is a cache of Store.Find.
type Reads interface {
	// Get returns the user of a subject, or ErrNotFound; both may be kept.
	Get(ctx context.Context, key Subject) (User, error)
	// Invalidate forgets users. It is called after every write, whether or not it succeeded, and must
	// make loads under way forgotten too.
	Invalidate(ctx context.Context, keys ...Subject)
}

// NewService returns the rules over a store.
func NewService(store Store, cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if len(cfg.CursorKeys) == 0 {
		cfg.CursorKeys = [][]byte{[]byte(rand.Text())}
	}
	if cfg.Reads == nil {
		cfg.Reads = uncached{store}
	}
	return &Service{store: store, cfg: cfg, cursors: cursors{cfg.CursorKeys}}
}

// uncached are Reads that keep nothing.
type uncached struct{ store Reader }

// Get implements Reads.
func (u uncached) Get(ctx context.Context, key Subject) (User, error) {
	return u.store.Find(ctx, key.Issuer, key.Subject)
}

// Invalidate implements Reads.
func (uncached) Invalidate(context.Context, ...Subject) {}

// Me returns the caller's user, made on first sight. ErrDeleted or ErrSuspended for one that may not
// come in.
func (s *Service) Me(ctx context.Context, c Claims) (User, error) {
	u, err := s.cfg.Reads.Get(ctx, c.subject())
	if errors.Is(err, ErrNotFound) {
		u, err = s.change(ctx, func(tx Tx) (User, error) { return s.ensure(ctx, tx, c) })
	}
	return welcome(u, err)
}

// Public returns the user who has a handle, for anybody to see; ErrNotFound also for one who is
// suspended.
func (s *Service) Public(ctx context.Context, handle string) (User, error) {
	u, err := s.store.FindHandle(ctx, handle)
	if err == nil && u.Status != Active {
		return User{}, ErrNotFound
	}
	return u, err
}

// change runs f in a transaction. Afterwards caches forget the user whom f returned, also when it is not
// known what became of the commit.
func (s *Service) change(ctx context.Context, f func(Tx) (User, error)) (User, error) {
	var u User
	err := s.store.Tx(ctx, func(tx Tx) (err error) {
		u, err = f(tx)
		return err
	})
	if u.ID != "" {
		s.cfg.Reads.Invalidate(context.WithoutCancel(ctx), Subject{u.Issuer, u.Subject})
	}
	return u, err
}

// told lets the door of this instance know at once what was stored; what is only said again may be
// out of date.
func (s *Service) told(out Outcome, err error) (Outcome, error) {
	if err == nil && !out.Replayed && s.cfg.Door != nil {
		s.cfg.Door.Tell(out.User.standing())
	}
	return out, err
}

// ensure returns the caller's user, locked, and makes it if need be. Two first requests at once make
// one user and one event.
func (s *Service) ensure(ctx context.Context, tx Tx, c Claims) (User, error) {
	u, err := tx.Find(ctx, c.Issuer, c.Subject)
	if !errors.Is(err, ErrNotFound) {
		return u, err
	}
	u = s.first(c)
	e := u.Extend(Event{Kind: UserCreated, Actor: c.actor(), At: u.CreatedAt})
	inserted, err := tx.Insert(ctx, u)
	switch {
	case err != nil:
		return User{}, err
	case !inserted:
		return tx.Find(ctx, c.Issuer, c.Subject)
	}
	return u, tx.Append(ctx, e)
}

// first is a new user as the token describes it. What the token says beyond the rules is left out:
// a strange picture address is no reason to refuse a caller.
func (s *Service) first(c Claims) User {
	now := s.time()
	return User{
		ID: "usr_" + rand.Text(), Issuer: c.Issuer, Subject: c.Subject, Status: Active, Email: clean(c.Email, emailRule),
		DisplayName: clean(c.Name, nameRule), ImageURL: clean(c.ImageURL, imageRule),
		Version: 1, CreatedAt: now, UpdatedAt: now,
	}
}

func clean(text string, rule func(string) (string, error)) string {
	text, err := rule(text)
	if err != nil {
		return ""
	}
	return text
}

// write stores u as its next version, with the event that says why.
func (s *Service) write(ctx context.Context, tx Tx, u *User, e Event) error {
	u.Version++
	u.UpdatedAt = s.time()
	e.At = u.UpdatedAt
	return record(ctx, tx, u, e)
}

// record stores u with an event that is no change of its own, so that the version stays.
func record(ctx context.Context, tx Tx, u *User, e Event) error {
	e = u.Extend(e)
	if err := tx.Update(ctx, *u); err != nil {
		return err
	}
	return tx.Append(ctx, e)
}

// erase turns u into a tombstone: who it was is gone, that it was stays, and so does the audit chain.
// The kept results of the caller's writes go with it, for they hold the profile.
func (s *Service) erase(ctx context.Context, tx Tx, u *User, actor string) error {
	*u = User{
		ID: u.ID, Issuer: u.Issuer, Subject: u.Subject, Status: Deleted, Version: u.Version,
		CreatedAt: u.CreatedAt, SourceUpdatedAt: u.SourceUpdatedAt, Events: u.Events, Head: u.Head,
	}
	if err := s.write(ctx, tx, u, Event{Kind: UserDeleted, Actor: actor}); err != nil {
		return err
	}
	return tx.Forget(ctx, scopeOf(Subject{u.Issuer, u.Subject}))
}

// time is now, as the stores keep it.
func (s *Service) time() time.Time { return s.cfg.Now().UTC().Truncate(time.Microsecond) }

// welcome refuses a user who may not come in.
func welcome(u User, err error) (User, error) {
	switch {
	case err != nil:
		return User{}, err
	case u.Status == Deleted:
		return User{}, ErrDeleted
	case u.Status == Suspended:
		return User{}, ErrSuspended
	}
	return u, nil
}

func (u User) standing() Standing {
	return Standing{UserID: u.ID, Subject: Subject{u.Issuer, u.Subject}, Status: u.Status, Plan: u.Plan, Version: u.Version}
}

func (c Claims) subject() Subject { return Subject{c.Issuer, c.Subject} }

// actor is who is to be written down: the one who acts in the subject's name, if there is one.
func (c Claims) actor() string {
	if c.Actor != "" {
		return c.Actor
	}
	return c.Subject
}

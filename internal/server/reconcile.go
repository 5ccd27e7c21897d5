package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gantryhq/gantry/clerk"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/users"
)

// ErrNoClerk is a configuration without what it takes to ask Clerk.
var ErrNoClerk = errors.New("CLERK_PUBLISHABLE_KEY and CLERK_SECRET_KEY must be set")

// Reconcile makes the users of the configured Clerk instance true to Clerk, also beside running doors:
// what they keep of a user is forgotten as by a write of their own.
func Reconcile(ctx context.Context, cfg config.Config, log *slog.Logger, how clerk.ReconcileConfig) (drift clerk.Drift, err error) {
	issuer, ok := clerkIssuer(cfg)
	if !ok || cfg.ClerkSecretKey.IsZero() {
		return clerk.Drift{}, ErrNoClerk
	}
	backend, err := clerk.NewBackend(cfg.ClerkSecretKey.Reveal(), clerk.BackendConfig{URL: cfg.ClerkAPI.String()})
	if err != nil {
		return clerk.Drift{}, err
	}
	defer backend.Close()
	s := &Server{cfg: cfg, log: log}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := errors.Join(s.openUsers(ctx), s.openCache(ctx)); err != nil {
		return clerk.Drift{}, err
	}
	return clerk.Reconcile(ctx, backend, newMirror(s.store, users.NewService(s.store, users.Config{Reads: s.reads}), issuer), how)
}

// clerkIssuer is the "iss" of the configured Clerk instance.
func clerkIssuer(cfg config.Config) (string, bool) {
	for _, issuer := range cfg.Issuers {
		if issuer.Profile == identity.Clerk {
			return issuer.URL, true
		}
	}
	return "", false
}

// mirror lets clerk see the users of one issuer.
type mirror struct {
	store   users.Store
	service *users.Service
	issuer  string
}

func newMirror(store users.Store, service *users.Service, issuer string) *mirror {
	return &mirror{store: store, service: service, issuer: issuer}
}

const mirrorPage = 500

// Known implements clerk.Mirror, the newest users first.
func (m *mirror) Known(ctx context.Context, each func(clerk.Known) error) error {
	for q := (users.Query{Limit: mirrorPage}); ; {
		page, err := m.store.List(ctx, q)
		if err != nil {
			return err
		}
		for _, u := range page {
			q.After = users.Position{At: u.CreatedAt, ID: u.ID}
			if u.Issuer != m.issuer {
				continue
			}
			if err := each(clerk.Known{ID: u.Subject, UpdatedAt: u.SourceUpdatedAt, Deleted: u.Status == users.Deleted}); err != nil {
				return err
			}
		}
		if len(page) < mirrorPage {
			return nil
		}
	}
}

// Apply implements clerk.Mirror.
func (m *mirror) Apply(ctx context.Context, u clerk.User) (bool, error) {
	return m.service.Sync(ctx, m.sync(u, ""))
}

// Remove implements clerk.Mirror.
func (m *mirror) Remove(ctx context.Context, id string, at time.Time) (bool, error) {
	return m.service.Sync(ctx, users.Sync{Issuer: m.issuer, Subject: id, Deleted: true, SourceUpdatedAt: at})
}

func (m *mirror) sync(u clerk.User, inbox string) users.Sync {
	return users.Sync{
		Issuer: m.issuer, Subject: u.ID, Email: u.Email, Name: u.Name, ImageURL: u.ImageURL,
		SourceUpdatedAt: u.UpdatedAt, Inbox: inbox,
	}
}

// event is clerk.WebhookConfig.Apply.
func (m *mirror) event(ctx context.Context, e clerk.Event, id string) (bool, error) {
	switch e.Kind {
	case clerk.UserChanged:
		return m.service.Sync(ctx, m.sync(e.User, id))
	case clerk.UserDeleted:
		return m.service.Sync(ctx, users.Sync{Issuer: m.issuer, Subject: e.User.ID, Deleted: true, SourceUpdatedAt: e.At, Inbox: id})
	case clerk.SessionEnded:
		return m.service.RevokeSession(ctx, users.Revocation{Issuer: m.issuer, Subject: e.Session.UserID, SessionID: e.Session.ID}, id)
	}
	return false, nil
}

// Package users keeps what an API knows about its callers: one row per verified subject.
//
// Begin with [NewService] on a [Store], and [NewHandler] for the HTTP side.
//
// The surprise: nobody signs up. The row is made from the verified token the first time its subject
// is seen, in one transaction with the audit event that says so.
package users

import (
	"context"
	"errors"
	"time"
)

// User is one subject of one issuer.
type User struct {
	ID          string // ours: random, never reused
	Issuer      string
	Subject     string
	Email       string
	DisplayName string
	ImageURL    string
	Bio         string
	Locale      string // BCP 47
	Timezone    string // IANA
	Version     int64  // counts changes, from 1
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Claims are what a verified token says of its subject.
type Claims struct {
	Issuer, Subject string
	Email, Name     string
	ImageURL        string
	SessionID       string
	Actor           string // who acts in the subject's name, "" for itself
}

// Event is one entry of the append-only audit log.
type Event struct {
	ID     int64
	UserID string
	Kind   string // "user.created", "user.updated"
	Actor  string // subject that did it
	Fields []string
	At     time.Time
}

// Errors that callers branch on.
var (
	ErrNotFound    = errors.New("no such user")
	ErrConflict    = errors.New("the user has changed meanwhile")
	ErrUnavailable = errors.New("the store cannot be reached")
)

// Store keeps users and their audit log. Every method is one transaction: it happens whole or not
// at all, also when its context ends. Times come back in UTC with microseconds.
type Store interface {
	// Find returns the user of a subject, or ErrNotFound.
	Find(ctx context.Context, issuer, subject string) (User, error)
	// Create stores u and its event, and returns u. When the subject already has a row, that row
	// is returned and nothing is written: two first requests at once make one user and one event.
	Create(ctx context.Context, u User, e Event) (User, error)
	// Update stores u and its event if the stored version is u.Version-1, else ErrConflict; for an
	// id that does not exist, ErrNotFound.
	Update(ctx context.Context, u User, e Event) error
	// Events returns the newest n events of a user, newest first.
	Events(ctx context.Context, userID string, n int) ([]Event, error)
	// Ping takes a connection and runs a statement.
	Ping(ctx context.Context) error
}

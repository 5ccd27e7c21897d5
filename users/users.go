// Package users keeps what an API knows about its callers: one row per verified subject.
//
// Begin with [NewService] on a [Store], and [NewHandler] for the HTTP side.
//
// The surprise: nobody signs up. The row is made from the verified token the first time its subject
// is seen, in one transaction with the audit event that says so.
package users

import (
	"errors"
	"time"
)

// User is one subject of one issuer. A deleted one is a tombstone: its personal fields and its
// handle are empty, its ids, version, times and audit chain stay.
type User struct {
	ID          string // ours: random, never reused
	Issuer      string
	Subject     string
	Handle      string // the public name, unique, lower case; "" for none
	Status      Status
	Plan        string // decides the limit; "" for the one the token names
	Email       string
	DisplayName string
	ImageURL    string
	Bio         string
	Locale      string // BCP 47
	Timezone    string // IANA
	Version     int64  // counts changes, from 1; the ETag
	CreatedAt   time.Time
	UpdatedAt   time.Time
	// SourceUpdatedAt is the issuer's own time of what was last taken over from it by a webhook or a
	// reconciliation; zero for never.
	SourceUpdatedAt time.Time
	// Events and Head are the length and the newest hash of the audit chain; see [User.Extend].
	Events int64
	Head   string
}

// Status says whether a user may come in. The zero value is none of the three, and no store takes it.
type Status string

// The three statuses.
const (
	Active    Status = "active"
	Suspended Status = "suspended" // by an admin, until reinstated
	Deleted   Status = "deleted"   // for ever
)

// Subject names a caller: an id, and the issuer that gave it.
type Subject struct{ Issuer, Subject string }

// Claims are what a verified token says of its subject.
type Claims struct {
	Issuer, Subject string
	Email, Name     string
	ImageURL        string
	SessionID       string
	Actor           string // who acts in the subject's name, "" for itself
}

// Errors that callers branch on.
var (
	ErrNotFound    = errors.New("no such user")
	ErrConflict    = errors.New("the user has changed meanwhile")
	ErrHandleTaken = errors.New("the handle belongs to another user")
	ErrDeleted     = errors.New("the user was deleted")
	ErrSuspended   = errors.New("the user is suspended")
	ErrUnavailable = errors.New("the store cannot be reached")
	// ErrExhausted says that no connection came free in time; it is an ErrUnavailable too.
	ErrExhausted = exhausted{}
)

type exhausted struct{}

// Error implements error.
func (exhausted) Error() string { return "the store has no free connection" }

// Is makes errors.Is(ErrExhausted, ErrUnavailable) true.
func (exhausted) Is(target error) bool { return target == ErrUnavailable }

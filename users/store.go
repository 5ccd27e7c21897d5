package users

import (
	"context"
	"time"
)

// Store keeps users, their audit log, claims and revocations. It knows no rules: those are the
// [Service]'s. Times come back in UTC with microseconds. Errors of the engine (down, busy, read-only)
// are ErrUnavailable; one that waited in vain for a connection is ErrExhausted.
type Store interface {
	Reader
	Feed
	Audit
	// Tx runs f in a transaction: all that f did through its Tx happens, or, when f or the commit
	// fails or ctx ends, nothing does. f may run again when the engine asks for it, so it must start
	// from nothing each time and have no effect outside. f's error comes back as it is.
	Tx(ctx context.Context, f func(Tx) error) error
	// Sweep removes up to n claims and up to n revocations that have expired at now, and returns how
	// many it removed.
	Sweep(ctx context.Context, now time.Time, n int) (int, error)
	// Ping takes a connection and runs a statement.
	Ping(ctx context.Context) error
}

// Reader answers outside of transactions, each method from one moment of the store.
type Reader interface {
	// Find returns the user of a subject in one statement without a lock, or ErrNotFound.
	Find(ctx context.Context, issuer, subject string) (User, error)
	// FindHandle returns the user who has the handle, or ErrNotFound, also for "".
	FindHandle(ctx context.Context, handle string) (User, error)
	// List returns a page of users, newest first, each with its last three events, in at most two
	// statements whatever the size of the page.
	List(ctx context.Context, q Query) ([]Listed, error)
	// Events returns up to n events of a user whose Seq is above after, oldest first.
	Events(ctx context.Context, userID string, after int64, n int) ([]Event, error)
	// RevokedSessions returns up to n revocations of a subject's sessions, oldest first.
	RevokedSessions(ctx context.Context, issuer, subject string, n int) ([]Revocation, error)
}

// Feed tells the doors of all instances what has changed about who may come in. Both methods return up
// to n rows after a position, in ascending order of (ChangedAt, ID) and of (At, SessionID). These
// times are the engine's own, given by the store when it writes, so that an instance whose
// clock is off neither hides a change nor makes others overlooked.
type Feed interface {
	// Standings returns the users whose Status or Plan was ever changed: those stored with another than
	// Active and "", and those that Update gave another one.
	Standings(ctx context.Context, after Position, n int) ([]Standing, error)
	// Revocations returns the revoked sessions, those that have expired already too.
	Revocations(ctx context.Context, after Position, n int) ([]Revocation, error)
}

// Audit reads the whole log for verification.
type Audit interface {
	// LastEvent returns the highest event id below which no event can appear any more: an
	// engine that gives ids before it commits waits for the writers under way. 0 for an empty log.
	LastEvent(ctx context.Context) (int64, error)
	// Chains returns up to n events of all users after the event (userID, seq), in ascending
	// order of (UserID, Seq) by bytes.
	Chains(ctx context.Context, userID string, seq int64, n int) ([]Event, error)
	// Heads returns up to n users' heads after the id, in ascending order of UserID by bytes.
	Heads(ctx context.Context, after string, n int) ([]Head, error)
}

// Tx is a transaction. After an error of one of its methods, ErrNotFound aside, it can only end: f
// must return an error. What it has read stays as it is until the end.
type Tx interface {
	// Find returns the user of a subject and locks the row until the end, or ErrNotFound.
	Find(ctx context.Context, issuer, subject string) (User, error)
	// Get returns the user of an id and locks the row until the end, or ErrNotFound.
	Get(ctx context.Context, id string) (User, error)
	// Insert stores u, or does nothing and returns false when the subject has a row already.
	// ErrHandleTaken when the handle is another user's.
	Insert(ctx context.Context, u User) (inserted bool, err error)
	// Update stores all of u, but for Issuer, Subject and CreatedAt, in the row of its ID; ErrNotFound
	// when there is none, ErrHandleTaken when the handle is another user's.
	Update(ctx context.Context, u User) error
	// Append stores an event of a user that is stored; its ID is ignored.
	Append(ctx context.Context, e Event) error
	// Claim takes (Scope, Key) if nobody has, or if the claim on it has expired at c.At, and
	// returns true. Otherwise it returns the claim that is there, with its Result. A second claimer
	// waits until the first's transaction has ended.
	Claim(ctx context.Context, c Claim) (prior Claim, claimed bool, err error)
	// Settle stores the Result of a claim taken in this transaction.
	Settle(ctx context.Context, c Claim) error
	// Forget removes all claims of a scope.
	Forget(ctx context.Context, scope string) error
	// Revoke stores a revocation. A session that is revoked already keeps the later Until, and
	// gets the new At.
	Revoke(ctx context.Context, r Revocation) error
}

// Position is a place in an order by time, then id; the zero one is before all in an ascending order,
// and means "from the start" in a descending one.
type Position struct {
	At time.Time
	ID string
}

// Query asks for a page of users in descending order of (CreatedAt, ID).
type Query struct {
	// Status, unless "", is what the users must have.
	Status Status
	// Match, unless "", is the whole id, subject, handle or e-mail address (case aside) of the users.
	Match string
	// After is the last user of the page before.
	After Position
	// Limit is the size of the page, at least 1.
	Limit int
}

// Listed is a user in a list, with the last three events, newest first.
type Listed struct {
	User
	Recent []Event
}

// Standing is what decides how a user is met at the door.
type Standing struct {
	UserID  string
	Subject Subject
	Status  Status
	Plan    string
	Version int64 // of the user: the higher one is the newer
	// ChangedAt is when Status or Plan last changed, in the engine's time.
	ChangedAt time.Time
}

// Revocation ends a session before its tokens do.
type Revocation struct {
	Issuer, SessionID string
	// Subject of the session; "" if it is not known.
	Subject string
	// Until is when the last token of the session has expired, and the revocation may be forgotten.
	Until time.Time
	// At is when it was stored, in the engine's time; the store sets it.
	At time.Time
}

// Claim is a key that only one may use: an idempotency key of a caller, or the id of a webhook message.
type Claim struct {
	Scope, Key string
	// Fingerprint tells what the key was used for.
	Fingerprint []byte
	// Result is the outcome, to be given again to who comes with the same key.
	Result      []byte
	At, Expires time.Time
}

// Head is the end of a user's audit chain, as the user's row has it.
type Head struct {
	UserID string
	Events int64
	Hash   string
}

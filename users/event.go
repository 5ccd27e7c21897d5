package users

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// Kind says what happened.
type Kind string

// The kinds of events.
const (
	UserCreated     Kind = "user.created"
	UserUpdated     Kind = "user.updated"
	UserDeleted     Kind = "user.deleted"
	UserSuspended   Kind = "user.suspended"
	UserReinstated  Kind = "user.reinstated"
	UserPlanChanged Kind = "user.plan_changed"
	UserSynced      Kind = "user.synced" // taken over from the issuer
	SessionRevoked  Kind = "session.revoked"
)

// Event is one entry of the append-only audit log. It outlives an erased user, so it holds no
// personal data but the issuer's opaque ids: it names fields, never their values.
type Event struct {
	ID     int64 // ascending over all users; the store gives it
	UserID string
	Seq    int64 // the place in the user's chain, from 1
	Kind   Kind
	Actor  string   // subject that did it
	Fields []string // names of the fields, or the id of the session; no spaces in them
	At     time.Time
	Prev   string // Hash of the event before, "" for the first
	Hash   string
}

// Sum is what Hash must be: the SHA-256, in hex, over every field but ID and Hash, each with its
// length before it, so that no two events have one encoding.
func (e Event) Sum() string {
	b := make([]byte, 0, 512)
	b = appendText(b, "gantry audit 1")
	b = appendText(b, e.UserID)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Seq))
	b = appendText(b, string(e.Kind))
	b = appendText(b, e.Actor)
	b = binary.BigEndian.AppendUint64(b, uint64(len(e.Fields)))
	for _, f := range e.Fields {
		b = appendText(b, f)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(e.At.UnixMicro()))
	b = appendText(b, e.Prev)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
}

// Extend makes e the next event of u's chain, and u's head e. There is a chain per user, so that the
// writers of different users never wait for each other; the head in the user's row shows when the
// end of the chain was cut off. Both must be stored in one transaction.
func (u *User) Extend(e Event) Event {
	e.UserID, e.Seq, e.Prev = u.ID, u.Events+1, u.Head
	e.Hash = e.Sum()
	u.Events, u.Head = e.Seq, e.Hash
	return e
}

package clerk

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Event is one report of Clerk's, as far as anything here is done about it.
type Event struct {
	// Type is Clerk's name for it, for example "user.created".
	Type string
	// At is when it happened, by Clerk's clock.
	At time.Time
	// InstanceID is the Clerk instance it comes from, "ins_...".
	InstanceID string
	// Kind says which of the following is set. The zero value is Unknown: nothing is to be done.
	Kind EventKind
	// User is set when Kind is UserChanged. For UserDeleted only its ID is.
	User User
	// Session is set when Kind is SessionEnded.
	Session Session
}

// EventKind is what an event asks for.
type EventKind int

// The kinds.
const (
	Unknown      EventKind = iota // a type that is not ours: accepted, and counted
	UserChanged                   // user.created, user.updated
	UserDeleted                   // user.deleted
	SessionEnded                  // session.ended, session.removed, session.revoked
)

var eventKinds = map[string]EventKind{
	"user.created": UserChanged, "user.updated": UserChanged, "user.deleted": UserDeleted,
	"session.ended": SessionEnded, "session.removed": SessionEnded, "session.revoked": SessionEnded,
}

// User is the little that is kept of a Clerk user. The rest of what Clerk sends, among it telephone
// numbers and private metadata, is not read.
type User struct {
	ID string
	// Email is the primary address if it is verified, else "".
	Email string
	// Name is the first and last name, or else the user name, or "".
	Name     string
	Username string
	ImageURL string
	// CreatedAt and UpdatedAt have milliseconds.
	CreatedAt, UpdatedAt time.Time
}

// Session is a session that has ended: its tokens are worth nothing any more.
type Session struct{ ID, UserID string }

var errEvent = errors.New("not an event of Clerk's")

// ParseEvent reads the body of a webhook (https://clerk.com/docs/guides/development/webhooks/overview).
// The text of an error holds nothing of the body. A type it does not know is no error.
func ParseEvent(body []byte) (Event, error) {
	var w struct {
		Type       string          `json:"type"`
		Timestamp  int64           `json:"timestamp"`
		InstanceID string          `json:"instance_id"`
		Data       json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &w); err != nil || w.Type == "" {
		return Event{}, errEvent
	}
	e := Event{Type: w.Type, At: millis(w.Timestamp), InstanceID: w.InstanceID, Kind: eventKinds[w.Type]}
	var ok bool
	switch e.Kind {
	case UserChanged:
		e.User, ok = parseUser(w.Data)
		ok = ok && !e.User.UpdatedAt.IsZero()
	case UserDeleted:
		e.User, ok = parseUser(w.Data)
		e.User = User{ID: e.User.ID}
		ok = ok && !e.At.IsZero() // a deleted user has no updated_at; the event's time stands in for it
	case SessionEnded:
		e.Session, ok = parseSession(w.Data)
	default:
		return e, nil
	}
	if !ok {
		return Event{}, fmt.Errorf("data is incomplete: %w", errEvent)
	}
	return e, nil
}

// wireUser is a user as webhooks and the Backend API write it.
type wireUser struct {
	ID        string  `json:"id"`
	FirstName *string `json:"first_name"`
	LastName  *string `json:"last_name"`
	Username  *string `json:"username"`
	ImageURL  string  `json:"image_url"`
	CreatedAt int64   `json:"created_at"`
	UpdatedAt int64   `json:"updated_at"`
	PrimaryID *string `json:"primary_email_address_id"`
	Emails    []struct {
		ID           string `json:"id"`
		Address      string `json:"email_address"`
		Verification *struct {
			Status string `json:"status"`
		} `json:"verification"`
	} `json:"email_addresses"`
}

func parseUser(text []byte) (User, bool) {
	var w wireUser
	if err := json.Unmarshal(text, &w); err != nil || !isID(w.ID) {
		return User{}, false
	}
	return w.user(), true
}

func (w wireUser) user() User {
	return User{
		ID: w.ID, Email: w.email(), Name: w.name(), Username: value(w.Username), ImageURL: w.ImageURL,
		CreatedAt: millis(w.CreatedAt), UpdatedAt: millis(w.UpdatedAt),
	}
}

// email returns the primary address, but only a verified one: anybody can claim any address.
func (w wireUser) email() string {
	for _, e := range w.Emails {
		if e.ID == value(w.PrimaryID) && e.Verification != nil && e.Verification.Status == "verified" {
			return e.Address
		}
	}
	return ""
}

func (w wireUser) name() string {
	name := strings.TrimSpace(value(w.FirstName) + " " + value(w.LastName))
	if name == "" {
		return value(w.Username)
	}
	return name
}

func parseSession(text []byte) (Session, bool) {
	var w struct {
		ID     string `json:"id"`
		UserID string `json:"user_id"`
	}
	if err := json.Unmarshal(text, &w); err != nil || !isID(w.ID) || !isID(w.UserID) {
		return Session{}, false
	}
	return Session{ID: w.ID, UserID: w.UserID}, true
}

// isID accepts Clerk's ids, a prefix and letters and digits, and whatever imported ids look like as
// long as they need no care anywhere.
func isID(id string) bool {
	for _, c := range id {
		if c != '_' && c != '-' && !isAlphanumeric(c) {
			return false
		}
	}
	return id != "" && id[0] != '-' && len(id) <= 200
}

// millis is zero for what cannot be a time of Clerk's: before 1970 or after 9999.
func millis(ms int64) time.Time {
	if ms <= 0 || ms > 253_402_300_799_999 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

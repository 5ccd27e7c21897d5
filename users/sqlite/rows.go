package sqlite

import (
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite/internal/db"
)

// micros is how a time is stored: microseconds since 1970, and 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// oneUser turns the outcome of a query for one row into ours.
func oneUser(r db.User, err error) (users.User, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return users.User{}, users.ErrNotFound
	}
	if err != nil {
		return users.User{}, wrap(err)
	}
	return userOf(r), nil
}

func userOf(r db.User) users.User {
	return users.User{
		ID: r.ID, Issuer: r.Issuer, Subject: r.Subject, Handle: r.Handle, Status: users.Status(r.Status), Plan: r.Plan,
		Email: r.Email, DisplayName: r.DisplayName, ImageURL: r.ImageURL, Bio: r.Bio, Locale: r.Locale, Timezone: r.Timezone,
		Version: r.Version, CreatedAt: timeOf(r.CreatedAt), UpdatedAt: timeOf(r.UpdatedAt),
		SourceUpdatedAt: timeOf(r.SourceUpdatedAt), Events: r.Events, Head: r.Head,
	}
}

func eventOf(r db.AuditEvent) users.Event {
	return users.Event{
		ID: r.ID, UserID: r.UserID, Seq: r.Seq, Kind: users.Kind(r.Kind), Actor: r.Actor,
		Fields: strings.Fields(r.Fields), At: timeOf(r.At), Prev: r.Prev, Hash: r.Hash,
	}
}

func standingOf(r db.StandingsRow) users.Standing {
	return users.Standing{
		UserID: r.ID, Subject: users.Subject{Issuer: r.Issuer, Subject: r.Subject}, Status: users.Status(r.Status),
		Plan: r.Plan, Version: r.Version, ChangedAt: timeOf(r.AccessChangedAt),
	}
}

func revocationOf(r db.Revocation) users.Revocation {
	return users.Revocation{Issuer: r.Issuer, SessionID: r.SessionID, Subject: r.Subject, Until: timeOf(r.Until), At: timeOf(r.At)}
}

func headOf(r db.HeadsRow) users.Head {
	return users.Head{UserID: r.ID, Events: r.Events, Hash: r.Head}
}

// each turns the rows of a query into ours.
func each[R, T any](rows []R, err error, turn func(R) T) ([]T, error) {
	if err != nil {
		return nil, wrap(err)
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = turn(r)
	}
	return out, nil
}

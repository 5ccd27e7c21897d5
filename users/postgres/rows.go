package postgres

import (
	"time"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres/internal/db"
)

func each[A, B any](rows []A, f func(A) B) []B {
	var out []B
	for _, row := range rows {
		out = append(out, f(row))
	}
	return out
}

func user(r db.User) users.User {
	return users.User{
		ID: r.ID, Issuer: r.Issuer, Subject: r.Subject, Handle: r.Handle, Status: users.Status(r.Status), Plan: r.Plan,
		Email: r.Email, DisplayName: r.DisplayName, ImageURL: r.ImageURL, Bio: r.Bio, Locale: r.Locale, Timezone: r.Timezone,
		Version: r.Version, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), SourceUpdatedAt: orNever(r.SourceUpdatedAt),
		Events: r.Events, Head: r.Head,
	}
}

func event(r db.AuditEvent) users.Event {
	return users.Event{
		ID: r.ID, UserID: r.UserID, Seq: r.Seq, Kind: users.Kind(r.Kind), Actor: r.Actor, Fields: r.Fields,
		At: r.At.UTC(), Prev: r.Prev, Hash: r.Hash,
	}
}

func revocation(r db.Revocation) users.Revocation {
	return users.Revocation{Issuer: r.Issuer, SessionID: r.SessionID, Subject: r.Subject, Until: r.Until.UTC(), At: r.At.UTC()}
}

func standing(r db.StandingsRow) users.Standing {
	return users.Standing{
		UserID: r.ID, Subject: users.Subject{Issuer: r.Issuer, Subject: r.Subject}, Status: users.Status(r.Status), Plan: r.Plan,
		Version: r.Version, ChangedAt: orNever(r.AccessChangedAt),
	}
}

func claim(r db.Claim) users.Claim {
	return users.Claim{
		Scope: r.Scope, Key: r.Key, Fingerprint: r.Fingerprint, Result: r.Result, At: r.At.UTC(), Expires: r.ExpiresAt.UTC(),
	}
}

// orNever and orNull translate between the zero time and null.
func orNever(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

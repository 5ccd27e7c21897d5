package sqlite

import (
	"context"
	"math"
	"time"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite/internal/db"
)

// Find implements users.Reader.
func (s *Store) Find(ctx context.Context, issuer, subject string) (users.User, error) {
	return oneUser(s.reads.FindUser(ctx, db.FindUserParams{Issuer: issuer, Subject: subject}))
}

// FindHandle implements users.Reader.
func (s *Store) FindHandle(ctx context.Context, handle string) (users.User, error) {
	return oneUser(s.reads.FindHandle(ctx, handle))
}

// List implements users.Reader: one statement for the page, one for all its events.
func (s *Store) List(ctx context.Context, q users.Query) ([]users.Listed, error) {
	rows, err := s.page(ctx, q)
	if err != nil || len(rows) == 0 {
		return nil, wrap(err)
	}
	ids := make([]string, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	recent := make(map[string][]users.Event, len(rows))
	events, err := s.reads.RecentEvents(ctx, ids)
	if err != nil {
		return nil, wrap(err)
	}
	for _, e := range events {
		recent[e.UserID] = append(recent[e.UserID], eventOf(e))
	}
	return each(rows, nil, func(r db.User) users.Listed { return users.Listed{User: userOf(r), Recent: recent[r.ID]} })
}

func (s *Store) page(ctx context.Context, q users.Query) ([]db.User, error) {
	at, n := int64(math.MaxInt64), int64(q.Limit)
	if q.After != (users.Position{}) {
		at = q.After.At.UnixMicro()
	}
	switch {
	case q.Match != "":
		return s.reads.MatchUsers(ctx, db.MatchUsersParams{Match: q.Match, Status: string(q.Status), At: at, ID: q.After.ID, N: n})
	case q.Status != "":
		return s.reads.ListUsersWithStatus(ctx, db.ListUsersWithStatusParams{Status: string(q.Status), At: at, ID: q.After.ID, N: n})
	default:
		return s.reads.ListUsers(ctx, db.ListUsersParams{At: at, ID: q.After.ID, N: n})
	}
}

// Events implements users.Reader.
func (s *Store) Events(ctx context.Context, userID string, after int64, n int) ([]users.Event, error) {
	rows, err := s.reads.Events(ctx, db.EventsParams{UserID: userID, Seq: after, Limit: int64(n)})
	return each(rows, err, eventOf)
}

// RevokedSessions implements users.Reader.
func (s *Store) RevokedSessions(ctx context.Context, issuer, subject string, n int) ([]users.Revocation, error) {
	rows, err := s.reads.RevokedSessions(ctx, db.RevokedSessionsParams{Issuer: issuer, Subject: subject, Limit: int64(n)})
	return each(rows, err, revocationOf)
}

// Standings implements users.Feed.
func (s *Store) Standings(ctx context.Context, after users.Position, n int) ([]users.Standing, error) {
	rows, err := s.reads.Standings(ctx, db.StandingsParams{At: micros(after.At), ID: after.ID, N: int64(n)})
	return each(rows, err, standingOf)
}

// Revocations implements users.Feed.
func (s *Store) Revocations(ctx context.Context, after users.Position, n int) ([]users.Revocation, error) {
	rows, err := s.reads.Revocations(ctx, db.RevocationsParams{At: micros(after.At), ID: after.ID, N: int64(n)})
	return each(rows, err, revocationOf)
}

// LastEvent implements users.Audit. SQLite has one writer, which gives ids in the order it commits.
func (s *Store) LastEvent(ctx context.Context) (int64, error) {
	id, err := s.reads.LastEvent(ctx)
	return id, wrap(err)
}

// Chains implements users.Audit.
func (s *Store) Chains(ctx context.Context, userID string, seq int64, n int) ([]users.Event, error) {
	rows, err := s.reads.Chains(ctx, db.ChainsParams{UserID: userID, Seq: seq, N: int64(n)})
	return each(rows, err, eventOf)
}

// Heads implements users.Audit.
func (s *Store) Heads(ctx context.Context, after string, n int) ([]users.Head, error) {
	rows, err := s.reads.Heads(ctx, db.HeadsParams{ID: after, Limit: int64(n)})
	return each(rows, err, headOf)
}

// Sweep implements users.Store.
func (s *Store) Sweep(ctx context.Context, now time.Time, n int) (int, error) {
	q := db.New(traced(s.write, s.trace))
	claims, err := q.SweepClaims(ctx, db.SweepClaimsParams{ExpiresAt: micros(now), Limit: int64(n)})
	if err != nil {
		return 0, wrap(err)
	}
	revocations, err := q.SweepRevocations(ctx, db.SweepRevocationsParams{Until: micros(now), Limit: int64(n)})
	return int(claims + revocations), wrap(err)
}

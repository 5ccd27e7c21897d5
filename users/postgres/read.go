package postgres

import (
	"context"
	"time"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres/internal/db"
)

// read runs f outside of a transaction. It may run again: reading twice does no harm.
func (s *Store) read(ctx context.Context, f func(*pipe) error) error {
	return wrap(ctx, s.attempt(ctx, f))
}

// one is a read of one statement.
func one[T any](ctx context.Context, s *Store, f func(*db.Queries) (T, error)) (result T, err error) {
	err = s.read(ctx, func(p *pipe) (err error) {
		result, err = f(db.New(p))
		return err
	})
	return result, err
}

// Find implements users.Reader.
func (s *Store) Find(ctx context.Context, issuer, subject string) (users.User, error) {
	row, err := one(ctx, s, func(q *db.Queries) (db.User, error) {
		return q.FindUser(ctx, db.FindUserParams{Issuer: issuer, Subject: subject})
	})
	return user(row), err
}

// FindHandle implements users.Reader.
func (s *Store) FindHandle(ctx context.Context, handle string) (users.User, error) {
	row, err := one(ctx, s, func(q *db.Queries) (db.User, error) { return q.FindHandle(ctx, handle) })
	return user(row), err
}

// endOfTime is after every user, for a list from its start.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// List implements users.Reader. The second statement asks for the events up to what the first one read,
// so that both speak of one moment.
func (s *Store) List(ctx context.Context, q users.Query) (page []users.Listed, err error) {
	if q.After.At.IsZero() {
		q.After = users.Position{At: endOfTime}
	}
	err = s.read(ctx, func(p *pipe) error {
		rows, err := list(ctx, db.New(p), q)
		if err != nil || len(rows) == 0 {
			page = nil
			return err
		}
		page, err = withEvents(ctx, db.New(p), rows)
		return err
	})
	return page, err
}

// list asks in the words that have an index for the question.
func list(ctx context.Context, d *db.Queries, q users.Query) ([]db.User, error) {
	at, id, n, status := q.After.At, q.After.ID, int64(q.Limit), string(q.Status)
	switch {
	case q.Match != "":
		return d.MatchUsers(ctx, db.MatchUsersParams{Match: q.Match, Status: status, At: at, ID: id, N: n})
	case q.Status != "":
		return d.ListUsersWithStatus(ctx, db.ListUsersWithStatusParams{Status: status, At: at, ID: id, N: n})
	}
	return d.ListUsers(ctx, db.ListUsersParams{At: at, ID: id, N: n})
}

func withEvents(ctx context.Context, d *db.Queries, rows []db.User) ([]users.Listed, error) {
	var which db.RecentEventsParams
	place := make(map[string]int, len(rows))
	page := make([]users.Listed, len(rows))
	for i, row := range rows {
		page[i].User = user(row)
		place[row.ID] = i
		which.Ids, which.Counts = append(which.Ids, row.ID), append(which.Counts, row.Events)
	}
	recent, err := d.RecentEvents(ctx, which)
	for _, e := range recent {
		i := place[e.UserID]
		page[i].Recent = append(page[i].Recent, event(e))
	}
	return page, err
}

// Events implements users.Reader.
func (s *Store) Events(ctx context.Context, userID string, after int64, n int) ([]users.Event, error) {
	rows, err := one(ctx, s, func(q *db.Queries) ([]db.AuditEvent, error) {
		return q.Events(ctx, db.EventsParams{UserID: userID, After: after, N: int64(n)})
	})
	return each(rows, event), err
}

// RevokedSessions implements users.Reader.
func (s *Store) RevokedSessions(ctx context.Context, issuer, subject string, n int) ([]users.Revocation, error) {
	rows, err := one(ctx, s, func(q *db.Queries) ([]db.Revocation, error) {
		return q.RevokedSessions(ctx, db.RevokedSessionsParams{Issuer: issuer, Subject: subject, N: int64(n)})
	})
	return each(rows, revocation), err
}

// Standings implements users.Feed.
func (s *Store) Standings(ctx context.Context, after users.Position, n int) ([]users.Standing, error) {
	rows, err := one(ctx, s, func(q *db.Queries) ([]db.StandingsRow, error) {
		return q.Standings(ctx, db.StandingsParams{At: after.At, After: after.ID, N: int64(n)})
	})
	return each(rows, standing), err
}

// Revocations implements users.Feed.
func (s *Store) Revocations(ctx context.Context, after users.Position, n int) ([]users.Revocation, error) {
	rows, err := one(ctx, s, func(q *db.Queries) ([]db.Revocation, error) {
		return q.Revocations(ctx, db.RevocationsParams{At: after.At, After: after.ID, N: int64(n)})
	})
	return each(rows, revocation), err
}

// LastEvent implements users.Audit. Ids are given before the commit: for a moment it keeps writers out,
// so that none who has a lower id is still on the way.
func (s *Store) LastEvent(ctx context.Context) (last int64, err error) {
	err = s.read(ctx, func(p *pipe) error {
		p.begin()
		if err := db.New(deferred{p}).HoldAppends(ctx); err != nil {
			return err
		}
		if last, err = db.New(p).LastEvent(ctx); err != nil {
			return err
		}
		return p.commit(ctx)
	})
	return last, err
}

// Chains implements users.Audit.
func (s *Store) Chains(ctx context.Context, userID string, seq int64, n int) ([]users.Event, error) {
	rows, err := one(ctx, s, func(q *db.Queries) ([]db.AuditEvent, error) {
		return q.Chains(ctx, db.ChainsParams{UserID: userID, Seq: seq, N: int64(n)})
	})
	return each(rows, event), err
}

// Heads implements users.Audit.
func (s *Store) Heads(ctx context.Context, after string, n int) ([]users.Head, error) {
	rows, err := one(ctx, s, func(q *db.Queries) ([]db.HeadsRow, error) {
		return q.Heads(ctx, db.HeadsParams{After: after, N: int64(n)})
	})
	return each(rows, func(r db.HeadsRow) users.Head { return users.Head{UserID: r.ID, Events: r.Events, Hash: r.Head} }), err
}

// Sweep implements users.Store.
func (s *Store) Sweep(ctx context.Context, now time.Time, n int) (int, error) {
	claims, err := one(ctx, s, func(q *db.Queries) (int64, error) {
		return q.SweepClaims(ctx, db.SweepClaimsParams{At: now, N: int64(n)})
	})
	if err != nil {
		return 0, err
	}
	revocations, err := one(ctx, s, func(q *db.Queries) (int64, error) {
		return q.SweepRevocations(ctx, db.SweepRevocationsParams{At: now, N: int64(n)})
	})
	return int(claims + revocations), err
}

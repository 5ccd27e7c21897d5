// Package postgres keeps the journal of launches in the Postgres database that many instances share.
//
// Begin with [New], on the pool of the store that is connected already.
//
// The surprise: a commit of the journal waits for the disk even where the database is set not to
// (synchronous_commit=off); what a replica must have seen by then is left as it is set.
package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gantryhq/gantry/rollout/fleet"
	"github.com/gantryhq/gantry/rollout/postgres/internal/db"
)

// Migrations are the files of this package's tables.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Versions is the table in which migrations are noted, Schema the number of the newest.
const (
	Versions = "rollout_db_version"
	Schema   = 1
)

// Store is a fleet.Store on a pool of connections.
type Store struct {
	pool   *pgxpool.Pool
	pooler bool
	q      *db.Queries
}

var _ fleet.Store = (*Store)(nil)

// New returns a store on a pool whose tables are at [Schema]. The pool stays the caller's to close.
// pooler is that its connections lead to a pooler in transaction mode.
func New(pool *pgxpool.Pool, pooler bool) *Store {
	return &Store{pool: pool, pooler: pooler, q: db.New(pool)}
}

// again does something once more when its connection turns out to be broken, as all are after a restart of the server.
// The others are dropped first, so that the next one is new.
func (s *Store) again(ctx context.Context, do func() error) error {
	err := do()
	if err == nil || ctx.Err() != nil || !broken(err) {
		return err
	}
	s.pool.Reset()
	return do()
}

// broken tells a connection that was lost, with nothing done, from one that could not be made, and from what the
// server says.
func broken(err error) bool {
	if errors.Is(err, errUnknown) || errors.Is(err, fleet.ErrConflict) {
		return false
	}
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Code == "57P01" // the server goes away, and says so to whoever is connected
	}
	_, refused := errors.AsType[*pgconn.ConnectError](err)
	return !refused
}

// Read implements fleet.Store.
func (s *Store) Read(ctx context.Context, after fleet.Place) (page fleet.Page, err error) {
	err = s.again(ctx, func() (err error) { page, err = s.read(ctx, after); return err })
	return page, err
}

func (s *Store) read(ctx context.Context, after fleet.Place) (fleet.Page, error) {
	end, err := s.q.Newest(ctx)
	if err != nil {
		return fleet.Page{}, err
	}
	page := fleet.Page{Newest: fleet.Place{Launch: end.Launch, Revision: uint64(end.Revision)}, Now: end.Now.UTC()}
	if page.Newest == after {
		return page, nil
	}
	rows, err := s.q.Lines(ctx, db.LinesParams{Launch: after.Launch, After: int64(after.Revision), N: fleet.PageSize})
	page.Lines = lines(rows)
	return page, err
}

func lines(rows []db.RolloutJournal) []fleet.Line {
	all := make([]fleet.Line, len(rows))
	for i, r := range rows {
		all[i] = fleet.Line{Place: fleet.Place{Launch: r.Launch, Revision: uint64(r.Revision)}, Base: r.Base, Text: r.Line}
	}
	return all
}

// writers is the advisory lock that writers of the journal queue for, and channel where they tell of it:
// "rollout" in ASCII.
const (
	writers = 0x726f6c6c6f7574
	channel = "gantry_rollout"
)

// errUnknown is a commit that has had no answer.
var errUnknown = errors.New("the line may be written or not")

// Append implements fleet.Store.
func (s *Store) Append(ctx context.Context, after fleet.Place, l fleet.Line) error {
	return s.again(ctx, func() error {
		written := false
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			err := write(ctx, db.New(tx), after, l)
			written = err == nil
			return err
		})
		if written && err != nil {
			return fmt.Errorf("%w: %w", errUnknown, err)
		}
		return err
	})
}

func write(ctx context.Context, q *db.Queries, after fleet.Place, l fleet.Line) error {
	if err := q.Prepare(ctx, writers); err != nil {
		return err
	}
	end, err := q.Newest(ctx)
	if err != nil {
		return err
	}
	if end.Launch != after.Launch || uint64(end.Revision) != after.Revision {
		return fleet.ErrConflict
	}
	if err := q.AppendLine(ctx, db.AppendLineParams{Launch: l.Launch, Revision: int64(l.Revision), Base: l.Base, Line: l.Text}); err != nil {
		return err
	}
	if l.Revision == 1 {
		if err := forget(ctx, q, l.Launch); err != nil {
			return err
		}
	}
	return q.Notify(ctx, channel)
}

func forget(ctx context.Context, q *db.Queries, launch int64) error {
	if err := q.ForgetLaunches(ctx, launch-fleet.Kept); err != nil {
		return err
	}
	return q.ForgetShares(ctx, time.Hour.Seconds())
}

// Ends implements fleet.Store.
func (s *Store) Ends(ctx context.Context, n int) (ends []fleet.Line, err error) {
	err = s.again(ctx, func() error {
		rows, err := s.q.Ends(ctx, int64(n))
		ends = lines(rows)
		return err
	})
	return ends, err
}

// Hold implements fleet.Store.
func (s *Store) Hold(ctx context.Context, holder string, length time.Duration) (current string, err error) {
	err = s.again(ctx, func() (err error) {
		if length > 0 {
			err = s.q.Hold(ctx, db.HoldParams{Holder: holder, Length: length.Seconds()})
		} else {
			err = s.q.Release(ctx, holder)
		}
		if err != nil {
			return err
		}
		holders, err := s.q.Holder(ctx)
		if len(holders) > 0 {
			current = holders[0]
		}
		return err
	})
	return current, err
}

// Publish implements fleet.Store.
func (s *Store) Publish(ctx context.Context, instance, body string) error {
	return s.again(ctx, func() error { return s.q.Publish(ctx, db.PublishParams{Instance: instance, Body: body}) })
}

// Published implements fleet.Store.
func (s *Store) Published(ctx context.Context) (all []fleet.Notice, err error) {
	err = s.again(ctx, func() error {
		rows, err := s.q.Shares(ctx, fleet.MaxInstances)
		all = make([]fleet.Notice, len(rows))
		for i, r := range rows {
			all[i] = fleet.Notice{Instance: r.Instance, Body: r.Body, Age: time.Duration(r.Age) * time.Microsecond}
		}
		return err
	})
	return all, err
}

// Watch implements fleet.Store. It listens on a connection of its own, so that the pool is never short of
// one; a pooler would give the connection to somebody else, and nothing is heard there.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	if s.pooler {
		<-ctx.Done()
		return ctx.Err()
	}
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is lost with it
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	for {
		wake() // at first for what came before the LISTEN
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

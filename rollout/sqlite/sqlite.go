// Package sqlite keeps the journal of launches in the SQLite file of a single machine.
//
// Begin with [New], on the pools of the store that has the file open already.
//
// The surprise: counts are written as durably as decisions. The file's one writer waits for the disk
// at each commit (synchronous=FULL), which in a launch costs one more wait a second; a second
// connection that does not wait would have to queue for the same lock.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"time"

	"github.com/gantryhq/gantry/rollout/fleet"
	"github.com/gantryhq/gantry/rollout/sqlite/internal/db"
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

// Store is a fleet.Store on one file. Several processes of one machine may share it.
type Store struct {
	write *sql.DB
	read  *db.Queries
}

var _ fleet.Store = (*Store)(nil)

// New returns a store on pools whose tables are at [Schema]. Transactions on write must be immediate
// (_txlock), and commits on it durable. The pools stay the caller's to close.
func New(write, read *sql.DB) *Store { return &Store{write: write, read: db.New(read)} }

// Read implements fleet.Store.
func (s *Store) Read(ctx context.Context, after fleet.Place) (fleet.Page, error) {
	end, err := s.read.Newest(ctx)
	if err != nil {
		return fleet.Page{}, err
	}
	page := fleet.Page{Newest: fleet.Place{Launch: end.Launch, Revision: uint64(end.Revision)}, Now: time.UnixMicro(end.Now).UTC()}
	if page.Newest == after {
		return page, nil
	}
	rows, err := s.read.Lines(ctx, db.LinesParams{Launch: after.Launch, Revision: int64(after.Revision), Limit: fleet.PageSize})
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

// Append implements fleet.Store. The file has one writer at a time, so what is read in the transaction
// holds until its end.
func (s *Store) Append(ctx context.Context, after fleet.Place, l fleet.Line) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to undo
	q := db.New(tx)
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
		if err := q.ForgetLaunches(ctx, l.Launch-fleet.Kept); err != nil {
			return err
		}
		if err := q.ForgetShares(ctx, time.Hour.Microseconds()); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Ends implements fleet.Store.
func (s *Store) Ends(ctx context.Context, n int) ([]fleet.Line, error) {
	rows, err := s.read.Ends(ctx, int64(n))
	return lines(rows), err
}

// Hold implements fleet.Store.
func (s *Store) Hold(ctx context.Context, holder string, length time.Duration) (string, error) {
	q := db.New(s.write)
	var err error
	if length > 0 {
		err = q.Hold(ctx, db.HoldParams{Holder: holder, Length: length.Microseconds()})
	} else {
		err = q.Release(ctx, holder)
	}
	if err != nil {
		return "", err
	}
	holders, err := q.Holder(ctx)
	if err != nil || len(holders) == 0 {
		return "", err
	}
	return holders[0], nil
}

// Publish implements fleet.Store.
func (s *Store) Publish(ctx context.Context, instance, body string) error {
	return db.New(s.write).Publish(ctx, db.PublishParams{Instance: instance, Body: body})
}

// Published implements fleet.Store.
func (s *Store) Published(ctx context.Context) ([]fleet.Notice, error) {
	rows, err := s.read.Shares(ctx, fleet.MaxInstances)
	all := make([]fleet.Notice, len(rows))
	for i, r := range rows {
		all[i] = fleet.Notice{Instance: r.Instance, Body: r.Body, Age: time.Duration(r.Age) * time.Microsecond}
	}
	return all, err
}

// pace is how often Watch looks: a file tells nobody that it has changed.
const pace = 250 * time.Millisecond

// Watch implements fleet.Store.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			wake()
		}
	}
}

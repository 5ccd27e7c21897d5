package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	sqlite3 "modernc.org/sqlite"
)

// versions is the table in which the users' own migrations are noted.
const versions = "goose_db_version"

// Schema is a set of tables and how they came to be.
type Schema struct {
	Files  fs.FS  // with the folder "migrations", of goose's numbered files
	Table  string // where the migrations that were made are noted; each set of tables has its own
	Newest int64  // the newest migration's number
	with   goose.ProviderOption
}

// Migrate brings the tables to the newest schema. It waits for processes that start at the same moment: SQLite refuses the change
// to its write-ahead log at once while another makes it, whatever busy_timeout says (sqlite.org/wal.html, "Sometimes Queries
// Return SQLITE_BUSY"), and a migration that another has just made fails here.
func (s *Store) Migrate(ctx context.Context, to Schema) error {
	for began := time.Now(); ; {
		err := s.migrate(ctx, to)
		if err == nil {
			return nil
		}
		if !isBusy(err) && !s.underway(ctx, to) || time.Since(began) > startPatience {
			return fmt.Errorf("%s: %w", s.path, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// underway says whether somebody is in the middle of the migrations, or has just ended them.
func (s *Store) underway(ctx context.Context, to Schema) bool {
	v, err := s.version(ctx, to)
	return isBusy(err) || err == nil && v > 0 && v <= to.Newest
}

// startPatience is how long a start waits for others: as long as a statement does.
const startPatience = 5 * time.Second

func isBusy(err error) bool {
	var engine *sqlite3.Error
	return errors.As(err, &engine) && engine.Code()&0xff == sqliteBusy
}

// sqliteBusy is the primary result code SQLITE_BUSY (sqlite.org/rescode.html).
const sqliteBusy = 5

// migrate asks the version first: on the usual start nothing else is needed.
func (s *Store) migrate(ctx context.Context, to Schema) error {
	version, err := s.version(ctx, to)
	switch {
	case err != nil:
		return err
	case version == to.Newest:
		return nil
	case version > to.Newest:
		return fmt.Errorf("the file has schema %d and this program knows %d; start a newer gantry", version, to.Newest)
	}
	files, err := fs.Sub(to.Files, "migrations")
	if err != nil {
		return err
	}
	options := []goose.ProviderOption{goose.WithTableName(to.Table)}
	if to.with != nil {
		options = append(options, to.with)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.write, files, options...)
	if err != nil {
		return err
	}
	if _, err = p.Up(ctx); err == nil {
		return nil
	}
	if v, err2 := s.version(ctx, to); err2 == nil && v == to.Newest {
		return nil // another process was faster
	}
	return fmt.Errorf("migrate: %w", err)
}

func (s *Store) version(ctx context.Context, to Schema) (int64, error) {
	var version sql.NullInt64
	err := s.write.QueryRowContext(ctx, "SELECT max(version_id) FROM "+to.Table).Scan(&version)
	if err != nil && strings.Contains(err.Error(), "no such table") {
		return 0, nil
	}
	return version.Int64, err
}

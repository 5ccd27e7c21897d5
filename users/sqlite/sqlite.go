// Package sqlite keeps users in one file: the store of a single machine.
//
// Begin with [Open]. The file is made, and brought to the newest schema, on the way.
//
// The surprise: there are two pools on one file. SQLite lets one connection write at a time, so
// writers queue in Go, where waiting honours the context, and readers never wait for them (WAL).
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	sqlite3 "modernc.org/sqlite"

	"github.com/gantryhq/gantry/users"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema is the newest migration's number.
const schema = 1

// The statements, in files of their own.
var (
	//go:embed queries/find.sql
	findSQL string
	//go:embed queries/create.sql
	createSQL string
	//go:embed queries/update.sql
	updateSQL string
	//go:embed queries/event.sql
	eventSQL string
	//go:embed queries/events.sql
	eventsSQL string
)

// Config of a Store.
type Config struct {
	// Path of the file; its folder is made with mode 0700 when absent. Required.
	Path string
	// Readers is the size of the read pool; default 4.
	Readers int
}

// Store is a users.Store on one SQLite file.
type Store struct {
	write, read *sql.DB
}

var _ users.Store = (*Store)(nil)

// Open opens or makes the file. A file that is damaged, read-only, or newer than this program is an
// error that says so.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Readers <= 0 {
		cfg.Readers = 4
	}
	if err := prepare(cfg.Path); err != nil {
		return nil, err
	}
	s := &Store{write: connect(cfg.Path, 1), read: connect(cfg.Path, cfg.Readers)}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", cfg.Path, err), s.Close())
	}
	return s, nil
}

// prepare makes the folder and the file with narrow permissions, before SQLite makes them with wide ones.
func prepare(path string) error {
	if path == "" {
		return errors.New("sqlite: a path is required")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// connect describes a pool; nothing is opened yet. synchronous=FULL makes a commit reach the disk
// before it is acknowledged: no write is lost to a crash of the process or of the machine.
func connect(path string, size int) *sql.DB {
	query := url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "cache_size(-2000)",
	}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String())
	if err != nil {
		panic(err) // only for a driver that is not registered
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db
}

// migrate asks the version first: on the usual start nothing else is needed.
func (s *Store) migrate(ctx context.Context) error {
	version, err := s.version(ctx)
	switch {
	case err != nil:
		return err
	case version == schema:
		return nil
	case version > schema:
		return fmt.Errorf("the file has schema %d and this program knows %d; start a newer gantry", version, schema)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.write, files)
	if err != nil {
		return err
	}
	if _, err = p.Up(ctx); err == nil {
		return nil
	}
	if v, err2 := s.version(ctx); err2 == nil && v == schema {
		return nil // another process was faster
	}
	return fmt.Errorf("migrate: %w", err)
}

func (s *Store) version(ctx context.Context) (int64, error) {
	var version sql.NullInt64
	err := s.write.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&version)
	if err != nil && strings.Contains(err.Error(), "no such table") {
		return 0, nil
	}
	return version.Int64, err
}

// Close closes both pools.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// Ping takes a connection of each pool and runs a statement.
func (s *Store) Ping(ctx context.Context) error {
	for _, db := range []*sql.DB{s.read, s.write} {
		var one int
		if err := db.QueryRowContext(ctx, "SELECT 1 FROM goose_db_version LIMIT 1").Scan(&one); err != nil {
			return wrap(err)
		}
	}
	return nil
}

// Stats of the read pool.
func (s *Store) Stats() sql.DBStats { return s.read.Stats() }

// Find implements users.Store in one statement.
func (s *Store) Find(ctx context.Context, issuer, subject string) (users.User, error) {
	return find(s.read.QueryRowContext(ctx, findSQL, issuer, subject))
}

func find(row *sql.Row) (users.User, error) {
	var u users.User
	var created, updated int64
	err := row.Scan(&u.ID, &u.Issuer, &u.Subject, &u.Email, &u.DisplayName, &u.ImageURL, &u.Bio, &u.Locale, &u.Timezone, &u.Version, &created, &updated)
	if errors.Is(err, sql.ErrNoRows) {
		return users.User{}, users.ErrNotFound
	}
	u.CreatedAt, u.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	return u, wrap(err)
}

// Create implements users.Store.
func (s *Store) Create(ctx context.Context, u users.User, e users.Event) (users.User, error) {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, createSQL, u.ID, u.Issuer, u.Subject, u.Email, u.DisplayName, u.ImageURL, u.Bio, u.Locale, u.Timezone,
			u.Version, u.CreatedAt.UnixMicro(), u.UpdatedAt.UnixMicro())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 1 {
			return errors.Join(err, record(ctx, tx, e))
		}
		u, err = find(tx.QueryRowContext(ctx, findSQL, u.Issuer, u.Subject))
		return err
	})
	return u, err
}

// Update implements users.Store.
func (s *Store) Update(ctx context.Context, u users.User, e users.Event) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, updateSQL, u.Email, u.DisplayName, u.ImageURL, u.Bio, u.Locale, u.Timezone,
			u.Version, u.UpdatedAt.UnixMicro(), u.ID, u.Version-1)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 1 {
			return errors.Join(err, record(ctx, tx, e))
		}
		return missing(ctx, tx, u.ID)
	})
}

// missing tells a row that has moved on from one that is not there.
func missing(ctx context.Context, tx *sql.Tx, id string) error {
	var version int64
	err := tx.QueryRowContext(ctx, "SELECT version FROM users WHERE id = ?", id).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return users.ErrNotFound
	}
	return errors.Join(err, users.ErrConflict)
}

func record(ctx context.Context, tx *sql.Tx, e users.Event) error {
	_, err := tx.ExecContext(ctx, eventSQL, e.UserID, e.Kind, e.Actor, strings.Join(e.Fields, " "), e.At.UnixMicro())
	return err
}

// Events implements users.Store.
func (s *Store) Events(ctx context.Context, userID string, n int) ([]users.Event, error) {
	rows, err := s.read.QueryContext(ctx, eventsSQL, userID, n)
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	var out []users.Event
	for rows.Next() {
		var e users.Event
		var fields string
		var at int64
		if err := rows.Scan(&e.ID, &e.UserID, &e.Kind, &e.Actor, &fields, &at); err != nil {
			return nil, wrap(err)
		}
		e.Fields, e.At = strings.Fields(fields), time.UnixMicro(at).UTC()
		out = append(out, e)
	}
	return out, wrap(rows.Err())
}

// inTx runs f in a transaction of the one writer: all of it, or nothing.
func (s *Store) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return wrap(err)
	}
	if err := f(tx); err != nil {
		return errors.Join(wrap(err), rolledBack(tx.Rollback()))
	}
	return wrap(tx.Commit())
}

// rolledBack ignores that a transaction whose context ended is gone already.
func rolledBack(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// wrap marks failures of the engine (busy, full, read-only, damaged) as an unavailable store.
func wrap(err error) error {
	var engine *sqlite3.Error
	if errors.As(err, &engine) {
		return errors.Join(users.ErrUnavailable, err)
	}
	return err
}

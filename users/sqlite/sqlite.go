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
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	sqlite3 "modernc.org/sqlite"

	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/sqlite/internal/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema is the newest migration's number.
const schema = 3

// Config of a Store.
type Config struct {
	// Path of the file; its folder is made with mode 0700 when absent. Required.
	Path string
	// Readers is the size of the read pool; default 4.
	Readers int
	// Trace, if not nil, hears of every statement before it runs. Tests count with it.
	Trace func(statement string)
}

// Store is a users.Store on one SQLite file.
type Store struct {
	path        string
	write, read *sql.DB
	trace       func(string)
	reads       *db.Queries
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
	s := &Store{path: cfg.Path, write: connect(cfg.Path, 1), read: connect(cfg.Path, cfg.Readers), trace: cfg.Trace}
	s.reads = db.New(traced(s.read, cfg.Trace))
	if err := s.Migrate(ctx, Schema{Files: migrations, Table: versions, Newest: schema, with: goose.WithGoMigrations(sealing)}); err != nil {
		return nil, errors.Join(err, s.Close())
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
	pool, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}).String())
	if err != nil {
		panic(err) // only for a driver that is not registered
	}
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	return pool
}

// Pools are the one connection that writes and those that read, for what keeps tables of its own in the
// same file. They end with the store.
func (s *Store) Pools() (write, read *sql.DB) { return s.write, s.read }

// Close closes both pools.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// Ping takes a connection of each pool and runs a statement.
func (s *Store) Ping(ctx context.Context) error {
	for _, pool := range []*sql.DB{s.read, s.write} {
		var one int
		if err := pool.QueryRowContext(ctx, "SELECT 1 FROM "+versions+" LIMIT 1").Scan(&one); err != nil {
			return wrap(err)
		}
	}
	return nil
}

// Stats says how the connections are used, readers' and the writer's together. It asks nobody.
func (s *Store) Stats() sql.DBStats {
	r, w := s.read.Stats(), s.write.Stats()
	return sql.DBStats{
		MaxOpenConnections: r.MaxOpenConnections + w.MaxOpenConnections,
		OpenConnections:    r.OpenConnections + w.OpenConnections, InUse: r.InUse + w.InUse, Idle: r.Idle + w.Idle,
		WaitCount: r.WaitCount + w.WaitCount, WaitDuration: r.WaitDuration + w.WaitDuration,
	}
}

// Tx implements users.Store. There is one writer, so f runs once, and alone.
func (s *Store) Tx(ctx context.Context, f func(users.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return wrap(err)
	}
	if err := f(transaction{db.New(traced(tx, s.trace))}); err != nil {
		if lost := rolledBack(tx.Rollback()); lost != nil {
			return errors.Join(err, lost)
		}
		return err
	}
	return ended(ctx, tx.Commit())
}

// ended names the context's end as the cause when it, and not the commit, closed the transaction:
// database/sql says only ErrTxDone when its own rollback came first.
func ended(ctx context.Context, err error) error {
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err()
	}
	return wrap(err)
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

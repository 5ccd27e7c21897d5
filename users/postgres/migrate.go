package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema is the newest migration's number.
const schema = 1

// migrationLock is what migrating instances queue for: "gantry" in ASCII.
const migrationLock = 0x67616e747279

// versions is the table in which the users' own migrations are noted.
const versions = "goose_db_version"

// Schema is a set of tables and how they came to be.
type Schema struct {
	Files  fs.FS  // with the folder "migrations", of goose's numbered files
	Table  string // where the migrations that were made are noted; each set of tables has its own
	Newest int64  // the newest migration's number
}

// Migrate brings the tables of another feature, which are in the same database, to its newest schema.
func (s *Store) Migrate(ctx context.Context, to Schema) error {
	if err := to.migrate(ctx, s.pool.Config().ConnConfig); err != nil {
		return fmt.Errorf("postgres: migrate: %w", wrap(ctx, err))
	}
	return nil
}

// migrate brings the schema up to date. On the usual start that is one question. A newer schema is
// fine: migrations only add, and an instance of the version before starts again in a rollback.
func (to Schema) migrate(ctx context.Context, c *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // gives the lock back
	if version, err := to.version(ctx, conn); err != nil || version >= to.Newest {
		return err
	}
	// Not a lock of the session: a pooler in transaction mode would lose it. This one is the
	// transaction's, which stays open, with its server connection, while goose works on another.
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", pgx.QueryExecModeExec, int64(migrationLock)); err != nil {
		return err
	}
	if version, err := to.version(ctx, conn); err != nil || version >= to.Newest {
		return err // another instance was faster
	}
	return to.up(ctx, c)
}

func (to Schema) up(ctx context.Context, c *pgx.ConnConfig) error {
	db := stdlib.OpenDB(*c.Copy())
	defer db.Close() //nolint:errcheck // what was done is committed
	db.SetMaxOpenConns(1)
	files, err := fs.Sub(to.Files, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(to.Table))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// version is 0 where nothing was ever migrated. The table is asked for first, since a statement that
// fails would end the transaction.
func (to Schema) version(ctx context.Context, conn *pgx.Conn) (version int64, err error) {
	var there bool
	err = conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pgx.QueryExecModeExec, to.Table).Scan(&there)
	if err != nil || !there {
		return 0, err
	}
	err = conn.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+to.Table+" WHERE is_applied", pgx.QueryExecModeExec).Scan(&version)
	return version, err
}

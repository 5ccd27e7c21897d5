// Package postgres keeps users in a Postgres database: the store that many instances share.
//
// Begin with [Open]. It brings the database to the newest schema on the way; of instances that
// start together, one does.
//
// The surprise: a transaction is not sent statement by statement. BEGIN travels with the first
// statement, what has no answer that anybody waits for travels with the next one that has, and the last
// ones with COMMIT: a change of a user is two round trips. The same file that says so, pipe.go,
// makes everything work through a pooler in transaction mode (PgBouncer), where nothing that is set
// on a connection is there for the next transaction.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gantryhq/gantry/users"
)

// Store is a users.Store on a pool of connections. Its methods may be called from any goroutine.
type Store struct {
	pool   *pgxpool.Pool
	cfg    Config
	pooler bool // connections lead to a pooler, not to the server

	waiting   atomic.Int64
	exhausted atomic.Int64
	retries   atomic.Int64
	lastReset atomic.Int64 // nanoseconds since 1970
}

var _ users.Store = (*Store)(nil)

// Open connects, migrates, and returns a Store; close it when done. A server that cannot be reached is
// users.ErrUnavailable.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	cfg = cfg.withDefaults()
	settings, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err) // without the password
	}
	adjust(settings.ConnConfig, cfg)
	pooler, err := throughPooler(ctx, settings.ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", wrap(ctx, err))
	}
	if pooler || cfg.Prepare == PrepareNever {
		settings.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	if err := (Schema{migrations, versions, schema}).migrate(ctx, settings.ConnConfig); err != nil {
		return nil, fmt.Errorf("postgres: migrate: %w", wrap(ctx, err))
	}
	return open(ctx, cfg, settings, pooler)
}

func open(ctx context.Context, cfg Config, settings *pgxpool.Config, pooler bool) (*Store, error) {
	if cfg.Prepare == PrepareAlways {
		settings.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	}
	if !pooler {
		for name, value := range timeouts(cfg) {
			settings.ConnConfig.RuntimeParams[name] = value
		}
	}
	size(settings, cfg)
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), settings)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return &Store{pool: pool, cfg: cfg, pooler: pooler}, nil
}

// Pool is the store's, for what keeps tables of its own in the same database. It ends with the store.
// pooler is that it leads to a pooler, through which no LISTEN reaches the server.
func (s *Store) Pool() (pool *pgxpool.Pool, pooler bool) { return s.pool, s.pooler }

// Close waits for the calls under way and closes all connections.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// pingTimeout bounds [Store.Ping]: a health check must answer soon, also when nothing does.
const pingTimeout = time.Second

// Ping takes a connection of the pool and runs a statement, within a second.
func (s *Store) Ping(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	err := s.read(short, func(p *pipe) error {
		var one int
		return p.QueryRow(short, "SELECT 1").Scan(&one)
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, users.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", users.ErrUnavailable, err) // our second is over, not the caller's
	}
	return err
}

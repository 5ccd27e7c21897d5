package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gantryhq/gantry/cache"
	farcache "github.com/gantryhq/gantry/cache/valkey"
	"github.com/gantryhq/gantry/health"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/ratelimit"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres"
	"github.com/gantryhq/gantry/users/sqlite"
)

// UserStore is a users.Store that was opened and must be closed.
type UserStore interface {
	users.Store
	io.Closer
}

// OpenUsers opens the store that DATABASE_URL names, and brings it to the newest schema.
func OpenUsers(ctx context.Context, cfg config.Config) (UserStore, error) {
	if cfg.Database.Kind == config.Postgres {
		return postgres.Open(ctx, postgresConfig(cfg))
	}
	return sqlite.Open(ctx, sqlite.Config{Path: cfg.Database.Path})
}

// postgresConfig is the ladder of limits behind REQUEST_TIMEOUT: at its default of 30 s a statement has
// 25 s, a lock 5 s, and a connection must come free within 2 s, so that the database gives up before
// the door does.
func postgresConfig(cfg config.Config) postgres.Config {
	statement := cfg.RequestTimeout * 5 / 6
	return postgres.Config{
		URL: cfg.Database.URL.Reveal(), Min: cfg.DBPool.Min, Max: cfg.DBPool.Max, Lifetime: cfg.DBPool.Lifetime,
		AcquireTimeout: min(2*time.Second, statement/2), StatementTimeout: statement, LockTimeout: min(5*time.Second, statement/2),
	}
}

// openUsers opens the users' store, and learns who may not come in.
func (s *Server) openUsers(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	store, err := OpenUsers(ctx, s.cfg)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	s.store = store
	s.closers = append(s.closers, store.Close)
	s.checkBudget(ctx)
	s.standing = users.NewDoorkeeper(store, users.DoorConfig{Logger: s.log})
	if err := s.standing.Load(ctx); err != nil {
		return fmt.Errorf("who may come in: %w", err)
	}
	s.work = append(s.work, s.standing.Run)
	return nil
}

// checkBudget warns when all instances together may need more connections than the server gives.
func (s *Server) checkBudget(ctx context.Context) {
	store, ok := s.store.(*postgres.Store)
	if !ok {
		return
	}
	var short *postgres.BudgetError
	if err := store.Budget(ctx, s.cfg.Instances); errors.As(err, &short) {
		s.log.Warn("the database gives fewer connections than all instances may need", "error", err)
	}
}

// openCache opens what instances share for a short time: Valkey, or without it memory of this process.
func (s *Server) openCache(ctx context.Context) (err error) {
	reads := cache.Config{Absent: func(err error) bool { return errors.Is(err, users.ErrNotFound) }, Logger: s.log}
	if s.cfg.Cache.Kind == config.Valkey {
		reads.Name = "users"
		reads.Far, err = s.openValkey(ctx)
	} else {
		err = s.openMemory()
	}
	if err != nil {
		return err
	}
	loader, err := cache.NewLoader(s.findUser, reads)
	if err != nil {
		return err
	}
	s.reads = userReads{loader}
	s.closers = append(s.closers, func() error { return s.reads.Close(context.WithoutCancel(ctx)) })
	return nil
}

func (s *Server) findUser(ctx context.Context, key users.Subject) (users.User, error) {
	return watchedStore{s.store}.Find(ctx, key.Issuer, key.Subject)
}

// userReads are [users.Reads]. That a load takes too long, or that too many are under way, says of the store what
// its own errors say.
type userReads struct {
	*cache.Loader[users.Subject, users.User]
}

// Get implements users.Reads.
func (r userReads) Get(ctx context.Context, key users.Subject) (users.User, error) {
	u, err := r.Loader.Get(ctx, key)
	if errors.Is(err, cache.ErrTimeout) || errors.Is(err, cache.ErrBusy) || errors.Is(err, cache.ErrClosed) {
		err = fmt.Errorf("%w: %w", users.ErrUnavailable, err)
	}
	return u, err
}

func (s *Server) openMemory() (err error) {
	if s.cache, err = cache.NewMemory(cache.MemoryConfig{}); err != nil {
		return err
	}
	s.limits, err = ratelimit.NewMemory(ratelimit.MemoryConfig{})
	return err
}

// openValkey makes the two clients. Neither waits for the server: a door that starts while Valkey is
// away opens all the same, with its own limits and without a cache.
func (s *Server) openValkey(ctx context.Context) (cache.Far, error) {
	option, err := valkeyOption(s.cfg.Cache)
	if err != nil {
		return nil, fmt.Errorf("VALKEY_URL: %w", err)
	}
	shared, err := farcache.New(ctx, option, farcache.Config{Logger: s.log})
	if err != nil {
		return nil, err
	}
	limits := &sharedLimits{option: option}
	s.cache, s.limits = shared, limits
	s.closers = append(s.closers, limits.close, func() error {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return shared.Close(limit)
	})
	return shared, nil
}

var _ health.KV = (*farcache.Store)(nil)

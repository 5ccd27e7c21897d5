package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/gantryhq/gantry/users"
)

// What may run again (requirement D7): whatever the server says it has undone (40001, 40P01, and
// 25006, which a new connection may cure), and what a broken connection cut short before COMMIT was
// sent. After that nobody knows whether it happened, and it is not for the store to do it twice.

// maxRetries bounds them; pauses grow from retryPause, each with jitter.
const (
	maxRetries = 3
	retryPause = 10 * time.Millisecond
)

// attempt runs f on a connection, again if need be.
func (s *Store) attempt(ctx context.Context, f func(*pipe) error) error {
	for try := 0; ; try++ {
		conn, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		again, err := s.once(ctx, conn, f)
		if err == nil || !again || try == maxRetries || !pause(ctx, retryPause<<try) {
			return err
		}
		s.retries.Add(1)
	}
}

// once gives the connection back also when f panics.
func (s *Store) once(ctx context.Context, conn *pgxpool.Conn, f func(*pipe) error) (again bool, err error) {
	p := &pipe{conn: conn.Conn(), limits: s.limits(), trace: s.cfg.Trace}
	defer func() { again = s.release(ctx, conn, p) }()
	return false, f(p)
}

// limits is the statement that sets the timeouts until the end of a transaction.
func (s *Store) limits() []statement {
	if !s.pooler {
		return nil
	}
	t := timeouts(s.cfg)
	return []statement{{
		sql: "SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true), " +
			"set_config('idle_in_transaction_session_timeout', $3, true)",
		args: []any{t["statement_timeout"], t["lock_timeout"], t["idle_in_transaction_session_timeout"]},
	}}
}

// acquire waits its time for a connection, and tells a pool in full use from a server that is away.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	wait, cancel := context.WithTimeout(ctx, s.cfg.AcquireTimeout)
	defer cancel()
	conn, err := s.pool.Acquire(wait)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: wait for a connection", ctx.Err())
	case wait.Err() == nil:
		return nil, wrap(ctx, err)
	case s.pool.Stat().ConstructingConns() > 0:
		return nil, fmt.Errorf("%w: connect: %w", users.ErrUnavailable, err)
	}
	s.exhausted.Add(1)
	return nil, fmt.Errorf("%w: %d in use", users.ErrExhausted, s.pool.Stat().AcquiredConns())
}

// release gives the connection back, clean, and reports whether what was done on it may run again.
func (s *Store) release(ctx context.Context, conn *pgxpool.Conn, p *pipe) (again bool) {
	defer conn.Release()
	reason := code(p.failure)
	switch {
	case conn.Conn().IsClosed():
		if ctx.Err() == nil {
			s.reset()
		}
		return !p.committing && ctx.Err() == nil
	case reason == readOnly: // requirement D4: this leads to a server that was the primary once
		closeNow(ctx, conn)
		s.reset()
		return true
	case reason == "26000" || reason == "42P05":
		closeNow(ctx, conn)
		return false
	}
	if conn.Conn().PgConn().TxStatus() != 'I' {
		rollback(ctx, conn)
	}
	return reason == serializationFailure || reason == deadlock
}

// rollback outlives the context: the transaction must end also when the caller is gone.
func rollback(ctx context.Context, conn *pgxpool.Conn) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer cancel()
	if _, err := conn.Exec(short, "ROLLBACK"); err != nil {
		closeNow(ctx, conn)
	}
}

// closeNow makes Release throw the connection away, and the server roll back.
func closeNow(ctx context.Context, conn *pgxpool.Conn) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer cancel()
	_ = conn.Conn().Close(short) // it is closed either way
}

// resetPause is how often at most a broken connection makes the pool doubt all others.
const resetPause = time.Second

// reset drops the idle connections, and those in use once they come back: they lead where the broken
// one led, and each would cost a caller a failure.
func (s *Store) reset() {
	now, last := time.Now().UnixNano(), s.lastReset.Load()
	if now-last > int64(resetPause) && s.lastReset.CompareAndSwap(last, now) {
		s.pool.Reset()
	}
}

// pause waits between half of d and d, and reports whether ctx is still alive then.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

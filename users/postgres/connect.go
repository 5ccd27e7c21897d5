package postgres

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// adjust sets what every connection has, the one that migrates too.
func adjust(c *pgx.ConnConfig, cfg Config) {
	c.ConnectTimeout = cfg.ConnectTimeout
	c.RuntimeParams["application_name"] = cfg.ApplicationName
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler { return &canceler{conn: conn} }
}

// throughPooler reports whether connections lead to a pooler: there the process that answers is
// not the one that was named at login.
func throughPooler(ctx context.Context, c *pgx.ConnConfig) (bool, error) {
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is lost with it
	var pid uint32
	err = conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid)
	return pid != conn.PgConn().PID(), err
}

// timeouts are the server's own limits, in its words. They are said at login, or through a pooler, which
// refuses unknown words there, at the beginning of each transaction; see [pipe].
func timeouts(cfg Config) map[string]string {
	milliseconds := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return map[string]string{
		"statement_timeout":                   milliseconds(cfg.StatementTimeout),
		"lock_timeout":                        milliseconds(cfg.LockTimeout),
		"idle_in_transaction_session_timeout": milliseconds(idleInTransaction),
	}
}

// idleInTransaction is how long the server keeps the locks of a client that has gone silent.
const idleInTransaction = 10 * time.Second

// size makes the pool as cfg says. Requirement D8: the ages at which connections end are spread over a
// quarter of the lifetime, and the check for them comes round often enough not to bunch them again. None
// ends for having been idle, since those that one burst of traffic made are idle from one moment on.
func size(p *pgxpool.Config, cfg Config) {
	p.MaxConns, p.MinConns, p.MinIdleConns = int32(cfg.Max), 0, int32(cfg.Min)
	p.MaxConnLifetime, p.MaxConnLifetimeJitter = cfg.Lifetime-cfg.Lifetime/4, cfg.Lifetime/4
	p.MaxConnIdleTime = cfg.Lifetime // age comes first
	p.HealthCheckPeriod = max(cfg.Lifetime/60, 10*time.Millisecond)
	p.PingTimeout = pingTimeout
}

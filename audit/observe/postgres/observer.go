package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/audit/observe"
)

const (
	// applicationName is what the server shows for our connection.
	applicationName = "gantry-audit"
	// mark begins every statement of ours, by which pg_stat_statements tells them from the API's.
	mark = "/* gantry-audit */ "

	connectTimeout   = 5 * time.Second
	statementTimeout = 2 * time.Second
	// answerTimeout is when we stop waiting for a server that does not keep to statementTimeout.
	answerTimeout = 3 * time.Second
	oldest        = 140000 // server_version_num: pg_stat_database.sessions is new in 14
)

var (
	// ErrBusy says that a window is open: what happens belongs to one window at a time.
	ErrBusy = errors.New("observe postgres: a window is open; end it first")
	// ErrClosed says that the Observer is closed, or the window has ended.
	ErrClosed = errors.New("observe postgres: the observer is closed or the window has ended; begin a new one")
)

// Observer is a connection to the audited API's database. Its methods may be called from any goroutine.
type Observer struct {
	settings *pgx.ConnConfig

	mu     sync.Mutex // held for a reading of the server, and guards what follows
	conn   *pgx.Conn
	server server
	window *Window
	closed bool

	// transactions is how many of our own the server has counted, to be taken off.
	transactions int64
}

// Open connects with a DSN, a URL or a list of key=value, and finds out what can be seen. It waits for a server for
// 5 s at most. An error names the server, never the password. Close the Observer when done.
func Open(ctx context.Context, dsn string) (*Observer, error) {
	settings, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The cause may quote a part of the password: an unescaped # or / in one is taken for something else.
		return nil, errors.New("observe postgres: the DSN cannot be read; it looks like postgres://ROLE:PASSWORD@HOST:5432/DATABASE, " +
			"with characters such as # / ? @ % in the password percent-encoded")
	}
	settings.ConnectTimeout = connectTimeout
	settings.RuntimeParams["application_name"] = applicationName
	// Parse, bind and execute in one message are one transaction, so that we know how many we made.
	settings.DefaultQueryExecMode = pgx.QueryExecModeExec
	o := &Observer{settings: settings}
	if err := o.connect(ctx); err != nil {
		return nil, err
	}
	return o, nil
}

// Capabilities is what can and cannot be seen, and what to do about the latter, as of the last connection.
func (o *Observer) Capabilities() []observe.Capability {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.server.capabilities()
}

// Close ends a window that is open, and the connection, within a second. It may be called more than once.
func (o *Observer) Close(ctx context.Context) error {
	o.mu.Lock()
	window := o.window
	o.closed, o.window = true, nil
	o.mu.Unlock()
	if window != nil {
		window.halt()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = o.conn.Close(ctx) // the server notices by itself
	o.conn = nil
	return nil
}

func (o *Observer) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, o.settings)
	if err != nil {
		return o.fault("connect", err)
	}
	o.conn = conn
	if err := o.prepare(ctx); err != nil {
		_ = conn.Close(ctx) // nothing is lost with it
		o.conn = nil
		return err
	}
	return nil
}

// prepare makes the connection harmless. It looks for a pooler first: what is set on one of its connections would
// be set for the audited API.
func (o *Observer) prepare(ctx context.Context) error {
	var pid uint32
	if err := o.row(ctx, "SELECT pg_backend_pid()", []any{&pid}); err != nil {
		return o.fault("ask who answers", err)
	}
	if pid != o.conn.PgConn().PID() {
		return fmt.Errorf("observe postgres: %s leads to a pooler such as PgBouncer, behind which nothing of the server is "+
			"certain; give the address of the server itself", o.where())
	}
	milliseconds := strconv.FormatInt(statementTimeout.Milliseconds(), 10)
	sql := `SELECT set_config(name, value, false) FROM (VALUES ('default_transaction_read_only', 'on'), ('statement_timeout', $1),
		('lock_timeout', $1), ('jit', 'off'), ('max_parallel_workers_per_gather', '0')) AS settings (name, value)`
	if err := o.rows(ctx, sql, []any{milliseconds}, func(pgx.Rows) error { return nil }); err != nil {
		return o.fault("set up the connection", err)
	}
	return o.discover(ctx)
}

// row reads one row into targets.
func (o *Observer) row(ctx context.Context, sql string, targets []any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	o.transactions++
	return o.conn.QueryRow(ctx, mark+sql, args...).Scan(targets...)
}

// rows calls each for every row.
func (o *Observer) rows(ctx context.Context, sql string, args []any, each func(pgx.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	o.transactions++
	rows, err := o.conn.Query(ctx, mark+sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (o *Observer) where() string {
	return fmt.Sprintf("%s:%d/%s", o.settings.Host, o.settings.Port, o.settings.Database)
}

// fault is an error of the driver, in our words and without the password. What it wraps says why only where the
// caller's context ended.
func (o *Observer) fault(doing string, err error) error {
	text := observe.Redact(err, o.settings.Password)
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			return fmt.Errorf("observe postgres: %s: %s: %s: %w", o.where(), doing, text, ended)
		}
	}
	return fmt.Errorf("observe postgres: %s: %s: %s", o.where(), doing, text)
}

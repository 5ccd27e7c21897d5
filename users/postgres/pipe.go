package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gantryhq/gantry/users/postgres/internal/db"
)

// pipe sends statements over one connection, several in one round trip. It is what the generated
// queries run on. The rules:
//
//   - BEGIN, and statements whose answer nobody waits for, are put off until the next statement that
//     has one, or COMMIT. One of them failing is that statement failing, and nothing after it ran.
//   - Through a pooler the limits of time are set anew for each transaction, in the same round trip. A
//     lone statement is such a transaction too: what is sent together without BEGIN is one.
//   - The first failure is kept, since it decides whether all may run again; see [Store.attempt].
type pipe struct {
	conn       *pgx.Conn
	limits     []statement // sets the timeouts of a transaction; nothing on a direct connection
	putOff     []statement
	begun      bool // putOff begins a transaction, or one is under way
	sent       bool // something of the transaction is on its way
	committing bool // COMMIT is on its way: from here on a lost connection leaves the outcome unknown
	failure    error
	trace      func([]string) // nil for nobody
}

type statement struct {
	sql  string
	args []any
}

var _ db.DBTX = (*pipe)(nil)

// errAborted is a COMMIT that the server answered with a rollback, because of a failure before.
var errAborted = errors.New("the transaction had failed before its commit")

func (p *pipe) begin() {
	p.putOff = append([]statement{{sql: "BEGIN"}}, p.limits...)
	p.begun = true
}

// commit sends what was put off with COMMIT behind it. Had nothing been sent, there is nothing to end.
func (p *pipe) commit(ctx context.Context) error {
	if !p.sent && len(p.putOff) == 1+len(p.limits) {
		p.putOff = nil
		return nil
	}
	p.committing = true
	tag, err := p.Exec(ctx, "COMMIT")
	if err == nil && tag.String() == "ROLLBACK" {
		return errAborted
	}
	return err
}

// take is what must be sent before sql.
func (p *pipe) take(sql string) []statement {
	before := p.putOff
	if !p.begun {
		before = p.limits
	}
	p.putOff, p.sent = nil, true
	if p.trace != nil {
		var all []string
		for _, s := range before {
			all = append(all, s.sql)
		}
		p.trace(append(all, sql))
	}
	return before
}

func (p *pipe) failed(err error) error {
	if err != nil && p.failure == nil && !errors.Is(err, pgx.ErrNoRows) {
		p.failure = err
	}
	return err
}

// send puts sql behind what was put off, and reads the answers up to its own.
func (p *pipe) send(ctx context.Context, before []statement, sql string, args []any) (pgx.BatchResults, error) {
	var batch pgx.Batch
	for _, s := range before {
		batch.Queue(s.sql, s.args...)
	}
	batch.Queue(sql, args...)
	results := p.conn.SendBatch(ctx, &batch)
	for range before {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // says the same again
			return nil, p.failed(err)
		}
	}
	return results, nil
}

// Exec implements db.DBTX.
func (p *pipe) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	before := p.take(sql)
	if len(before) == 0 {
		tag, err := p.conn.Exec(ctx, sql, args...)
		return tag, p.failed(err)
	}
	results, err := p.send(ctx, before, sql, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, p.failed(err)
}

// Query implements db.DBTX.
func (p *pipe) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	before := p.take(sql)
	if len(before) == 0 {
		rows, err := p.conn.Query(ctx, sql, args...)
		if err != nil {
			return nil, p.failed(err)
		}
		return &pipeRows{Rows: rows, p: p}, nil
	}
	results, err := p.send(ctx, before, sql, args)
	if err != nil {
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close() // says the same again
		return nil, p.failed(err)
	}
	return &pipeRows{Rows: rows, p: p, results: results}, nil
}

// QueryRow implements db.DBTX.
func (p *pipe) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := p.Query(ctx, sql, args...)
	return pipeRow{rows, err}
}

// pipeRows ends the round trip with the rows.
type pipeRows struct {
	pgx.Rows
	p       *pipe
	results pgx.BatchResults // nil for a lone statement
	err     error
}

// Close implements pgx.Rows.
func (r *pipeRows) Close() {
	r.Rows.Close()
	if r.results != nil {
		r.err = r.results.Close()
		r.results = nil
	}
	_ = r.Err() // keeps it
}

// Err implements pgx.Rows.
func (r *pipeRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return r.p.failed(err)
	}
	return r.p.failed(r.err)
}

type pipeRow struct {
	rows pgx.Rows
	err  error
}

// Scan implements pgx.Row.
func (r pipeRow) Scan(to ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		r.rows.Close()
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(to...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// deferred is a pipe whose Exec puts off: its count of rows is always 0.
type deferred struct{ *pipe }

// Exec implements db.DBTX.
func (d deferred) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if !d.begun {
		return pgconn.CommandTag{}, fmt.Errorf("put off outside of a transaction: %s", sql)
	}
	d.putOff = append(d.putOff, statement{sql, args})
	return pgconn.CommandTag{}, nil
}

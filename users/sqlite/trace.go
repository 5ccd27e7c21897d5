package sqlite

import (
	"context"
	"database/sql"

	"github.com/gantryhq/gantry/users/sqlite/internal/db"
)

// traced tells trace of every statement on its way to inner; nil costs nothing.
func traced(inner db.DBTX, trace func(string)) db.DBTX {
	if trace == nil {
		return inner
	}
	return &tracer{inner, trace}
}

type tracer struct {
	db.DBTX
	trace func(string)
}

// ExecContext implements db.DBTX.
func (t *tracer) ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error) {
	t.trace(q)
	return t.DBTX.ExecContext(ctx, q, args...)
}

// QueryContext implements db.DBTX.
func (t *tracer) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	t.trace(q)
	return t.DBTX.QueryContext(ctx, q, args...)
}

// QueryRowContext implements db.DBTX.
func (t *tracer) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	t.trace(q)
	return t.DBTX.QueryRowContext(ctx, q, args...)
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gantryhq/gantry/users"
)

// SQLSTATEs that are told apart; https://www.postgresql.org/docs/current/errcodes-appendix.html.
const (
	serializationFailure = "40001"
	deadlock             = "40P01"
	readOnly             = "25006"
	uniqueViolation      = "23505"
	tooManyConnections   = "53300"
	canceled             = "57014"
	lockTimeout          = "55P03"
	idleSession          = "25P03" // the session was ended: by a server that slept, say, and takes our wait for idleness
	longTransaction      = "25P04" // likewise
)

// code is the SQLSTATE in err, "" for none.
func code(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}

// wrap translates an error of the engine for callers. What their own context ended is the context's
// error; what says nothing about the statement is an unavailable store.
func wrap(ctx context.Context, err error) error {
	switch {
	case err == nil || errors.Is(err, users.ErrUnavailable):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return users.ErrNotFound
	case ctx.Err() != nil && (code(err) == "" || code(err) == canceled):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case outOfConnections(err):
		return fmt.Errorf("%w: %w", users.ErrExhausted, err)
	case unavailable(err):
		return fmt.Errorf("%w: %w", users.ErrUnavailable, err)
	case handleTaken(err):
		return users.ErrHandleTaken
	}
	return err
}

// outOfConnections is the server, or the pooler before it, refusing one more client.
func outOfConnections(err error) bool {
	var answer *pgconn.PgError
	return code(err) == tooManyConnections ||
		errors.As(err, &answer) && answer.Code == "08P01" && strings.Contains(answer.Message, "no more connections")
}

// unavailable are the failures of the engine, by class: connections (08), resources (53), an operator
// (57), the system (58), retries used up (40), login refused (28), and names of statements that a pooler
// has lost (26000, 42P05: see [Config.Prepare]).
func unavailable(err error) bool {
	c := code(err)
	switch c {
	case readOnly, lockTimeout, idleSession, longTransaction, "26000", "42P05", "3D000", "XX000", "XX001", "XX002":
		return true
	case "":
		return ofConnection(err)
	}
	switch c[:2] {
	case "08", "28", "40", "53", "57", "58":
		return true
	}
	return false
}

// ofConnection is an error that the server did not say: no connection, or one that broke.
func ofConnection(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func handleTaken(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == uniqueViolation && answer.ConstraintName == "users_handle"
}

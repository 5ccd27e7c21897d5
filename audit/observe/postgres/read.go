package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/audit/observe"
)

const (
	mostTables = 5000
	// mostKept bounds the statements that the server may have kept; its own default is 5,000.
	mostKept = 20000
)

// tally is the counters of the database and of all its tables, by which a change is noticed. Our own transactions
// are not in it.
type tally struct {
	commits, rollbacks, deadlocks, sessions int64
	written, scanned, live                  int64
	foreign                                 int64 // rows written in other databases
}

// reading is all counters at one time.
type reading struct {
	tally
	at             time.Time // the server's clock
	started, reset time.Time // since when the server counts
	xid            int64     // the first transaction that had not written yet
	tables         map[uint32]Table
	statements     map[int64]count
	tooMany        bool // statements to compare them
}

type count struct {
	calls, rows, pages int64
	ms                 float64
}

// flush makes what our own connection did part of the counters, and says how much that is.
func (o *Observer) flush(ctx context.Context) (own int64, err error) {
	if o.server.flush {
		if err := o.rows(ctx, "SELECT pg_stat_force_next_flush()", nil, func(pgx.Rows) error { return nil }); err != nil {
			return 0, err
		}
	}
	return o.transactions, nil
}

func (o *Observer) tally(ctx context.Context) (t tally, err error) {
	own, err := o.flush(ctx)
	if err != nil {
		return t, err
	}
	err = o.row(ctx, `SELECT d.xact_commit, d.xact_rollback, d.deadlocks, d.sessions, d.tup_inserted + d.tup_updated + d.tup_deleted,
		(SELECT coalesce(sum(seq_tup_read + coalesce(idx_scan, 0)), 0)::int8 FROM pg_stat_user_tables),
		(SELECT coalesce(sum(n_live_tup), 0)::int8 FROM pg_stat_user_tables),
		(SELECT coalesce(sum(tup_inserted + tup_updated + tup_deleted), 0)::int8 FROM pg_stat_database o WHERE o.datid NOT IN (0, d.datid))
		FROM pg_stat_database d WHERE d.datname = current_database()`,
		[]any{&t.commits, &t.rollbacks, &t.deadlocks, &t.sessions, &t.written, &t.scanned, &t.live, &t.foreign})
	if o.server.flush {
		t.commits -= own
	} else {
		t.commits = max(0, t.commits-own) // ours are counted late, so that this is not exact
	}
	return t, err
}

func (o *Observer) read(ctx context.Context) (r reading, err error) {
	if r.tally, err = o.tally(ctx); err != nil {
		return r, err
	}
	xid := "pg_snapshot_xmax(pg_current_snapshot())::text::int8"
	if !o.server.has(WriteCommits) {
		xid = "0::int8"
	}
	err = o.row(ctx, "SELECT clock_timestamp(), pg_postmaster_start_time(), coalesce(stats_reset, 'epoch'), "+xid+
		" FROM pg_stat_database WHERE datname = current_database()", []any{&r.at, &r.started, &r.reset, &r.xid})
	if err != nil {
		return r, err
	}
	if r.tables, err = o.tables(ctx); err != nil {
		return r, err
	}
	if o.server.has(Statements) {
		r.statements, err = o.counts(ctx)
		r.tooMany = len(r.statements) > mostKept
	}
	return r, err
}

func (o *Observer) tables(ctx context.Context) (map[uint32]Table, error) {
	all := map[uint32]Table{}
	sql := fmt.Sprintf(`SELECT s.relid, s.schemaname || '.' || s.relname, s.seq_scan, s.seq_tup_read, coalesce(s.idx_scan, 0),
		greatest(s.n_live_tup, c.reltuples::int8, 0), s.n_tup_ins, s.n_tup_upd, s.n_tup_del
		FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid ORDER BY s.relid LIMIT %d`, mostTables)
	err := o.rows(ctx, sql, nil, func(rows pgx.Rows) error {
		var id uint32
		var t Table
		err := rows.Scan(&id, &t.Name, &t.SeqScans, &t.SeqRows, &t.IndexScans, &t.LiveRows, &t.Inserted, &t.Updated, &t.Deleted)
		all[id] = t
		return err
	})
	return all, err
}

// counts is what pg_stat_statements knows of this database, without texts, for the server reads those from a file.
func (o *Observer) counts(ctx context.Context) (map[int64]count, error) {
	all := map[int64]count{}
	sql := fmt.Sprintf(`SELECT queryid, sum(calls)::int8, sum(rows)::int8, sum(total_exec_time), sum(shared_blks_hit + shared_blks_read)::int8 FROM %s(false)
		WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND toplevel AND queryid IS NOT NULL
		GROUP BY queryid ORDER BY 2 DESC LIMIT %d`, o.server.statements, mostKept+1)
	err := o.rows(ctx, sql, nil, func(rows pgx.Rows) error {
		var id int64
		var c count
		err := rows.Scan(&id, &c.calls, &c.rows, &c.ms, &c.pages)
		all[id] = c
		return err
	})
	return all, err
}

// holders are sessions that may not have counted yet all of what they did.
type holders struct {
	known   bool
	working int // in a statement or a transaction that began in the window
	idle    int // between transactions, for less time than they may hold it back
}

func (o *Observer) holders(ctx context.Context, began time.Time) (h holders, err error) {
	if !o.server.has(Sessions) {
		return h, nil
	}
	h.known = true
	err = o.row(ctx, `SELECT count(*) FILTER (WHERE state <> 'idle'),
		count(*) FILTER (WHERE state = 'idle' AND (NOT $2::bool OR clock_timestamp() - state_change < $3::int8 * interval '1 millisecond'))
		FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
		AND application_name <> '`+applicationName+`' AND state_change >= $1::timestamptz`, []any{&h.working, &h.idle},
		began, o.server.idleFlush, idleHolds.Milliseconds())
	return h, err
}

// errReset says that what was read before cannot be compared with what was read after.
var errReset = errors.New("the counters were reset, or the server restarted, during the window; run it again")

// compare says what happened between two readings.
func (o *Observer) compare(ctx context.Context, before, after reading, atOnce bool) (Observation, error) {
	if !before.started.Equal(after.started) || !before.reset.Equal(after.reset) {
		return Observation{}, o.fault("compare the counters", errReset)
	}
	obs := Observation{MaxConnections: o.server.maxConnections}
	obs.Known = Known{
		Sessions: o.server.has(Sessions), Opened: o.server.has(Counters), Counters: o.server.has(Counters) && !atOnce,
		Statements: o.server.has(Statements) && !before.tooMany && !after.tooMany,
	}
	obs.SessionsOpened = after.sessions - before.sessions
	obs.OthersWrote = after.foreign != before.foreign
	if obs.Known.Counters {
		obs.Commits = max(0, after.commits-before.commits)
		obs.Rollbacks = after.rollbacks - before.rollbacks
		obs.Deadlocks = after.deadlocks - before.deadlocks
		obs.Tables = o.changed(ctx, before.tables, after.tables)
	}
	o.degrade(&obs, before, after)
	if obs.Known.Statements {
		if err := o.texts(ctx, &obs, before.statements, after.statements); err != nil {
			obs.Known.Statements = false
			obs.Doubts = append(obs.Doubts, "the texts of statements cannot be read: "+observe.Redact(err, o.settings.Password))
		}
	}
	if o.server.has(WriteCommits) {
		if err := o.written(ctx, &obs, before.xid, after.xid); err != nil {
			return Observation{}, o.fault("ask what was committed", err)
		}
	}
	return obs, nil
}

func (o *Observer) degrade(obs *Observation, before, after reading) {
	if before.tooMany || after.tooMany {
		obs.Doubts = append(obs.Doubts, fmt.Sprintf("pg_stat_statements keeps more than %d statements of this database, too many to compare; "+
			"SELECT pg_stat_statements_reset() helps", mostKept))
	}
	if len(after.tables) == mostTables {
		obs.Doubts = append(obs.Doubts, fmt.Sprintf("the database has more than %d tables; the newest were not watched", mostTables))
	}
	if !o.server.flush {
		obs.Doubts = append(obs.Doubts, "before Postgres 15 an idle session keeps its last counters, and commits include some of this observer")
	}
}

// mostXIDs bounds how many transactions are asked for their end.
const mostXIDs = 50000

// written counts the transactions that wrote and were committed: only those are given a number, and the server
// knows at once how each ended. A savepoint that wrote has a number too and is taken off; that of an exception block in
// PL/pgSQL is not known, but there are never more than commits, once those are certain.
func (o *Observer) written(ctx context.Context, obs *Observation, from, to int64) error {
	if to-from > mostXIDs {
		obs.Doubts = append(obs.Doubts, fmt.Sprintf("more than %d transactions wrote; the rest were not counted", mostXIDs))
		to = from + mostXIDs
	}
	err := o.row(ctx, `SELECT count(*) FROM generate_series($1::int8, $2::int8 - 1) AS x WHERE pg_xact_status(x::text::xid8) = 'committed'`,
		[]any{&obs.writeXIDs}, from, to)
	obs.Known.WriteCommits = err == nil
	return err
}

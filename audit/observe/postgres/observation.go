package postgres

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

const (
	mostStatements = 200
	mostIdle       = 20
	mostWaits      = 20
)

// Observation is what happened in the database between the beginning and the end of a window. Our own connection is
// in none of it.
type Observation struct {
	// Duration is from Begin to the call of End: the time the requests took, not that for which End waited.
	Duration time.Duration
	// Settled says that Commits, Rollbacks, Deadlocks and Tables are what the window did. If not, some of it may be missing, and
	// something that was done before may be in it.
	Settled bool
	// Known says which of the figures mean something.
	Known Known
	// Doubts are sentences on what makes figures less than exact.
	Doubts []string

	// SessionsActive are those that worked in the window and are still there.
	SessionsActive int
	// SessionsOpened counts connections to the database, as the server does; SessionsSeen those of them that were seen in
	// the list of sessions, and SessionsLeft how many of these were there at the end.
	SessionsOpened             int64
	SessionsSeen, SessionsLeft int
	// PeakSessions is the most connections to the database at one time, PeakConnections those to the whole
	// server, of which it allows MaxConnections.
	PeakSessions, PeakConnections, MaxConnections int

	// Commits and Rollbacks count transactions, those that only read too.
	Commits, Rollbacks int64
	// WriteCommits counts transactions that wrote something, or locked rows, and were committed.
	WriteCommits int64
	// OthersWrote says that there were writes in other databases of the server, whose transactions are in WriteCommits too.
	OthersWrote bool
	Deadlocks   int64

	// Statements are the 200 with the most calls, by their text.
	Statements []Statement
	// Tables are the 200 in which most rows were read in sequence, among those that were used.
	Tables []Table
	// Idle are sessions seen idle in transaction, and Waits sessions seen waiting for a lock: the 20 longest.
	Idle  []IdleInTransaction
	Waits []LockWait

	writeXIDs, savepoints int64
}

// Known is one flag for each capability.
type Known struct {
	// Opened is for SessionsOpened, Sessions for the rest that is about them, for Idle and Waits.
	Sessions, Opened bool
	// Counters is for Commits, Rollbacks, Deadlocks and Tables.
	Counters, Statements, WriteCommits bool
}

// Statement is what was done by statements that differ in nothing but literals, comments, spaces and the length of lists.
type Statement struct {
	Text        string // see [Normalise]
	Calls, Rows int64
	Pages       int64         // read, from the cache or from a file
	Time        time.Duration // in the server
}

// Table is what was done to a table.
type Table struct {
	Name string // with its schema
	// SeqScans counts scans from end to end, one for each worker of a parallel one, and SeqRows the rows they read.
	SeqScans, SeqRows, IndexScans int64
	// LiveRows is the server's estimate of how many rows there are at the end.
	LiveRows int64
	// Pages is how many a sequential scan reads, 0 where that is not known.
	Pages                      int64
	Inserted, Updated, Deleted int64
}

// IdleInTransaction is sessions that had begun a transaction and did nothing.
type IdleInTransaction struct {
	Application string // application_name
	Last        string // the statement before, see [Normalise]
	Longest     time.Duration
	// Left says that one was still so when the window ended, Before that they began before it.
	Left, Before bool
}

// LockWait is sessions that waited for a lock of another.
type LockWait struct {
	Waiting, Blocking string // their statements; that of a blocker may be one it ran before
	Longest           time.Duration
}

// finish completes what needs all figures. See [Observer.written] for the transactions that wrote.
func (o *Observation) finish() {
	o.WriteCommits = max(0, o.writeXIDs-o.savepoints)
	if o.Settled {
		o.WriteCommits = min(o.WriteCommits, o.Commits)
	} else if o.Known.Counters {
		o.Doubts = append(o.Doubts, "sessions may be holding back what they counted, or have given away in the window what they did before: commits, rollbacks, deadlocks and tables are not exact")
	}
}

// changed is what was done to the tables that were used at all.
func changed(before, after map[uint32]Table) map[uint32]Table {
	all := map[uint32]Table{}
	for id, t := range after {
		old := before[id]
		t.SeqScans -= old.SeqScans
		t.SeqRows -= old.SeqRows
		t.IndexScans -= old.IndexScans
		t.Inserted -= old.Inserted
		t.Updated -= old.Updated
		t.Deleted -= old.Deleted
		if t.SeqScans+t.IndexScans+t.Inserted+t.Updated+t.Deleted > 0 {
			all[id] = t
		}
	}
	return all
}

// changed is the tables that were used, those that were scanned most first and with their size. The size of one that is
// locked stays unknown.
func (o *Observer) changed(ctx context.Context, before, after map[uint32]Table) []Table {
	used := changed(before, after)
	ids := slices.SortedFunc(maps.Keys(used), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(used[b].SeqRows, used[a].SeqRows), cmp.Compare(used[a].Name, used[b].Name))
	})
	all := make([]Table, min(len(ids), mostTablesReported))
	for i := range all {
		all[i] = used[ids[i]]
		if i < mostSized && all[i].SeqRows >= largeTable {
			_ = o.row(ctx, "SELECT coalesce(pg_relation_size($1::oid::regclass), 0) / current_setting('block_size')::int", []any{&all[i].Pages}, ids[i])
		}
	}
	return all
}

const (
	mostTablesReported = 200
	mostSized          = 20
)

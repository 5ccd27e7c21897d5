// Package postgres watches the database behind an audited API while requests are sent, and says what they
// did there: connections opened, statements by text, tables read from end to end, transactions that wrote, left
// open or deadlocked. It reads what Postgres 14 or later counts by itself, and writes nothing.
//
// Begin with [Open], then [Observer.Begin], the requests, and [Window.End]. The role needs pg_monitor
// (or pg_read_all_stats) to see the sessions of others, and the database the extension pg_stat_statements
// to tell statements apart; what lacks is named by [Observer.Capabilities], and everything else still works.
//
//	CREATE ROLE audit LOGIN PASSWORD '...'; GRANT pg_monitor TO audit;
//
// The surprise: counters come late. A session adds what it did to pg_stat_database and to the tables' statistics when it is
// between transactions, at most once a second, and keeps the rest when it becomes idle, as the connections of a pool do: for
// up to 10 s since Postgres 15, before that until it works again. Two equal readings prove nothing therefore, and what
// was done before a window may be counted in it. So [Observer.Begin] and [Window.End] wait until no session can be holding
// anything back, and End until nothing has changed for 1.2 s: 1.2 s after requests whose connections are closed, about 10 s
// after those of a pool, 12 s at most. [Observation.Settled] says whether it came to that. Statements, sessions and
// transactions that wrote are counted at once; [Observer.BeginAtOnce] is for them alone, and waits for nothing.
//
// A window sees all that happens in the database, not only what the requests did. Verdicts are therefore
// about figures per request, and need a database that is otherwise quiet: compare with a window in which nothing is sent.
package postgres

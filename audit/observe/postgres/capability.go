package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/audit/observe"
)

// server is what there is to read, found out at each connection.
type server struct {
	version        int
	maxConnections int
	standby        bool
	flush          bool   // pg_stat_force_next_flush exists: our own counters can be made exact
	idleFlush      bool   // an idle session gives its counters away after a while
	statements     string // the qualified function pg_stat_statements, "" when it cannot be used

	missing map[string]observe.Capability
}

// Names of the capabilities.
const (
	Sessions     = "sessions"      // who is connected, since when, doing what
	Counters     = "counters"      // commits, rollbacks, deadlocks, sessions, scans and writes by table
	Statements   = "statements"    // calls, rows and time by statement
	WriteCommits = "write commits" // transactions that wrote
)

func (s server) capabilities() []observe.Capability {
	var all []observe.Capability
	for _, name := range []string{Sessions, Counters, Statements, WriteCommits} {
		c, missing := s.missing[name]
		if !missing {
			c = observe.Capability{Name: name, Available: true}
		}
		all = append(all, c)
	}
	return all
}

func (s server) lacks(name, why, fix string) {
	s.missing[name] = observe.Capability{Name: name, Why: why, Fix: fix}
}

func (s server) has(name string) bool {
	_, missing := s.missing[name]
	return !missing
}

func (o *Observer) discover(ctx context.Context) error {
	s := server{missing: map[string]observe.Capability{}}
	var role, database string
	var reader, counts, activities bool
	err := o.row(ctx, `SELECT current_setting('server_version_num')::int, current_setting('max_connections')::int, pg_is_in_recovery(),
		pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), current_setting('track_counts')::bool,
		current_setting('track_activities')::bool, quote_ident(current_user), quote_ident(current_database())`,
		[]any{&s.version, &s.maxConnections, &s.standby, &reader, &counts, &activities, &role, &database})
	if err != nil {
		return o.fault("ask what can be seen", err)
	}
	if s.version < oldest {
		return fmt.Errorf("observe postgres: %s: version %d is too old; Postgres 14 or later counts what is needed", o.where(), s.version/10000)
	}
	s.flush, s.idleFlush = s.version >= 150000, s.version >= 150000
	if s.standby {
		s.lacks(WriteCommits, "the server is a standby, which does not write", "give the address of the primary")
	}
	if !counts {
		s.lacks(Counters, "track_counts is off", "ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()")
	}
	grant := fmt.Sprintf("GRANT pg_monitor TO %s", role)
	switch {
	case !reader:
		why := fmt.Sprintf("role %s is a member of neither pg_monitor nor pg_read_all_stats, so it does not see what other roles do", role)
		s.lacks(Sessions, why, grant)
		s.lacks(Statements, why, grant)
	case !activities:
		s.lacks(Sessions, "track_activities is off", "ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf()")
	}
	if s.has(Statements) {
		if err := o.discoverStatements(ctx, &s, database); err != nil {
			return err
		}
	}
	o.server = s
	return nil
}

// discoverStatements looks for pg_stat_statements, which must be loaded at the server's start and created in
// this database.
func (o *Observer) discoverStatements(ctx context.Context, s *server, database string) error {
	create := fmt.Sprintf(`in database %s: CREATE EXTENSION pg_stat_statements`, database)
	preload := `ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements' (with those that are there already), restart Postgres, then ` + create
	var schema, track string
	err := o.row(ctx, `SELECT coalesce((SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
		WHERE e.extname = 'pg_stat_statements'), ''), coalesce(current_setting('pg_stat_statements.track', true), '')`, []any{&schema, &track})
	if err != nil {
		return o.fault("look for pg_stat_statements", err)
	}
	switch {
	case schema == "" && track == "":
		s.lacks(Statements, "the extension pg_stat_statements is not installed", preload)
	case schema == "":
		s.lacks(Statements, fmt.Sprintf("the extension pg_stat_statements is loaded, but not created in database %s", database), create)
	case track == "none":
		s.lacks(Statements, "pg_stat_statements.track is none", "ALTER SYSTEM SET pg_stat_statements.track = top; SELECT pg_reload_conf()")
	default:
		s.statements = pgx.Identifier{schema, "pg_stat_statements"}.Sanitize()
		var n int64
		if err := o.row(ctx, "SELECT count(toplevel) FROM "+s.statements+"(false) WHERE total_exec_time < 0", []any{&n}); err != nil {
			s.lacks(Statements, "pg_stat_statements cannot be read: "+observe.Redact(err, o.settings.Password), preload+", or ALTER EXTENSION pg_stat_statements UPDATE")
		}
	}
	return nil
}

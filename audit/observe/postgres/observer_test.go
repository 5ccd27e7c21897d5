package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/observe/postgres"
	"github.com/gantryhq/gantry/internal/testenv"
)

// lacking is the capabilities that are not available, by name.
func lacking(o *postgres.Observer) map[string]observe.Capability {
	missing := map[string]observe.Capability{}
	for _, c := range o.Capabilities() {
		if !c.Available {
			missing[c.Name] = c
		}
	}
	return missing
}

func TestWhatARoleMayNotSeeIsNamedAndTheRestWorks(t *testing.T) {
	w := newWorld(t)
	if got := lacking(w.observer); len(got) != 0 || len(w.observer.Capabilities()) != 4 {
		t.Errorf("with pg_monitor %v is missing of %v", got, w.observer.Capabilities())
	}
	w.server.Exec(w.database, `CREATE ROLE "Plain" LOGIN`)
	plain := open(t, w.server.URLAs("Plain", w.database))
	got := lacking(plain)
	for _, name := range []string{postgres.Sessions, postgres.Statements} {
		if got[name].Fix != `GRANT pg_monitor TO "Plain"` || !strings.Contains(got[name].Why, "pg_read_all_stats") {
			t.Errorf("%s: %+v, want the grant", name, got[name])
		}
	}
	url := serve(t, w.eachOwn(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "UPDATE orders SET total = 1 WHERE id = 1")
		return err
	}))
	window := begin(t, plain.Begin)
	get(t, url, 10)
	obs, err := window.End(t.Context())
	logged(t, obs, err)
	if obs.Known != (postgres.Known{Opened: true, Counters: true, WriteCommits: true}) || obs.Settled {
		t.Errorf("known %+v, settled %v; want counters and writes", obs.Known, obs.Settled)
	}
	wantOutcome(t, postgres.PoolVerdict(obs, 10), observe.Fail)
	wantOutcome(t, postgres.WriteCommitsPerRequest(obs, 10), observe.Pass)
	wantOutcome(t, postgres.IdleTransactions(obs), observe.Unknown)
	wantOutcome(t, postgres.Growth(map[int]postgres.Observation{1: obs, 50: obs}, 10), observe.Unknown)
	wantOutcome(t, postgres.MissingIndexes(obs, 10), observe.Unknown)

	w.server.Exec(w.database, `GRANT pg_read_all_stats TO "Plain"`)
	if got := lacking(open(t, w.server.URLAs("Plain", w.database))); len(got) != 0 {
		t.Errorf("after the grant %v is missing", got)
	}
}

func TestPgStatStatementsMissesByName(t *testing.T) {
	for name, c := range map[string]struct {
		settings []string
		fix      string
	}{
		"not loaded":  {nil, "shared_preload_libraries"},
		"not created": {[]string{"shared_preload_libraries=pg_stat_statements"}, "CREATE EXTENSION pg_stat_statements"},
	} {
		t.Run(name, func(t *testing.T) {
			server := testenv.NewPostgres(t, c.settings...)
			got := lacking(open(t, server.URLAs("postgres", server.NewDatabase())))
			if len(got) != 1 || !strings.Contains(got[postgres.Statements].Fix, c.fix) {
				t.Errorf("missing: %+v, want the statements and %s", got, c.fix)
			}
		})
	}
	t.Run("created, but not loaded", func(t *testing.T) {
		server := testenv.NewPostgres(t)
		db := server.NewDatabase()
		server.Exec(db, "CREATE EXTENSION pg_stat_statements")
		if got := lacking(open(t, server.URLAs("postgres", db))); len(got) != 1 || !strings.Contains(got[postgres.Statements].Why, "shared_preload_libraries") {
			t.Errorf("missing: %+v, want the statements, and what Postgres says", got)
		}
	})
	t.Run("track_counts off", func(t *testing.T) {
		server := testenv.NewPostgres(t, "track_counts=off", "track_activities=off")
		got := lacking(open(t, server.URLAs("postgres", server.NewDatabase())))
		if !strings.Contains(got[postgres.Counters].Fix, "track_counts") || !strings.Contains(got[postgres.Sessions].Fix, "track_activities") {
			t.Errorf("missing: %+v, want counters and sessions", got)
		}
	})
}

func TestTheObserverSeesNeitherItselfNorOtherDatabases(t *testing.T) {
	w := newWorld(t)
	other := w.server.NewDatabase()
	window := begin(t, w.observer.Begin)
	open(t, w.server.URLAs("watcher", w.database)) // of another audit
	w.server.Exec(other, "CREATE TABLE t AS SELECT 1 AS n; SELECT * FROM t")
	obs, err := window.End(t.Context())
	logged(t, obs, err)
	if len(obs.Statements)+len(obs.Tables)+obs.SessionsSeen+obs.PeakSessions != 0 || obs.Commits > 10 {
		t.Errorf("saw %+v, want nothing but what opening the other one committed", obs)
	}
	if !obs.OthersWrote {
		t.Error("that another database was written to is not said")
	}
	wantOutcome(t, postgres.MissingIndexes(obs, 10), observe.Unknown)
}

func TestOneWindowAtATime(t *testing.T) {
	w := newWorld(t)
	window := begin(t, w.observer.BeginAtOnce)
	if _, err := w.observer.Begin(t.Context()); !errors.Is(err, postgres.ErrBusy) {
		t.Errorf("a second window: %v, want ErrBusy", err)
	}
	if _, err := window.End(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := window.End(t.Context()); !errors.Is(err, postgres.ErrClosed) {
		t.Errorf("ended twice: %v, want ErrClosed", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	window = begin(t, w.observer.BeginAtOnce)
	cancel()
	if _, err := window.End(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended by a cancelled context: %v", err)
	}
	window = begin(t, w.observer.BeginAtOnce)
	if err := w.observer.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := window.End(t.Context()); !errors.Is(err, postgres.ErrClosed) {
		t.Errorf("ended after Close: %v, want ErrClosed", err)
	}
	if _, err := w.observer.Begin(t.Context()); !errors.Is(err, postgres.ErrClosed) {
		t.Errorf("begun after Close: %v, want ErrClosed", err)
	}
}

func TestCloseEndsABeginThatWaits(t *testing.T) {
	w := newWorld(t)
	if err := w.pool.Ping(t.Context()); err != nil { // and hold back for 10 s
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := w.observer.Begin(t.Context())
		result <- err
	}()
	waitOnServer(t, w, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'gantry-audit' AND query LIKE '%state_change%'")
	if err := w.observer.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, postgres.ErrClosed) {
		t.Errorf("Begin = %v, want ErrClosed", err)
	}
}

func TestAServerThatRestartsSpoilsOneWindowOnly(t *testing.T) {
	w := newWorld(t)
	window := begin(t, w.observer.BeginAtOnce)
	w.server.Restart()
	if obs, err := window.End(t.Context()); err == nil {
		t.Errorf("a window over a restart observed %+v", obs)
	}
	url := serve(t, w.eachOwn(func(ctx context.Context, c *pgx.Conn) error { return c.Ping(ctx) }))
	if obs := w.atOnce(t, func() { get(t, url, 3) }); obs.SessionsOpened != 3 {
		t.Errorf("%d sessions after the restart, want 3", obs.SessionsOpened)
	}
	window = begin(t, w.observer.BeginAtOnce)
	w.server.Exec(w.database, "SELECT pg_stat_reset()")
	if obs, err := window.End(t.Context()); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a window over a reset: %+v, %v", obs, err)
	}
}

func TestAFrozenServerDoesNotHoldTheAudit(t *testing.T) {
	w := newWorld(t)
	window := begin(t, w.observer.BeginAtOnce)
	w.server.Freeze()
	defer w.server.Thaw()
	began := time.Now()
	if _, err := window.End(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("End = %v, want a deadline", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("End took %v", took)
	}
}

func TestThePasswordIsInNoError(t *testing.T) {
	const password = "hunter2secret"
	server := testenv.NewPostgres(t)
	for _, dsn := range []string{
		"postgres://nobody:" + password + "@" + strings.TrimPrefix(server.URL("none"), "postgres://gantry@"),
		"postgres://nobody:" + password + "@127.0.0.1:1/none",
		"postgres://nobody:#" + password + "@127.0.0.1/none", "postgres://nobody:%" + password + "@127.0.0.1/none",
		"postgres://no:" + password + "/x@127.0.0.1/none", "host=127.0.0.1 password='" + password, "password=" + password + " =",
		"host=127.0.0.1 port=1 password=" + password,
	} {
		_, err := postgres.Open(t.Context(), dsn)
		if err == nil || strings.Contains(err.Error(), password) || !strings.HasPrefix(err.Error(), "observe postgres: ") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func TestAPoolerIsRefused(t *testing.T) {
	server := testenv.NewPostgres(t)
	db := server.NewDatabase()
	bouncer := testenv.NewPgBouncer(t, server)
	if _, err := postgres.Open(t.Context(), bouncer.URL(db)); err == nil || !strings.Contains(err.Error(), "PgBouncer") {
		t.Errorf("Open through a pooler = %v", err)
	}
}

func TestNormaliseLeavesNothingPrivate(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT  *\nFROM t WHERE a = 'it''s' AND b=-12.5e3;":    "SELECT * FROM t WHERE a = ? AND b=-?",
		`SELECT E'it\'s', 'C:\', 'x', "Col'1", t1.c2 FROM t1`:   `SELECT ?, ?, ?, "Col'1", t1.c2 FROM t1`,
		"SELECT $1, $$secret$$, $tag$se$$cret$tag$, a$b FROM t": "SELECT ?, ?, ?, a$b FROM t",
		"SELECT 1 -- secret\n/* secret */ FROM t":               "SELECT ? FROM t",
		"SELECT 'never ends":  "SELECT ?",
		"SELECT $$never ends": "SELECT ?",
		"/* never ends":       "",
		"SELECT a FROM t WHERE id IN ($1, $2,$3) AND b in ( 7 )": "SELECT a FROM t WHERE id IN (?...) AND b in (?...)",
		"INSERT INTO t VALUES ($1::int, 'x'), ($3::int[], 'y')":  "INSERT INTO t VALUES (?...)",
		"SAVEPOINT s12_x4":                                         "SAVEPOINT",
		`ROLLBACK TO SAVEPOINT "s 1"`:                              "ROLLBACK TO SAVEPOINT",
		"release savepoint abc":                                    "RELEASE SAVEPOINT",
		"ALTER ROLE x PASSWORD 'secret'":                           "ALTER ROLE x PASSWORD ?",
		"SELECT B'01', x'ff', N'a', U&'b', 0xFF, 1_000, .5 FROM é": "SELECT ?, ?, ?, ?, ?, ?, .? FROM é",
	} {
		if diff := cmp.Diff(want, postgres.Normalise(sql)); diff != "" {
			t.Errorf("Normalise(%q): (-want +got)\n%s", sql, diff)
		}
	}
}

func FuzzNormaliseHidesLiterals(f *testing.F) {
	f.Add("it's", "a b")
	f.Add("\\", "x")
	f.Fuzz(func(t *testing.T, secret, rest string) {
		if strings.ContainsAny(secret, "\x00") || len(secret)+len(rest) > 1000 {
			t.Skip()
		}
		const marker = "Zqxjk"
		sql := "SELECT '" + strings.ReplaceAll(secret, "'", "''") + marker + "', " + strings.ReplaceAll(rest, marker, "")
		if got := postgres.Normalise(sql); strings.Contains(got, marker) {
			t.Errorf("Normalise(%q) = %q", sql, got)
		}
	})
}

package postgres_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/observe/postgres"
	"github.com/gantryhq/gantry/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a database of a shop, and an observer with the role that the documentation asks for.
type world struct {
	server   *testenv.Postgres
	database string
	pool     *pgxpool.Pool
	observer *postgres.Observer
}

const shop = `
	CREATE TABLE customers (id int PRIMARY KEY, name text);
	CREATE TABLE orders (id int PRIMARY KEY, customer int, note text, total int NOT NULL DEFAULT 0);
	INSERT INTO customers SELECT n, 'name ' || n FROM generate_series(1, 100) n;
	INSERT INTO orders SELECT n, 1 + n % 100, 'note ' || n FROM generate_series(1, 5000) n;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO gantry;
	CREATE EXTENSION pg_stat_statements;
	ANALYZE`

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{server: testenv.NewPostgres(t, "shared_preload_libraries=pg_stat_statements", "deadlock_timeout=50ms")}
	w.database = w.server.NewDatabase()
	w.server.Exec(w.database, shop)
	w.server.Exec(w.database, "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher")
	var err error
	if w.pool, err = pgxpool.New(t.Context(), w.server.URL(w.database)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	w.observer = open(t, w.server.URLAs("watcher", w.database))
	return w
}

func open(t *testing.T, dsn string) *postgres.Observer {
	t.Helper()
	o, err := postgres.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return o
}

// serve is a real server in front of handle, whose error becomes a 500.
func serve(t *testing.T, handle func(r *http.Request) error) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handle(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s.URL
}

// get sends n requests, one after another.
func get(t *testing.T, url string, n int) {
	t.Helper()
	for range n {
		if status, err := status(t, url); err != nil || status != http.StatusOK {
			t.Fatalf("GET %s: %d, %v", url, status, err)
		}
	}
}

func status(t *testing.T, url string) (int, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func begin(t *testing.T, how func(context.Context) (*postgres.Window, error)) *postgres.Window {
	t.Helper()
	w, err := how(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// during is what a whole window observed; atOnce does not wait for the counters.
func (w *world) during(t *testing.T, requests func()) postgres.Observation {
	t.Helper()
	window := begin(t, w.observer.Begin)
	requests()
	obs, err := window.End(t.Context())
	return logged(t, obs, err)
}

func (w *world) atOnce(t *testing.T, requests func()) postgres.Observation {
	t.Helper()
	window := begin(t, w.observer.BeginAtOnce)
	requests()
	obs, err := window.End(t.Context())
	return logged(t, obs, err)
}

func logged(t *testing.T, obs postgres.Observation, err error) postgres.Observation {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", obs)
	return obs
}

func wantOutcome(t *testing.T, got observe.Verdict, want observe.Outcome) {
	t.Helper()
	t.Logf("%+v", got)
	if got.Outcome != want {
		t.Errorf("outcome = %v, want %v: %s", got.Outcome, want, got.Reason)
	}
	if got.Reason == "" || (got.Outcome != observe.Pass) != (got.Fix != "") {
		t.Errorf("a verdict of %v with reason %q and fix %q", got.Outcome, got.Reason, got.Fix)
	}
}

// eachOwn makes a handler whose requests have a connection of their own.
func (w *world) eachOwn(do func(context.Context, *pgx.Conn) error) func(*http.Request) error {
	return func(r *http.Request) error {
		conn, err := pgx.Connect(r.Context(), w.server.URL(w.database))
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(r.Context())) //nolint:errcheck // nothing is lost with it
		return do(r.Context(), conn)
	}
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// all reads every row of a statement.
func all[T any](ctx context.Context, q querier, sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

func path(url string, size int) string { return fmt.Sprintf("%s/?size=%d", url, size) }

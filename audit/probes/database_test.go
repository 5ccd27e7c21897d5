package probes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/observe/postgres"
	"github.com/gantryhq/gantry/audit/observe/valkey"
	"github.com/gantryhq/gantry/internal/testenv"
)

// shop is an API on a real database, and the observer of that database. Each request has a connection of its own, whose
// counters come when it closes: with a pool the observer would wait for them.
type shop struct {
	dsn      string
	observer *postgres.Observer
}

func newShop(t *testing.T) *shop {
	t.Helper()
	server := testenv.NewPostgres(t, "shared_preload_libraries=pg_stat_statements")
	database := server.NewDatabase()
	server.Exec(database, `
		CREATE TABLE customers (id int PRIMARY KEY, name text);
		CREATE TABLE orders (id int PRIMARY KEY, customer int, note text);
		CREATE TABLE notes (id serial PRIMARY KEY, text text);
		CREATE TABLE counters (id int PRIMARY KEY, n int);
		INSERT INTO counters VALUES (1, 0);
		INSERT INTO customers SELECT n, 'name ' || n FROM generate_series(1, 100) n;
		INSERT INTO orders SELECT n, 1 + n % 100, 'note ' || n FROM generate_series(1, 5000) n;
		GRANT ALL ON ALL TABLES IN SCHEMA public TO gantry; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO gantry;
		CREATE EXTENSION pg_stat_statements;
		ANALYZE`)
	server.Exec(database, "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher")
	o, err := postgres.Open(t.Context(), server.URLAs("watcher", database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close(context.Background()) })
	return &shop{dsn: server.URL(database), observer: o}
}

type query func(ctx context.Context, c *pgx.Conn, r *http.Request) (any, error)

var errInvalid = errors.New("invalid")

// audit runs a probe against the routes, and returns the report.
func (s *shop) audit(t *testing.T, routes map[string]query, knobs func(*audit.Target), id string) audit.Report {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", api(nil))
	for pattern, q := range routes {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			ctx := context.WithoutCancel(r.Context())
			c, err := pgx.Connect(ctx, s.dsn)
			if err != nil {
				answerJSON(w, 503, nil)
				return
			}
			defer c.Close(ctx)
			switch v, err := q(ctx, c, r); {
			case errors.Is(err, errInvalid):
				answerJSON(w, 422, nil)
			case err != nil:
				answerJSON(w, 500, map[string]any{"title": err.Error()})
			default:
				answerJSON(w, 200, v)
			}
		})
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	target, err := audit.ParseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	target.Token, target.ProtectedPaths = "good", []string{"/me"}
	knobs(target)
	report, err := audit.Run(t.Context(), target, All(), audit.Config{
		Active: true, Pace: 1000, Only: []string{id}, Database: s.observer,
		Policy: audit.Policy{RateWindow: time.Second}, // which the run waits for after a load
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func column(ctx context.Context, c *pgx.Conn, sql string, args ...any) ([]string, error) {
	rows, err := c.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// orders lists them, the customer's name fetched by each, or joined.
func orders(eachRow bool) query {
	return func(ctx context.Context, c *pgx.Conn, r *http.Request) (any, error) {
		limit, err := strconv.Atoi(r.FormValue("limit"))
		if err != nil {
			limit = 20
		}
		if !eachRow {
			rows, err := c.Query(ctx, `SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer ORDER BY o.id LIMIT $1`, min(limit, 100))
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowToMap)
		}
		rows, err := c.Query(ctx, `SELECT customer FROM orders ORDER BY id LIMIT $1`, min(limit, 100))
		if err != nil {
			return nil, err
		}
		customers, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return nil, err
		}
		list := []map[string]any{}
		for _, id := range customers {
			names, err := column(ctx, c, "SELECT name FROM customers WHERE id = $1", id)
			if err != nil {
				return nil, err
			}
			list = append(list, map[string]any{"customer": names[0]})
		}
		return list, nil
	}
}

func TestTheDatabaseProvesAQueryForEachRow(t *testing.T) {
	s := newShop(t)
	list := func(t *audit.Target) { t.ListPath = "/orders" }
	f, _ := s.audit(t, map[string]query{"GET /orders": orders(true)}, list, "DAT-06").Find("DAT-06")
	wantOutcome(t, f, audit.Fail, audit.High)
	if !strings.Contains(f.Message, "SELECT name FROM customers WHERE id = ?") || strings.Contains(f.Message, "suspected") {
		t.Errorf("it says %q, want the statement, and no suspicion", f.Message)
	}
	f, _ = s.audit(t, map[string]query{"GET /orders": orders(false)}, list, "DAT-06").Find("DAT-06")
	wantOutcome(t, f, audit.Pass, 0)
	if !strings.Contains(f.Message, "the database saw it") {
		t.Errorf("it says %q, want what the database saw", f.Message)
	}
}

func TestTheDatabaseProvesAMissingIndex(t *testing.T) {
	s := newShop(t)
	find := func(by string) query {
		return func(ctx context.Context, c *pgx.Conn, r *http.Request) (any, error) {
			sql := "SELECT id, note FROM orders ORDER BY id LIMIT 20"
			var args []any
			if value := r.FormValue(by); value != "" {
				sql, args = "SELECT id, note FROM orders WHERE "+by+"::text = $1 LIMIT 20", []any{value}
				if by == "id" {
					sql = "SELECT id, note FROM orders WHERE id = $1::text::int"
				}
			}
			rows, err := c.Query(ctx, sql, args...)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowToMap)
		}
	}
	for by, want := range map[string]audit.Outcome{"note": audit.Fail, "id": audit.Pass} {
		f, _ := s.audit(t, map[string]query{"GET /orders": find(by)}, func(t *audit.Target) {
			t.ListPath = "/orders"
			t.Operations = []audit.Operation{{Method: "GET", Path: "/orders", Params: []audit.Param{{Name: by, In: "query"}}}}
		}, "DAT-08").Find("DAT-08")
		wantOutcome(t, f, want, 0)
		if !strings.Contains(f.Message, "the database saw") {
			t.Errorf("it says %q, want what the database saw", f.Message)
		}
	}
}

func TestTheDatabaseSeesSeveralCommitsOfAWrite(t *testing.T) {
	s := newShop(t)
	for _, twice := range []bool{true, false} {
		routes := map[string]query{
			"POST /notes": func(ctx context.Context, c *pgx.Conn, r *http.Request) (any, error) {
				_, err := c.Exec(ctx, "INSERT INTO notes (text) VALUES ($1)", r.FormValue("text"))
				if twice && err == nil {
					_, err = c.Exec(ctx, "INSERT INTO notes (text) VALUES ('and its history')")
				}
				return map[string]any{"ok": true}, err
			},
			"POST /notes/batch": func(context.Context, *pgx.Conn, *http.Request) (any, error) { return nil, errInvalid },
			"GET /notes": func(ctx context.Context, c *pgx.Conn, _ *http.Request) (any, error) {
				return column(ctx, c, "SELECT text FROM notes ORDER BY id DESC LIMIT 100")
			},
		}
		report := s.audit(t, routes, func(t *audit.Target) {
			t.Recipes = map[string]audit.Recipe{
				"create": {Path: "/notes?text={{marker}}"}, "batch": {Path: "/notes/batch", Body: `["{{marker}}"]`, Read: "/notes"},
			}
		}, "DAT-05")
		f, _ := report.Find("DAT-05")
		wantOutcome(t, f, audit.Pass, 0)
		seen, found := report.Find("DB-commits")
		if found != twice || found && (seen.Root != "DAT-05" || seen.Vantage != "postgres" || seen.FailedAs != audit.High) {
			t.Errorf("two commits %v: found %v, %+v", twice, found, seen)
		}
	}
}

func TestALostUpdateInTheDatabaseIsFoundWhileItIsWatched(t *testing.T) {
	s := newShop(t)
	atomic := func(ctx context.Context, c *pgx.Conn, _ *http.Request) (any, error) {
		_, err := c.Exec(ctx, "UPDATE counters SET n = n + 1 WHERE id = 1")
		return map[string]any{"ok": true}, err
	}
	modified := func(ctx context.Context, c *pgx.Conn, _ *http.Request) (any, error) {
		n := 0
		if err := c.QueryRow(ctx, "SELECT n FROM counters WHERE id = 1").Scan(&n); err != nil {
			return nil, err
		}
		_, err := c.Exec(ctx, "UPDATE counters SET n = $1 WHERE id = 1", n+1)
		return map[string]any{"ok": true}, err
	}
	read := func(ctx context.Context, c *pgx.Conn, _ *http.Request) (any, error) {
		n := 0
		err := c.QueryRow(ctx, "SELECT n FROM counters WHERE id = 1").Scan(&n)
		return map[string]any{"n": fmt.Sprint(n)}, err
	}
	for want, q := range map[audit.Outcome]query{audit.Pass: atomic, audit.Fail: modified} {
		f, _ := s.audit(t, map[string]query{"POST /n": q, "GET /n": read}, func(t *audit.Target) {
			t.Recipes = map[string]audit.Recipe{"counter": {Path: "/n", Read: "/n", Field: "n"}}
		}, "DAT-03").Find("DAT-03")
		wantOutcome(t, f, want, 0)
	}
}

func TestACacheThatIsNeverHitIsSeen(t *testing.T) {
	for _, key := range []string{"", "page"} { // a key of its own for each request, or one for all
		server := testenv.NewRedis(t)
		o, err := valkey.Open(t.Context(), "redis://"+server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { o.Close(context.Background()) })
		h := listAPI(func(w http.ResponseWriter, a asked) {
			name := key
			if name == "" {
				name = fmt.Sprint("page:", a.nth)
			}
			if _, err := server.Do("GET", name); err != nil {
				answerJSON(w, 500, nil)
				return
			}
			if _, err := server.Do("SET", name, "1"); err != nil {
				answerJSON(w, 500, nil)
				return
			}
			answerJSON(w, 200, rowsFrom(0, min(a.limit, 100), 500))
		})
		api := httptest.NewServer(h)
		t.Cleanup(api.Close)
		target, err := audit.ParseTarget(api.URL)
		if err != nil {
			t.Fatal(err)
		}
		target.Token, target.ProtectedPaths, target.ListPath = "good", []string{"/me"}, "/rows"
		report, err := audit.Run(t.Context(), target, All(), audit.Config{Pace: 1000, Only: []string{"DAT-06"}, Cache: o})
		if err != nil {
			t.Fatal(err)
		}
		f, _ := report.Find("DAT-06")
		wantOutcome(t, f, audit.Pass, 0)
		seen, found := report.Find("CACHE-hits")
		if found != (key == "") || found && (seen.Root != "DAT-06" || seen.Vantage != "valkey" || seen.FailedAs != audit.Medium) {
			t.Errorf("key %q: found %v, %+v", key, found, seen)
		}
	}
}

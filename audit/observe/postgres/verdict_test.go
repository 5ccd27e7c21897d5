package postgres_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/observe/postgres"
)

func TestAConnectionForEveryRequestIsFoundAndAPoolIsNot(t *testing.T) {
	w := newWorld(t)
	read := func(ctx context.Context, q querier) error {
		_, err := all[string](ctx, q, "SELECT name FROM customers WHERE id = 7")
		return err
	}
	own := serve(t, w.eachOwn(func(ctx context.Context, c *pgx.Conn) error { return read(ctx, c) }))
	pooled := serve(t, func(r *http.Request) error { return read(r.Context(), w.pool) })

	obs := w.during(t, func() { get(t, own, 20) })
	wantOutcome(t, postgres.PoolVerdict(obs, 20), observe.Fail)
	if obs.SessionsOpened != 20 || !obs.Settled || obs.PeakSessions > 3 {
		t.Errorf("opened %d, settled %v, peak %d; want 20, true, 1 or 2", obs.SessionsOpened, obs.Settled, obs.PeakSessions)
	}
	obs = w.atOnce(t, func() { get(t, pooled, 20) })
	wantOutcome(t, postgres.PoolVerdict(obs, 20), observe.Pass)
	obs = w.atOnce(t, func() { get(t, own, 20) })
	wantOutcome(t, postgres.PoolVerdict(obs, 20), observe.Fail)
	obs = w.atOnce(t, func() {})
	wantOutcome(t, postgres.PoolVerdict(obs, 20), observe.Unknown)
}

func TestAConnectionThatIsLeftOpenIsALeakOrAColdPool(t *testing.T) {
	w := newWorld(t)
	var left []*pgx.Conn
	leak := serve(t, func(r *http.Request) error {
		conn, err := pgx.Connect(context.WithoutCancel(r.Context()), w.server.URL(w.database))
		left = append(left, conn)
		return err
	})
	obs := w.atOnce(t, func() { get(t, leak, 10) })
	for _, conn := range left {
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	v := postgres.PoolVerdict(obs, 10)
	wantOutcome(t, v, observe.Unknown)
	if obs.SessionsLeft != 10 || !strings.Contains(v.Reason, "leak") {
		t.Errorf("%d left, %q; want 10 and a word of a leak", obs.SessionsLeft, v.Reason)
	}
}

// list handles "?size=n": the orders of a page, then their customers as each says.
func (w *world) list(each func(context.Context, []int) error) func(*http.Request) error {
	return func(r *http.Request) error {
		size, err := strconv.Atoi(r.FormValue("size"))
		if err != nil {
			return err
		}
		page, err := all[int](r.Context(), w.pool, "SELECT customer FROM orders ORDER BY id LIMIT $1", size)
		if err != nil {
			return err
		}
		return each(r.Context(), page)
	}
}

func TestStatementsThatGrowWithThePageAreNamed(t *testing.T) {
	w := newWorld(t)
	pages := func(each func(context.Context, []int) error) map[int]postgres.Observation {
		url := serve(t, w.list(each))
		sizes := map[int]postgres.Observation{}
		for _, size := range []int{1, 10, 50} {
			sizes[size] = w.atOnce(t, func() { get(t, path(url, size), 4) })
		}
		return sizes
	}
	one := func(ctx context.Context, page []int) error {
		for _, id := range page {
			if _, err := all[string](ctx, w.pool, "SELECT name FROM customers WHERE id = $1", id); err != nil {
				return err
			}
		}
		return nil
	}
	v := postgres.Growth(pages(one), 4)
	wantOutcome(t, v, observe.Fail)
	want := "calls a request: 1 for 1, 10 for 10, 50 for 50 rows: SELECT name FROM customers WHERE id = ?"
	if len(v.Evidence) != 1 || v.Evidence[0] != want {
		t.Errorf("evidence = %q, want %q", v.Evidence, want)
	}
	// A list in IN has a text of its own for each length, as ORMs write it.
	in := func(ctx context.Context, page []int) error {
		list := make([]string, len(page))
		for i, id := range page {
			list[i] = strconv.Itoa(id)
		}
		_, err := all[string](ctx, w.pool, "SELECT name FROM customers WHERE id IN ("+strings.Join(list, ", ")+")")
		return err
	}
	wantOutcome(t, postgres.Growth(pages(in), 4), observe.Pass)
	joined := func(ctx context.Context, page []int) error {
		_, err := all[string](ctx, w.pool, "SELECT c.name FROM orders o JOIN customers c ON c.id = o.customer ORDER BY o.id LIMIT $1", len(page))
		return err
	}
	wantOutcome(t, postgres.Growth(pages(joined), 4), observe.Pass)
}

func TestATableReadFromEndToEndLacksAnIndex(t *testing.T) {
	w := newWorld(t)
	find := serve(t, w.eachOwn(func(ctx context.Context, c *pgx.Conn) error { // which counts when it closes
		_, err := all[int](ctx, c, "SELECT id FROM orders WHERE note = $1", "note 77")
		return err
	}))
	obs := w.during(t, func() { get(t, find, 12) })
	v := postgres.MissingIndexes(obs, 12)
	wantOutcome(t, v, observe.Fail)
	want := "public.orders: 12 sequential scans read 60000 rows, 5000 a request; it has 5000 rows; 0 scans by index; " +
		"by SELECT id FROM orders WHERE note = ?"
	if len(v.Evidence) != 1 || v.Evidence[0] != want {
		t.Errorf("evidence = %q, want %q", v.Evidence, want)
	}

	count := serve(t, w.eachOwn(func(ctx context.Context, c *pgx.Conn) error {
		_, err := all[int](ctx, c, "SELECT count(*) FROM orders")
		return err
	}))
	w.server.Exec(w.database, "CREATE INDEX ON orders (note); ANALYZE orders")
	obs = w.during(t, func() { get(t, find, 12) })
	wantOutcome(t, postgres.MissingIndexes(obs, 12), observe.Pass)
	// The count reads the table, the other statement finds its row: together they lack no index.
	obs = w.during(t, func() { get(t, count, 12); get(t, find, 12) })
	wantOutcome(t, postgres.MissingIndexes(obs, 12), observe.Unknown)
	if len(obs.Tables) != 1 || obs.Tables[0].SeqScans != 12 || obs.Tables[0].IndexScans != 12 {
		t.Errorf("tables = %+v, want 12 scans of each kind", obs.Tables)
	}
}

// The connection of a pool flushes what the first request did, and keeps the rest for ten seconds.
func TestAWindowWaitsForWhatAnIdlePoolHoldsBack(t *testing.T) {
	w := newWorld(t)
	conn, err := pgx.Connect(t.Context(), w.server.URL(w.database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is lost with it
	url := serve(t, func(r *http.Request) error {
		_, err := all[int](r.Context(), conn, "SELECT count(*) FROM customers")
		return err
	})
	get(t, url, 30)
	began := time.Now()
	window := begin(t, w.observer.Begin)
	waited := time.Since(began)
	get(t, url, 30)
	began = time.Now()
	obs, err := window.End(t.Context())
	logged(t, obs, err)
	for name, took := range map[string]time.Duration{"Begin": waited, "End": time.Since(began)} {
		if took < 5*time.Second || took > 13*time.Second {
			t.Errorf("%s took %v, want about 10 s", name, took)
		}
	}
	if !obs.Settled || len(obs.Tables) != 1 || obs.Tables[0].SeqScans != 30 || obs.Commits != 30 {
		t.Errorf("settled %v, %d commits, tables %+v; want 30 commits and scans of customers", obs.Settled, obs.Commits, obs.Tables)
	}
	obs = w.atOnce(t, func() { get(t, url, 30) })
	if got := calls(obs, "SELECT count(*) FROM customers"); got != 30 || obs.Known.Counters || obs.Settled {
		t.Errorf("at once: %d calls, counters %v, settled %v; want 30 calls only", got, obs.Known.Counters, obs.Settled)
	}
}

func calls(obs postgres.Observation, text string) int64 {
	for _, s := range obs.Statements {
		if s.Text == text {
			return s.Calls
		}
	}
	return 0
}

func TestSeveralWriteCommitsForOneRequestAreCounted(t *testing.T) {
	w := newWorld(t)
	write := func(ctx context.Context, q querier) error {
		for _, sql := range []string{
			"UPDATE orders SET total = total + 1 WHERE id = 5", "UPDATE customers SET name = 'x' WHERE id = 6",
			"INSERT INTO orders SELECT max(id) + 1, 1 FROM orders", "SELECT 1",
		} {
			if _, err := all[int](ctx, q, sql); err != nil {
				return err
			}
		}
		return nil
	}
	each := serve(t, func(r *http.Request) error { return write(r.Context(), w.pool) })
	one := serve(t, func(r *http.Request) error {
		return pgx.BeginFunc(r.Context(), w.pool, func(tx pgx.Tx) error {
			return pgx.BeginFunc(r.Context(), tx, func(nested pgx.Tx) error { return write(r.Context(), nested) })
		})
	})
	read := serve(t, func(r *http.Request) error {
		_, err := all[int](r.Context(), w.pool, "SELECT total FROM orders WHERE id = 5")
		return err
	})
	obs := w.atOnce(t, func() { get(t, each, 5) })
	v := postgres.WriteCommitsPerRequest(obs, 5)
	wantOutcome(t, v, observe.Fail)
	if obs.WriteCommits != 15 || len(v.Evidence) < 3 || !strings.Contains(strings.Join(v.Evidence, "\n"), "5 calls: UPDATE customers SET name = ? WHERE id = ?") {
		t.Errorf("%d write commits, evidence %q; want 15 and the statements", obs.WriteCommits, v.Evidence)
	}
	obs = w.atOnce(t, func() { get(t, one, 5) })
	wantOutcome(t, postgres.WriteCommitsPerRequest(obs, 5), observe.Pass)
	obs = w.atOnce(t, func() { get(t, read, 5) })
	wantOutcome(t, postgres.WriteCommitsPerRequest(obs, 5), observe.Unknown)
	if obs.WriteCommits != 0 {
		t.Errorf("reads made %d write commits", obs.WriteCommits)
	}
}

func TestATransactionLeftIdleIsSeen(t *testing.T) {
	w := newWorld(t)
	called := make(chan struct{})
	release := make(chan struct{})
	slow := serve(t, func(r *http.Request) error {
		return pgx.BeginFunc(r.Context(), w.pool, func(tx pgx.Tx) error {
			if _, err := all[int](r.Context(), tx, "SELECT total FROM orders WHERE note = 'secret' FOR UPDATE"); err != nil {
				return err
			}
			close(called)
			<-release // it calls another service
			return nil
		})
	})
	quick := serve(t, func(r *http.Request) error {
		return pgx.BeginFunc(r.Context(), w.pool, func(tx pgx.Tx) error {
			_, err := all[int](r.Context(), tx, "SELECT total FROM orders WHERE id = 5 FOR UPDATE")
			return err
		})
	})
	wantOutcome(t, postgres.IdleTransactions(w.atOnce(t, func() { get(t, quick, 20) })), observe.Pass)

	window := begin(t, w.observer.BeginAtOnce)
	var wait sync.WaitGroup
	wait.Go(func() { get(t, slow, 1) })
	<-called
	waitOnServer(t, w, "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND clock_timestamp() - state_change > interval '1200 ms'")
	obs, err := window.End(t.Context())
	close(release)
	wait.Wait()
	v := postgres.IdleTransactions(logged(t, obs, err))
	wantOutcome(t, v, observe.Fail)
	if evidence := strings.Join(v.Evidence, "\n"); !strings.Contains(evidence, "WHERE note = ? FOR UPDATE (still open)") || strings.Contains(evidence, "secret") {
		t.Errorf("evidence = %q, want the statement without its literal", evidence)
	}
}

// waitOnServer polls until a statement returns rows.
func waitOnServer(t *testing.T, w *world, sql string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); w.server.Exec(w.database, sql) == ""; {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for %s", sql)
		}
	}
}

// update changes two orders. Two that meet hold their first each before they go on.
func update(ctx context.Context, tx pgx.Tx, order []int, turn chan struct{}, meet bool) error {
	for i, id := range order {
		if _, err := tx.Exec(ctx, "UPDATE orders SET total = total + 1 WHERE id = $1", id); err != nil {
			return err
		}
		if i == 0 && meet {
			select {
			case turn <- struct{}{}:
			case <-turn:
			}
		}
	}
	return nil
}

func TestADeadlockIsCounted(t *testing.T) {
	w := newWorld(t)
	turn := make(chan struct{})
	transfer := serve(t, func(r *http.Request) error {
		order := []int{1, 2}
		if r.URL.Path == "/back" {
			order = []int{2, 1}
		}
		return w.eachOwn(func(ctx context.Context, c *pgx.Conn) error {
			return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { return update(ctx, tx, order, turn, r.FormValue("meet") != "") })
		})(r)
	})
	obs := w.during(t, func() { get(t, transfer+"/there", 5); get(t, transfer+"/back", 5) })
	wantOutcome(t, postgres.DeadlockVerdict(obs), observe.Pass)

	window := begin(t, w.observer.Begin)
	var wait sync.WaitGroup
	var statuses [2]int
	for i, way := range []string{"/there", "/back"} {
		wait.Go(func() {
			var err error
			if statuses[i], err = status(t, transfer+way+"?meet=1"); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	obs, err := window.End(t.Context())
	wantOutcome(t, postgres.DeadlockVerdict(logged(t, obs, err)), observe.Fail)
	if obs.Deadlocks != 1 || statuses[0]+statuses[1] != 700 {
		t.Errorf("%d deadlocks, statuses %v; want 1 and a 500 beside a 200", obs.Deadlocks, statuses)
	}
}

func TestALockThatIsWaitedForIsSeen(t *testing.T) {
	w := newWorld(t)
	holder, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	window := begin(t, w.observer.BeginAtOnce)
	if _, err := holder.Exec(t.Context(), "UPDATE orders SET total = 9 WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	url := serve(t, func(r *http.Request) error {
		_, err := w.pool.Exec(r.Context(), "UPDATE orders SET note = 'private' WHERE id = 1")
		return err
	})
	var wait sync.WaitGroup
	wait.Go(func() { get(t, url, 1) })
	waitOnServer(t, w, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '300 ms'")
	if err := holder.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	obs, err := window.End(t.Context())
	logged(t, obs, err)
	if len(obs.Waits) != 1 || obs.Waits[0].Longest < 100*time.Millisecond ||
		obs.Waits[0].Waiting != "UPDATE orders SET note = ? WHERE id = ?" || obs.Waits[0].Blocking != "UPDATE orders SET total = ? WHERE id = ?" {
		t.Errorf("waits = %+v, want the one update for the other", obs.Waits)
	}
}

func TestNothingSeenNeverPasses(t *testing.T) {
	var none postgres.Observation
	for name, v := range map[string]observe.Verdict{
		"pool": postgres.PoolVerdict(none, 50), "growth": postgres.Growth(map[int]postgres.Observation{1: none, 50: none}, 5),
		"indexes": postgres.MissingIndexes(none, 50), "idle": postgres.IdleTransactions(none),
		"deadlock": postgres.DeadlockVerdict(none), "writes": postgres.WriteCommitsPerRequest(none, 50),
	} {
		t.Run(name, func(t *testing.T) { wantOutcome(t, v, observe.Unknown) })
	}
}

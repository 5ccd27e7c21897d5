package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres"
)

// rename is a change of a user as the service makes it.
func rename(ctx context.Context, s *postgres.Store, id, name string) error {
	return s.Tx(ctx, func(tx users.Tx) error {
		u, err := tx.Get(ctx, id)
		if err != nil {
			return err
		}
		u.DisplayName = name
		u.Version++
		e := u.Extend(users.Event{Kind: users.UserUpdated, Fields: []string{"display_name"}, At: u.UpdatedAt})
		return errors.Join(tx.Update(ctx, u), tx.Append(ctx, e))
	})
}

// Requirement D3.
func TestRecoversWithoutHelp(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase())})
	store(t, s, newUser("user_1"))
	for name, fault := range map[string]func(){
		"a restart":        p.Restart,
		"kill -9":          func() { p.Kill(); p.Start() },
		"stop, then a try": func() { p.Stop(); _ = s.Ping(t.Context()); p.Start() },
		"a freeze":         func() { p.Freeze(); _ = s.Ping(t.Context()); p.Thaw() },
	} {
		hold(t, s, 10)() // all ten connections are there, and used a moment ago
		fault()
		took := eventually(t, 5*time.Second, "an answer after "+name, func() bool {
			return rename(t.Context(), s, "usr_user_1", name) == nil
		})
		for range 20 {
			if _, err := s.Find(t.Context(), "iss", "user_1"); err != nil {
				t.Errorf("after %s, once it had answered: %v", name, err)
			}
		}
		t.Logf("%s: recovered after %v", name, took)
	}
}

// A pool of connections that all died is no caller's business, as long as the server is back.
func TestARestartBetweenTwoCallsIsNotNoticed(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase())})
	store(t, s, newUser("user_1"))
	hold(t, s, 10)()
	p.Restart()
	if err := rename(t.Context(), s, "usr_user_1", "after"); err != nil {
		t.Errorf("the first change after a restart = %v, want it done", err)
	}
	if u, err := s.Find(t.Context(), "iss", "user_1"); err != nil || u.Version != 2 || u.Events != 2 {
		t.Errorf("version %d, %d events, %v; want the change applied once", u.Version, u.Events, err)
	}
}

func TestAFrozenServerHoldsNobodyLong(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase())})
	p.Freeze()
	defer p.Thaw()
	start := time.Now()
	if err := s.Ping(t.Context()); !errors.Is(err, users.ErrUnavailable) || time.Since(start) > 3*time.Second {
		t.Errorf("Ping = %v after %v; want ErrUnavailable after a second", err, time.Since(start))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start = time.Now()
	if _, err := s.Find(ctx, "iss", "user_1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
		t.Errorf("Find = %v after %v; want its deadline, and at most the second that a cancelled statement is given", err, time.Since(start))
	}
}

// Requirement D4. Connections that lead to a server which is read-only now are discarded, and the
// call is repeated on one that leads to the primary.
func TestAReadOnlyServerLosesItsConnections(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := p.NewDatabase()
	s := open(t, postgres.Config{URL: p.URL(db)})
	store(t, s, newUser("user_1"))
	made := s.Stats().Made
	p.Exec("postgres", "ALTER DATABASE "+db+" SET default_transaction_read_only = on")
	p.Exec("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gantry'")
	err := rename(t.Context(), s, "usr_user_1", "refused")
	if !errors.Is(err, users.ErrUnavailable) || s.Stats().Made < made+3 {
		t.Errorf("a change on a read-only server = %v with %d new connections; want ErrUnavailable, after new ones were tried", err, s.Stats().Made-made)
	}
	if _, err := s.Find(t.Context(), "iss", "user_1"); err != nil {
		t.Errorf("reading on it = %v, want the user", err)
	}
	p.Exec("postgres", "ALTER DATABASE "+db+" RESET default_transaction_read_only")
	if err := rename(t.Context(), s, "usr_user_1", "done"); err != nil {
		t.Errorf("a change when the primary is back = %v, want it done", err)
	}
}

// blocked holds every lock on the users, so that whatever needs them waits.
func blocked(t *testing.T, p *testenv.Postgres, db string) (letGo func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.URLAs("postgres", db))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(context.WithoutCancel(t.Context())) }
}

// Requirement D5, also through the pooler.
func TestACallerWhoLeavesLeavesNothingRunning(t *testing.T) {
	p := testenv.NewPostgres(t)
	ways(t, p, func(t *testing.T, to func(string) postgres.Config) {
		db := p.NewDatabase()
		s := open(t, to(db))
		defer blocked(t, p, db)()
		const busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'gantry' AND state <> 'idle'"
		for name, call := range map[string]func(context.Context) error{
			"Find": func(ctx context.Context) error { _, err := s.Find(ctx, "iss", "user_1"); return err },
			"Tx":   func(ctx context.Context) error { return rename(ctx, s, "usr_user_1", "x") },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- call(ctx) }()
			eventually(t, 5*time.Second, "the statement to wait", func() bool { return p.Exec(db, busy) == "1" })
			cancel()
			start := time.Now()
			if err := <-result; !errors.Is(err, context.Canceled) || time.Since(start) > time.Second {
				t.Errorf("%s = %v after %v; want context.Canceled at once", name, err, time.Since(start))
			}
			eventually(t, time.Second, "the server to be idle", func() bool { return p.Exec(db, busy) == "0" })
		}
		if st := s.Stats(); st.InUse != 0 {
			t.Errorf("%d connections in use, want 0", st.InUse)
		}
	})
}

func TestTheServerLimitsStatementsAndLocks(t *testing.T) {
	p := testenv.NewPostgres(t)
	ways(t, p, func(t *testing.T, to func(string) postgres.Config) {
		db := p.NewDatabase()
		statement, lock := to(db), to(db)
		statement.StatementTimeout, lock.LockTimeout = 200*time.Millisecond, 200*time.Millisecond
		for name, cfg := range map[string]postgres.Config{"StatementTimeout": statement, "LockTimeout": lock} {
			cfg.Max = 1
			s := open(t, cfg)
			_, _ = s.Find(t.Context(), "iss", "user_1") // so that they are prepared
			_ = rename(t.Context(), s, "usr_user_1", "x")
			letGo := blocked(t, p, db)
			start := time.Now()
			_, err := s.Find(t.Context(), "iss", "user_1")
			err2 := rename(t.Context(), s, "usr_user_1", "x")
			if took := time.Since(start); !errors.Is(err, users.ErrUnavailable) || !errors.Is(err2, users.ErrUnavailable) || took > 3*time.Second {
				t.Errorf("%s: Find = %v, a change = %v, after %v; want ErrUnavailable after 0.2 s each", name, err, err2, took)
			}
			letGo()
			if _, err := s.Find(t.Context(), "iss", "user_1"); !errors.Is(err, users.ErrNotFound) {
				t.Errorf("%s: Find afterwards = %v, want ErrNotFound", name, err)
			}
		}
	})
}

// Requirement D7, with a deadlock that the server really finds.
func TestADeadlockIsRetriedAndAppliedOnce(t *testing.T) {
	p := testenv.NewPostgres(t, "deadlock_timeout=50ms")
	ways(t, p, func(t *testing.T, to func(string) postgres.Config) {
		s := open(t, to(p.NewDatabase()))
		store(t, s, newUser("a"))
		store(t, s, newUser("b"))
		var met, done sync.WaitGroup
		met.Add(2)
		cross := func(first, second string) {
			meet := sync.OnceFunc(func() { met.Done(); met.Wait() })
			err := s.Tx(t.Context(), func(tx users.Tx) error {
				ctx := t.Context()
				if _, err := tx.Get(ctx, first); err != nil {
					return err
				}
				meet()
				u, err := tx.Get(ctx, second)
				if err != nil {
					return err
				}
				u.Version++
				return errors.Join(tx.Update(ctx, u), tx.Append(ctx, u.Extend(users.Event{Kind: users.UserUpdated, At: u.UpdatedAt})))
			})
			if err != nil {
				t.Error(err)
			}
		}
		done.Go(func() { cross("usr_a", "usr_b") })
		done.Go(func() { cross("usr_b", "usr_a") })
		done.Wait()
		for _, subject := range []string{"a", "b"} {
			if u, err := s.Find(t.Context(), "iss", subject); err != nil || u.Version != 2 {
				t.Errorf("%s has version %d, %v; want 2: applied once", subject, u.Version, err)
			}
		}
		if n := s.Stats().Retries; n < 1 || n > 6 {
			t.Errorf("%d retries, want at least 1, and at most 3 for each", n)
		}
	})
}

// Requirement D7: no more than three. The row is changed by others each time, between the snapshot and
// the lock.
func TestASerializationFailureIsRetriedThreeTimes(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := p.NewDatabase()
	p.Exec("postgres", "ALTER DATABASE "+db+" SET default_transaction_isolation = 'repeatable read'")
	s := open(t, postgres.Config{URL: p.URL(db)})
	store(t, s, newUser("a"))
	store(t, s, newUser("b"))
	runs, spoiled := 0, 100
	change := func() error {
		runs = 0
		return s.Tx(t.Context(), func(tx users.Tx) error {
			ctx := t.Context()
			_, err := tx.Get(ctx, "usr_b")
			if runs++; runs <= spoiled {
				p.Exec(db, "UPDATE users SET bio = bio || 'x' WHERE id = 'usr_a'")
			}
			if err != nil {
				return err
			}
			u, err := tx.Get(ctx, "usr_a")
			if err != nil {
				return err
			}
			u.Version++
			return tx.Update(ctx, u)
		})
	}
	if err := change(); !errors.Is(err, users.ErrUnavailable) || runs != 4 {
		t.Errorf("spoiled each time: %v after %d runs; want ErrUnavailable after 4", err, runs)
	}
	spoiled = 3
	if err := change(); err != nil || runs != 4 {
		t.Errorf("spoiled three times: %v after %d runs; want success in the 4th", err, runs)
	}
	if u, err := s.Find(t.Context(), "iss", "a"); err != nil || u.Version != 2 || u.Bio != "xxxxxxx" {
		t.Errorf("version %d, bio %q, %v; want 2 and seven x", u.Version, u.Bio, err)
	}
}

// A retry does not outlive the deadline.
func TestRetriesEndWithTheContext(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase())})
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	err := s.Tx(ctx, func(tx users.Tx) error {
		runs++
		err := tx.Forget(ctx, "s")
		_, err2 := tx.Get(ctx, "nobody")
		cancel()
		if !errors.Is(err2, users.ErrNotFound) {
			t.Errorf("Get = %v", err2)
		}
		return err
	})
	if !errors.Is(err, context.Canceled) || runs != 1 {
		t.Errorf("Tx = %v after %d runs; want context.Canceled after 1", err, runs)
	}
}

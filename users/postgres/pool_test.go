package postgres_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres"
)

func newUser(subject string) users.User {
	at := time.Now().UTC().Truncate(time.Microsecond)
	return users.User{ID: "usr_" + subject, Issuer: "iss", Subject: subject, Status: users.Active, Version: 1, CreatedAt: at, UpdatedAt: at}
}

func store(t testing.TB, s *postgres.Store, u users.User) {
	t.Helper()
	e := u.Extend(users.Event{Kind: users.UserCreated, At: u.CreatedAt})
	err := s.Tx(t.Context(), func(tx users.Tx) error {
		_, err := tx.Insert(t.Context(), u)
		return errors.Join(err, tx.Append(t.Context(), e))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// hold takes n connections of the pool until the func it returns is called.
func hold(t *testing.T, s *postgres.Store, n int) (letGo func()) {
	t.Helper()
	free := make(chan struct{})
	var held, done sync.WaitGroup
	held.Add(n)
	for range n {
		done.Go(func() {
			err := s.Tx(t.Context(), func(users.Tx) error {
				held.Done()
				<-free
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	held.Wait()
	return func() {
		close(free)
		done.Wait()
	}
}

// Requirement D2.
func TestAnExhaustedPoolSaysSoInTwoSeconds(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase()), Max: 3})
	letGo := hold(t, s, 3)
	start := time.Now()
	waited := make(chan error, 1)
	go func() {
		_, err := s.Find(t.Context(), "iss", "user_1")
		waited <- err
	}()
	eventually(t, time.Second, "the caller to be counted", func() bool { return s.Stats().Waiting == 1 })
	err := <-waited
	if took := time.Since(start); !errors.Is(err, users.ErrExhausted) || !errors.Is(err, users.ErrUnavailable) || took < 1900*time.Millisecond || took > 3*time.Second {
		t.Errorf("Find = %v after %v; want ErrExhausted after 2 s", err, took)
	}
	if st := s.Stats(); st.Max != 3 || st.InUse != 3 || st.Waiting != 0 || st.Exhausted != 1 {
		t.Errorf("stats = %+v; want 3 of 3 in use, nobody waiting, 1 exhausted", st)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Find(ctx, "iss", "user_1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Find with a deadline below = %v, want the deadline", err)
	}
	letGo()
	if _, err := s.Find(t.Context(), "iss", "user_1"); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Find afterwards = %v, want ErrNotFound", err)
	}
	if st := s.Stats(); st.InUse != 0 || st.Acquired == 0 {
		t.Errorf("stats = %+v; want none in use", st)
	}
}

func TestAServerThatIsDownIsNotAnExhaustedPool(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase())})
	p.Stop()
	for _, err := range []error{s.Ping(t.Context()), s.Tx(t.Context(), func(tx users.Tx) error { return tx.Forget(t.Context(), "s") })} {
		if !errors.Is(err, users.ErrUnavailable) || errors.Is(err, users.ErrExhausted) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
}

func TestAServerWithoutConnectionsLeftIsExhausted(t *testing.T) {
	p := testenv.NewPostgres(t, "max_connections=8", "superuser_reserved_connections=2")
	db := p.NewDatabase()
	s := open(t, postgres.Config{URL: p.URL(db), Min: 1, Max: 3})
	others := open(t, postgres.Config{URL: p.URL(db), Min: 1, Max: 5})
	eventually(t, 5*time.Second, "both pools to have their first", func() bool { return s.Stats().Idle == 1 && others.Stats().Idle == 1 })
	letGo := hold(t, others, 5)
	defer letGo()
	defer hold(t, s, 1)()
	if _, err := s.Find(t.Context(), "iss", "user_1"); !errors.Is(err, users.ErrExhausted) {
		t.Errorf("Find = %v, want ErrExhausted", err)
	}
}

// Requirement D1.
func TestTheBudgetCoversARollout(t *testing.T) {
	p := testenv.NewPostgres(t, "max_connections=53", "superuser_reserved_connections=3")
	db := p.NewDatabase()
	s := open(t, postgres.Config{URL: p.URL(db), Max: 10})
	if err := s.Budget(t.Context(), 2); err != nil {
		t.Errorf("2 instances = %v; want them to fit: 40 + 5 of 50", err)
	}
	var over *postgres.BudgetError
	if err := s.Budget(t.Context(), 3); !errors.As(err, &over) || over.Need != 65 || over.Have != 50 || over.Reserve != 5 {
		t.Errorf("3 instances = %v; want 65 needed of 50", err)
	}
	p.Exec("postgres", "ALTER ROLE gantry CONNECTION LIMIT 20")
	if err := s.Budget(t.Context(), 2); !errors.As(err, &over) || over.Have != 20 {
		t.Errorf("with a role limited to 20 = %v; want 45 needed of 20", err)
	}
	p.Exec("postgres", "ALTER ROLE gantry CONNECTION LIMIT -1")
	pooled := open(t, postgres.Config{URL: testenv.NewPgBouncer(t, p).URL(db), Max: 10})
	if err := pooled.Budget(t.Context(), 100); err != nil {
		t.Errorf("through a pooler = %v; want nothing to compare", err)
	}
}

// Requirement D8, with ten minutes shrunk to eight seconds, and the minute with them.
func TestConnectionsMadeTogetherDoNotEndTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	const n, life = 100, 8 * time.Second
	p := testenv.NewPostgres(t, "max_connections=120")
	db := p.NewDatabase()
	s := open(t, postgres.Config{URL: p.URL(db), Max: n, Lifetime: life})
	hold(t, s, n)()
	pids := func() []string {
		return strings.Fields(p.Exec(db, "SELECT pid FROM pg_stat_activity WHERE application_name = 'gantry'"))
	}
	first, start := pids(), time.Now()
	gone := make(map[string]time.Duration)
	eventually(t, 2*life, "all to end", func() bool {
		now := pids()
		for _, pid := range first {
			if _, known := gone[pid]; !known && !slices.Contains(now, pid) {
				gone[pid] = time.Since(start)
			}
		}
		return len(gone) == len(first)
	})
	var ends []time.Duration
	for _, end := range gone {
		ends = append(ends, end)
	}
	if spread := slices.Max(ends) - slices.Min(ends); len(first) < n*9/10 || spread < life/10 || slices.Max(ends) > life+life/10 {
		t.Errorf("%d connections ended within %v, the last after %v; want them spread over more than %v, within %v",
			len(first), spread, slices.Max(ends), life/10, life)
	}
}

func TestIdleConnectionsAreKeptAtHand(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase()), Min: 4, Max: 6})
	eventually(t, 5*time.Second, "four idle connections", func() bool { return s.Stats().Idle == 4 })
	if got := s.Stats().Total; got != 4 {
		t.Errorf("%d connections, want 4", got)
	}
}

func TestAPanicInATransactionLeavesNothingBehind(t *testing.T) {
	p := testenv.NewPostgres(t)
	s := open(t, postgres.Config{URL: p.URL(p.NewDatabase()), Max: 1})
	store(t, s, newUser("user_1"))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.Tx(t.Context(), func(tx users.Tx) error {
			_, _ = tx.Get(t.Context(), "usr_user_1") // holds the row
			panic("a bug in the caller")
		})
	}()
	if err := rename(t.Context(), s, "usr_user_1", "x"); err != nil {
		t.Errorf("the next change on the only connection = %v", err)
	}
}
